//! Reads what children report on their status channels: when, and how much of it in a turn.
//!
//! While a service has children to spare (avail > 1), its reports are read in batches: a wait for
//! each report would cost more than all else that a connection to a warm child costs the master.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::Runtime;
use super::children::ChildChannel;
use super::services::{about_child, described};
use super::token::Token;
use crate::log::Severity;
use crate::policy::{Event, Pid, ServiceId, Time};
use crate::protocol::{self, StatusReport};
use crate::sys::channel::{Channel, Found};
use crate::sys::clock;
use crate::sys::poll::{Interest, Poll, Ready};

/// Bytes of one read: few reports, because the kernel tells those that wait to write to the channel of
/// each.
const READ: usize = 8 * StatusReport::SIZE;
/// Reads of a channel in a turn: as many reports as most children make in the longest batch.
const READS: usize = 8;
/// A read takes microseconds. After one that takes longer than this, reads are of one report and their
/// processor time is measured, for [`MEASURED`]. A child whose reports have used [`SLOW_READS`] in this
/// time has made them slow: hundreds of thousands of epoll(7) sets can wait for its channel.
const SLOW_READ: Duration = Duration::from_millis(5);
const MEASURED: Duration = Duration::from_secs(1);
const SLOW_READS: Duration = Duration::from_millis(50);
/// Channels that are all read, without a look at which of them have something: a look costs five
/// system calls.
const FEW: usize = 4;
/// Channels with reports in a batch that are a sign of more to come.
const MANY: usize = 8;
/// Reads of one service in a turn. Others go on in the next turn.
const READS_MAX: usize = 128;
/// Reads of the channel of a child that has ended or is told to leave: more than the kernel keeps
/// in a channel (`net.core.wmem_default`).
const LAST_READS: usize = 512;
/// When the poller is asked again that has refused a change of interest.
const RETRY: Duration = Duration::from_millis(1);

/// The status channels of a service's children. To the master's own poller, they are one.
#[derive(Debug)]
pub(super) struct ReportSet {
    channels: Poll,
    /// The reports of a batch are on their way, and the poller does not report them.
    batched: bool,
    /// Where the next turn begins, when there is more to read than a turn may read.
    first: usize,
}

impl ReportSet {
    /// An empty set, for a service that has its first child.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub(super) fn new(id: ServiceId, poll: &Poll) -> io::Result<Self> {
        let channels = Poll::new()?;
        poll.add(&channels, Token::Reports(id).key(), Interest::Readable)?;
        Ok(Self {
            channels,
            batched: false,
            first: 0,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.channels.len() == 0
    }

    /// # Errors
    /// The poller has no room ([`Poll::add`]): reports of this child are not read.
    pub(super) fn add(&self, pid: Pid, channel: &Channel) -> io::Result<()> {
        let key = pid as usize;
        self.channels.add(channel, key, Interest::Readable)
    }

    pub(super) fn remove(&self, channel: &Channel) {
        // One that could not be added is not in the set.
        let _ = self.channels.remove(channel);
    }

    /// Has the poller report reports, or not while a batch is collected. Whether it does so.
    fn set_batched(&mut self, batched: bool, id: ServiceId, poll: &Poll) -> bool {
        let interest = if batched {
            Interest::Hangup
        } else {
            Interest::Readable
        };
        let set = poll.modify(&self.channels, Token::Reports(id).key(), interest);
        if set.is_ok() {
            self.batched = batched;
        }
        set.is_ok()
    }

    /// The children that have something to read: at most [`READS_MAX`], in turn.
    fn ready(&mut self, found: &mut Vec<Ready>) {
        // Should it fail, the next turn looks again.
        let _ = self.channels.wait(Duration::ZERO, found);
        if found.len() > READS_MAX {
            self.first %= found.len();
            found.rotate_left(self.first);
            found.truncate(READS_MAX);
            self.first += READS_MAX;
        }
    }
}

impl AsFd for ReportSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channels.as_fd()
    }
}

/// The services whose reports are collected.
#[derive(Debug, Default)]
pub(super) struct Batches {
    services: Vec<ServiceId>,
    /// When all of them are read.
    until: Option<Time>,
}

impl Batches {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.until
    }

    fn add(&mut self, id: ServiceId, until: Time) {
        self.services.push(id);
        self.until = Some(self.until.map_or(until, |before| before.min(until)));
    }
}

impl Runtime {
    /// Children of the service have reports: they are read in this turn, or with others later.
    pub(super) fn reports_ready(&mut self, now: Time, id: ServiceId) {
        let Some(reports) = self.services.get_mut(id).and_then(|io| io.reports()) else {
            return;
        };
        match self.table.report_delay(id) {
            Some(delay) if !reports.batched && reports.set_batched(true, id, &self.poll) => {
                self.batches.add(id, now + delay);
            }
            _ => self.turn.reported.push(id),
        }
    }

    /// Reads the reports of all services that have some, and whose batches are due.
    pub(super) fn read_reports(&mut self, now: Time) {
        let mut reported = mem::take(&mut self.turn.reported);
        if self.batches.until.take_if(|until| *until <= now).is_some() {
            reported.append(&mut self.batches.services);
        }
        for id in reported.drain(..) {
            let reports = self.read_reports_of(now, id);
            let set = self.services.get_mut(id).and_then(|io| io.reports());
            let Some(set) = set.filter(|set| set.batched) else {
                continue;
            };
            // After many reports more will come, and the next batch begins at once.
            let delay = self.table.report_delay(id).filter(|_| reports >= MANY);
            if let Some(delay) = delay {
                self.batches.add(id, now + delay);
            } else if !set.set_batched(false, id, &self.poll) {
                // The poller must be asked again.
                self.batches.add(id, now + RETRY);
            }
        }
        self.turn.reported = reported;
    }

    /// Reads what children of a service have reported. The number of channels that had something,
    /// where that is known.
    fn read_reports_of(&mut self, now: Time, id: ServiceId) -> usize {
        let Some(set) = self.services.get_mut(id).and_then(|io| io.reports()) else {
            return 0;
        };
        let mut children = mem::take(&mut self.turn.children);
        children.clear();
        let count = if set.channels.len() <= FEW {
            children.extend(self.table.pids_of(id));
            0
        } else {
            set.ready(&mut self.turn.ready);
            children.extend(self.turn.ready.iter().map(|ready| ready.key as Pid));
            children.len()
        };
        let began = self.now();
        for &pid in &children {
            for _ in 0..READS {
                if !self.read_status_channel(now, pid) || self.has_taken_long(began) {
                    break;
                }
            }
            // What is left is reported again.
            if self.has_taken_long(began) {
                break;
            }
        }
        self.turn.children = children;
        count
    }

    /// Reads all that a child has reported that has ended or is told to leave.
    pub(super) fn read_last_reports(&mut self, now: Time, pid: Pid) {
        let began = self.now();
        for _ in 0..LAST_READS {
            if !self.read_status_channel(now, pid) || self.has_taken_long(began) {
                return;
            }
        }
    }

    /// Reads some of what a child has reported. Whether there can be more.
    fn read_status_channel(&mut self, now: Time, pid: Pid) -> bool {
        let Some(child) = self.children.get(pid) else {
            return false;
        };
        let Some(ChildChannel::Status(channel)) = &child.channel else {
            return false;
        };
        let id = child.service;
        let mut buffer = [0; READ];
        let measured = child.slow_reads.is_some();
        let clock = || {
            if measured {
                clock::processor_time()
            } else {
                self.now()
            }
        };
        let bytes = if measured {
            &mut buffer[..StatusReport::SIZE]
        } else {
            &mut buffer
        };
        let began = clock();
        let found = channel.read(bytes);
        let took = clock().saturating_sub(began);
        if let Found::Bytes(length) = found {
            for report in protocol::reports(pid, &bytes[..length]) {
                let (service, writer) = (id, pid);
                self.step(
                    now,
                    Event::Report {
                        service,
                        writer,
                        report,
                    },
                );
            }
        }
        if self.is_slow(now, pid, took) {
            let (services, poll) = (&mut self.services, &self.poll);
            let channel = self.children.take_channel(pid, services, poll);
            if let Some(ChildChannel::Status(channel)) = channel {
                channel.close_elsewhere();
            }
            self.step(now, Event::ChannelClosed { pid });
            return false;
        }
        self.close_if_ended(now, pid, found);
        found == Found::Bytes(bytes.len())
    }

    /// Whether a child has made it slow to read its channel, which is said then.
    fn is_slow(&mut self, now: Time, pid: Pid, took: Duration) -> bool {
        let Some(child) = self.children.get_mut(pid) else {
            return false;
        };
        child.slow_reads = match child.slow_reads {
            // It may have waited for a processor.
            None => (took >= SLOW_READ).then_some((now, Duration::ZERO)),
            Some((since, used)) => (now < since + MEASURED).then_some((since, used + took)),
        };
        let (_, used) = child.slow_reads.unwrap_or_default();
        let is_slow = used >= SLOW_READS;
        if let (true, Some(io)) = (is_slow, self.services.get(child.service)) {
            let (name, took) = (described(&io.service), used.as_millis());
            let text = format!(
                "{name}: reading what process {pid} reports took {took} ms -- its channel is closed"
            );
            let about = about_child(&io.service, pid);
            self.log.write_about(Severity::Warning, about, text);
        }
        is_slow
    }
}
