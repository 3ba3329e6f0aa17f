//! What children print, where their service has it logged: line by line, with the service's name
//! and the child's pid.
//!
//! A child that prints more than anybody reads must cost neither the others their turn nor the
//! disk its room. So a pipe is read once in a turn, and not again for a while when there was more;
//! the child then waits, as anybody does who writes faster than is read. Of what is read, a
//! service has so many lines logged in a second, and the others are counted.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::Ready;
use super::ports::{about, described};
use crate::config::Service;
use crate::log::{About, Log, Severity};
use crate::policy::{ByPid, Pid, ServiceId, Time};
use crate::sys::output::{Found, OutputPipe};
use crate::sys::poll::{Interest, Poll};

/// Bytes read from one child in one turn.
const READ: usize = 16 * 1024;
/// A child with more to say is not read again for so long.
const REST: Duration = Duration::from_millis(100);
/// As much as fits into a pipe, which is all that a dead child can have left.
const LAST_READS: usize = 4;
/// Bytes of a line; what is longer is several.
const LINE_MAX: usize = 1000;
/// Lines of one service in one second.
const LINES: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);

/// How much of what its children print a service has had logged.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Time>,
    passed: u32,
    left_out: u64,
}

impl Rate {
    /// Whether another line may be logged.
    fn allow(&mut self, now: Time) -> bool {
        let fresh = |since: Time| now.saturating_sub(since) < SECOND;
        if !self.since.is_some_and(fresh) {
            self.since = Some(now);
            self.passed = 0;
        }
        let allowed = self.passed < LINES;
        match allowed {
            true => self.passed += 1,
            false => self.left_out += 1,
        }
        allowed
    }
}

#[derive(Debug)]
struct Output {
    pipe: OutputPipe,
    id: ServiceId,
    service: Arc<Service>,
    /// A line without its end yet.
    line: Vec<u8>,
    /// Whether the poller waits for more.
    watched: bool,
}

/// All children's, by pid. Never iterated, so that their order cannot matter.
#[derive(Debug)]
pub(super) struct Outputs {
    by_pid: ByPid<Output>,
    /// One for each place in the table.
    rates: HashMap<ServiceId, Rate>,
    /// Who rests, in the order in which that began.
    resting: VecDeque<(Time, Pid)>,
    buffer: Box<[u8; READ]>,
}

impl Default for Outputs {
    fn default() -> Self {
        Self {
            by_pid: ByPid::default(),
            rates: HashMap::new(),
            resting: VecDeque::new(),
            buffer: Box::new([0; READ]),
        }
    }
}

impl Outputs {
    /// A new child's pipe. Should the poller refuse it, the child is heard at its end.
    ///
    /// # Errors
    /// The poller's.
    pub(super) fn add(
        &mut self,
        pid: Pid,
        (id, service): (ServiceId, Arc<Service>),
        pipe: OutputPipe,
        poll: &Poll,
    ) -> io::Result<()> {
        let mut output = Output {
            pipe,
            id,
            service,
            line: Vec::new(),
            watched: false,
        };
        let watched = output.watch(pid, poll);
        self.by_pid.insert(pid, output);
        watched
    }

    /// Takes what a child has printed, once.
    pub(super) fn ready(&mut self, now: Time, pid: Pid, poll: &Poll, log: &mut Log) {
        let Some(output) = self.by_pid.get_mut(&pid) else {
            return;
        };
        match output.pipe.read(&mut *self.buffer) {
            Found::Nothing => {}
            // The child has closed it, and may live on.
            Found::End => output.unwatch(poll),
            Found::Bytes(length) => {
                let rate = self.rates.entry(output.id).or_default();
                output.take(&self.buffer[..length], now, pid, rate, log);
                if length == READ {
                    output.unwatch(poll);
                    self.resting.push_back((now + REST, pid));
                }
            }
        }
    }

    /// When somebody has rested.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        Some(self.resting.front()?.0)
    }

    /// Reads on from who has rested.
    pub(super) fn wake(&mut self, now: Time, poll: &Poll) {
        while self.next_deadline().is_some_and(|at| at <= now) {
            let Some((_, pid)) = self.resting.pop_front() else {
                return;
            };
            if let Some(output) = self.by_pid.get_mut(&pid) {
                // Where the poller refuses it now, the child's end is when it is read.
                let _ = output.watch(pid, poll);
            }
        }
    }

    /// A child has ended: takes what it has left, and closes the pipe, which its own children may
    /// have, too.
    pub(super) fn finish(&mut self, now: Time, pid: Pid, poll: &Poll, log: &mut Log) {
        let Some(mut output) = self.by_pid.remove(&pid) else {
            return;
        };
        let rate = self.rates.entry(output.id).or_default();
        for _ in 0..LAST_READS {
            let Found::Bytes(length) = output.pipe.read(&mut *self.buffer) else {
                break;
            };
            output.take(&self.buffer[..length], now, pid, rate, log);
        }
        output.end_line(now, pid, rate, log);
        output.confess(rate, log);
        output.unwatch(poll);
    }
}

impl Output {
    fn watch(&mut self, pid: Pid, poll: &Poll) -> io::Result<()> {
        if !self.watched {
            poll.add(
                self.pipe.as_fd(),
                Ready::Output(pid).key(),
                Interest::Readable,
            )?;
            self.watched = true;
        }
        Ok(())
    }

    fn unwatch(&mut self, poll: &Poll) {
        if std::mem::take(&mut self.watched) {
            let _ = poll.remove(&self.pipe);
        }
    }

    fn take(&mut self, bytes: &[u8], now: Time, pid: Pid, rate: &mut Rate, log: &mut Log) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let mut rest = text;
            while self.line.len() + rest.len() > LINE_MAX {
                let (fits, more) = rest.split_at(LINE_MAX - self.line.len());
                self.line.extend_from_slice(fits);
                self.end_line(now, pid, rate, log);
                rest = more;
            }
            self.line.extend_from_slice(rest);
            if ends {
                self.end_line(now, pid, rate, log);
            }
        }
    }

    fn end_line(&mut self, now: Time, pid: Pid, rate: &mut Rate, log: &mut Log) {
        let text = self.line.trim_ascii_end();
        if !text.is_empty() && rate.allow(now) {
            self.confess(rate, log);
            let name = &self.service.name;
            let text = String::from_utf8_lossy(text);
            log.detail(
                About {
                    child: Some(pid),
                    ..about(&self.service)
                },
                format_args!("{name}/{pid}: {text}"),
            );
        }
        self.line.clear();
    }

    /// Says how many lines were left out before.
    fn confess(&self, rate: &mut Rate, log: &mut Log) {
        let count = std::mem::take(&mut rate.left_out);
        if count > 0 {
            let service = described(&self.service);
            let text = format!("{service}: {count} lines of output were not logged");
            log.write_about(Severity::Warning, about(&self.service), text);
        }
    }
}
