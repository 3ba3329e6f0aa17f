//! The channels of ordered pools' children, by pid.

use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::AsFd;

use super::faults::Faults;
use super::{ANSWERS_WAIT, Ready, Runtime, errno, spare};
use crate::policy::{ByPid, Errno, Event, OrderFailure, Pid, ServiceId, State, Time};
use crate::protocol::pool::{Message, Order, Report};
use crate::sys::backchannel::{Backchannel, Written};
use crate::sys::poll::{Interest, Poll};

#[derive(Debug)]
struct Channel {
    backchannel: Backchannel,
    /// What the poller was asked to report.
    asked: Interest,
}

/// All channels. Never iterated, so that their order cannot matter.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_pid: ByPid<Channel>,
    messages: Vec<Message>,
    faults: Faults,
    /// Those whose answers wait, and until when.
    deferred: Vec<Pid>,
    deferred_until: Option<Time>,
}

impl Channels {
    /// None yet; in a debug build, with the faults that a test asks for.
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            faults,
            ..Self::default()
        }
    }

    /// A new child's channel. Should the poller refuse it, the child cannot be heard.
    ///
    /// # Errors
    /// The poller's.
    pub(super) fn add(&mut self, pid: Pid, ours: Backchannel, poll: &Poll) -> io::Result<()> {
        poll.add(ours.as_fd(), Ready::Channel(pid).key(), Interest::Readable)?;
        let channel = Channel {
            backchannel: ours,
            asked: Interest::Readable,
        };
        self.by_pid.insert(pid, channel);
        Ok(())
    }

    pub(super) fn remove(&mut self, pid: Pid, poll: &Poll) {
        if let Some(channel) = self.by_pid.remove(&pid) {
            let _ = poll.remove(&channel.backchannel);
        }
    }

    pub(super) fn has(&self, pid: Pid) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// Gives a child an order.
    ///
    /// # Errors
    /// What it means that it cannot be told: a child that leaves of itself closes its end before
    /// that is heard of.
    pub(super) fn order(&mut self, pid: Pid, order: Order, poll: &Poll) -> Result<(), Event> {
        let written = self.write(pid, order, poll);
        written.map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Event::ChannelClosed { pid },
            kind => Event::OrderFailed {
                pid,
                failure: match (error.raw_os_error(), kind) {
                    (Some(errno), _) => OrderFailure::System(Errno(errno)),
                    (None, ErrorKind::NotFound) => OrderFailure::NoChannel,
                    (None, _) => OrderFailure::NotRead,
                },
            },
        })
    }

    fn write(&mut self, pid: Pid, order: Order, poll: &Poll) -> io::Result<()> {
        let channel = self.by_pid.get_mut(&pid);
        let channel = channel.ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
        if self.faults.child(order) {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let message = order.encode();
        let written = match self.faults.write() {
            true => channel.backchannel.keep(message).map(|()| Written::Part),
            false => channel.backchannel.send(message),
        }?;
        channel.wait_for(written, pid, poll)
    }

    /// Lets a child's answer to an order wait, together with those of others: whoever comes next
    /// is reason enough to look for it. The child is heard as before if that is not possible.
    pub(super) fn defer(&mut self, pid: Pid, until: Time, poll: &Poll) {
        let channel = self.by_pid.get_mut(&pid);
        let Some(channel) = channel.filter(|channel| channel.asked == Interest::Readable) else {
            return;
        };
        if channel.ask(Interest::Nothing, pid, poll).is_ok() {
            self.deferred.push(pid);
            self.deferred_until.get_or_insert(until);
        }
    }

    /// Whose answers wait.
    pub(super) fn deferred(&self) -> &[Pid] {
        &self.deferred
    }

    pub(super) fn deferred_until(&self) -> Option<Time> {
        self.deferred_until
    }

    /// No answer is to wait longer than until now. False if none waits.
    pub(super) fn hurry(&mut self, now: Time) -> bool {
        let waits = self.deferred_until.as_mut();
        waits.map(|until| *until = now).is_some()
    }

    /// Ends the wait of those whose answers wait, one after the other, if it is time.
    pub(super) fn next_deferred(&mut self, now: Time) -> Option<Pid> {
        self.deferred_until.filter(|until| *until <= now)?;
        let next = self.deferred.pop();
        if next.is_none() {
            self.deferred_until = None;
        }
        next
    }

    /// Has the poller tell of what a child says again.
    ///
    /// # Errors
    /// The poller's.
    pub(super) fn expect(&mut self, pid: Pid, poll: &Poll) -> io::Result<()> {
        match self.by_pid.get_mut(&pid) {
            Some(channel) if channel.asked == Interest::Nothing => {
                channel.ask(Interest::Readable, pid, poll)
            }
            _ => Ok(()),
        }
    }

    /// What there is to do for a channel that the poller found ready, as events.
    pub(super) fn ready(&mut self, pid: Pid, poll: &Poll, events: &mut Vec<Event>) {
        let Some(channel) = self.by_pid.get_mut(&pid) else {
            return;
        };
        if channel.asked == Interest::Both {
            let written = channel.backchannel.flush();
            // What cannot be written need not be: the end is about to be read.
            let _ = written.and_then(|written| channel.wait_for(written, pid, poll));
        }
        let more = channel.backchannel.read(&mut self.messages);
        events.extend(self.messages.drain(..).map(|message| event(pid, message)));
        if !matches!(more, Ok(true)) {
            events.push(Event::ChannelClosed { pid });
        }
    }
}

impl Channel {
    /// Has the poller wait for room to write, or no longer.
    fn wait_for(&mut self, written: Written, pid: Pid, poll: &Poll) -> io::Result<()> {
        match (written, self.asked) {
            (Written::Part, _) => self.ask(Interest::Both, pid, poll),
            (Written::All, Interest::Both) => self.ask(Interest::Readable, pid, poll),
            (Written::All, _) => Ok(()),
        }
    }

    fn ask(&mut self, interest: Interest, pid: Pid, poll: &Poll) -> io::Result<()> {
        if self.asked == interest {
            return Ok(());
        }
        let key = Ready::Channel(pid).key();
        poll.modify(self.backchannel.as_fd(), key, interest)?;
        self.asked = interest;
        Ok(())
    }
}

fn event(pid: Pid, message: Message) -> Event {
    match Report::decode(message) {
        Some(report) => Event::PoolReport { pid, report },
        None => Event::PoolGarbage {
            pid,
            letter: message[0],
        },
    }
}

impl Runtime {
    /// Hears the children of ordered pools. Those whose answers wait are heard in time for the next
    /// client, who may be theirs.
    pub(super) fn read_channels(&mut self, now: Time) {
        while let Some(pid) = self.channels.next_deferred(now) {
            self.turn.heard.push(pid);
            if let Err(error) = self.channels.expect(pid, &self.poll) {
                let failure = OrderFailure::System(errno(&error));
                self.step(now, Event::OrderFailed { pid, failure });
            }
        }
        if !self.turn.connections.is_empty() {
            let owes = |pid: &Pid| {
                let state = self.table.state_of(*pid);
                matches!(state, Some(State::Ordered | State::Busy))
            };
            let deferred = self.channels.deferred().iter().copied();
            self.turn.heard.extend(deferred.filter(owes));
        }
        let heard = mem::take(&mut self.turn.heard);
        let mut said = mem::take(&mut self.turn.said);
        for &pid in &heard {
            self.channels.ready(pid, &self.poll, &mut said);
            for event in said.drain(..) {
                self.step(now, event);
            }
        }
        self.turn.said = said;
        self.turn.heard = heard;
    }

    /// Gives an order. Where another child is there for the next client, who is told of in any
    /// case, the answer can wait for that: to be woken up for it costs more than to read it.
    pub(super) fn order(&mut self, now: Time, pid: Pid, order: Order) {
        if let Err(event) = self.channels.order(pid, order, &self.poll) {
            return self.table.step(now, event, &mut self.actions);
        }
        let Some(id) = self
            .table
            .service_of(pid)
            .filter(|_| order == Order::Accept)
        else {
            return;
        };
        self.turn.ordered = true;
        if spare(&self.table, id) > 0 && self.ports.tells_of_arrivals(id) {
            self.channels.defer(pid, now + ANSWERS_WAIT, &self.poll);
        } else {
            self.channels.hurry(now);
        }
    }

    /// Nobody is there for a client who has come. More who come need not be told of, unless
    /// somebody is there already whose answer waits.
    pub(super) fn let_wait(&mut self, now: Time, service: ServiceId) {
        if self.channels.hurry(now) {
            return;
        }
        if let Err(error) = self.ports.ignore_arrivals(service, &self.poll) {
            let error = errno(&error);
            self.step(now, Event::WatchFailed { service, error });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_has_closed_its_end_has_left_and_one_that_does_not_read_cannot_be_told() {
        let poll = Poll::new().unwrap();
        let mut channels = Channels::new(Faults::default());
        let (ours, theirs) = Backchannel::new().unwrap();
        channels.add(7, ours, &poll).unwrap();
        let mut ordered = || channels.order(7, Order::Accept, &poll);
        let refused = (0..10_000).find_map(|_| ordered().err());
        assert!(matches!(refused, Some(Event::OrderFailed { pid: 7, .. })));
        drop(theirs);
        let (ours, theirs) = Backchannel::new().unwrap();
        channels.add(8, ours, &poll).unwrap();
        drop(theirs);
        let left = channels.order(8, Order::Accept, &poll);
        assert!(matches!(left, Err(Event::ChannelClosed { pid: 8 })));
    }
}
