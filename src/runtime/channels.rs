//! The channels of ordered pools' children, by pid.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use super::Ready;
use super::faults::Faults;
use crate::log::reason;
use crate::policy::{Event, Pid};
use crate::proto::pool::{Message, Order, Report};
use crate::sys::backchannel::{Backchannel, Written};
use crate::sys::poll::{Interest, Poll};

#[derive(Debug)]
struct Channel {
    backchannel: Backchannel,
    /// Whether the poller waits for room to write.
    blocked: bool,
}

/// All channels. Never iterated, so that their order cannot matter.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_pid: HashMap<Pid, Channel>,
    messages: Vec<Message>,
    faults: Faults,
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
            blocked: false,
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
    /// Why it cannot be told, in words.
    pub(super) fn order(&mut self, pid: Pid, order: Order, poll: &Poll) -> Result<(), String> {
        let channel = self.by_pid.get_mut(&pid).ok_or("it has no channel")?;
        if self.faults.child(order) {
            return Err("a fault for a test".into());
        }
        let message = order.encode();
        let written = match self.faults.write() {
            true => channel.backchannel.keep(message).map(|()| Written::Part),
            false => channel.backchannel.send(message),
        };
        let written = written.and_then(|written| channel.wait_for(written, pid, poll));
        written.map_err(|error| reason(&error))
    }

    /// What there is to do for a channel that the poller found ready, as events.
    pub(super) fn ready(&mut self, pid: Pid, poll: &Poll, events: &mut Vec<Event>) {
        let Some(channel) = self.by_pid.get_mut(&pid) else {
            return;
        };
        if channel.blocked {
            let written = channel.backchannel.flush();
            // What cannot be written need not be: the end is about to be read.
            let _ = written.and_then(|written| channel.wait_for(written, pid, poll));
        }
        let more = channel.backchannel.read(&mut self.messages);
        events.extend(self.messages.drain(..).map(|message| event(pid, message)));
        if !matches!(more, Ok(true)) {
            events.push(Event::HungUp { pid });
        }
    }
}

impl Channel {
    /// Has the poller wait for room to write, or no longer.
    fn wait_for(&mut self, written: Written, pid: Pid, poll: &Poll) -> io::Result<()> {
        let blocked = written == Written::Part;
        if std::mem::replace(&mut self.blocked, blocked) == blocked {
            return Ok(());
        }
        let interest = match blocked {
            true => Interest::Both,
            false => Interest::Readable,
        };
        poll.modify(
            self.backchannel.as_fd(),
            Ready::Channel(pid).key(),
            interest,
        )
    }
}

fn event(pid: Pid, message: Message) -> Event {
    match Report::decode(message) {
        Some(report) => Event::Said { pid, report },
        None => Event::Babbled {
            pid,
            letter: message[0],
        },
    }
}
