//! Reads and writes the channels of ordered pools' children.

use std::io;
use std::mem;

use super::children::ChildChannel;
use super::token::Token;
use super::{Runtime, errno};
use crate::policy::{Errno, Event, OrderFailure, Pid, Time};
use crate::protocol::pool::{Message, Order, Report};
use crate::sys::backchannel::Backchannel;
use crate::sys::channel::Found;
use crate::sys::poll::{Interest, Poll};

impl Runtime {
    /// Reads what children of ordered pools say that are ready.
    pub(super) fn read_pool_messages(&mut self, now: Time) {
        for pid in mem::take(&mut self.turn.pool_channels) {
            self.read_pool_channel(now, pid);
        }
    }

    /// Reads some of what a child says, and writes what could not be written before. The next turn
    /// goes on with the rest.
    pub(super) fn read_pool_channel(&mut self, now: Time, pid: Pid) {
        let child = self.children.get_mut(pid);
        let Some(ChildChannel::Pool {
            backchannel,
            interest,
        }) = child.and_then(|child| child.channel.as_mut())
        else {
            return;
        };
        if *interest == Interest::ReadableOrWritable {
            // An order that cannot be written need not be: the end is about to be read.
            let _ = backchannel.flush();
            let _ = watch_for_room(backchannel, interest, pid, &self.poll);
        }
        let mut messages = Vec::new();
        let found = backchannel.read(&mut messages);
        for message in messages {
            self.step(now, event(pid, message));
        }
        self.close_if_ended(now, pid, found);
    }

    /// Gives a child an order.
    pub(super) fn order(&mut self, now: Time, pid: Pid, order: Order) {
        match self.send_order(pid, order) {
            Ok(()) => {}
            // A child that leaves of itself closes its end before its end is known.
            Err(OrderFailure::System(Errno(libc::EPIPE | libc::ECONNRESET))) => {
                // What it has said before comes first.
                self.read_pool_channel(now, pid);
                if self.children.get(pid).is_some_and(|c| c.channel.is_some()) {
                    self.close_if_ended(now, pid, Found::End);
                }
            }
            Err(failure) => self.step(now, Event::OrderFailed { pid, failure }),
        }
    }

    /// Writes the orders that a former program could not write.
    pub(super) fn write_orders(&mut self, pid: Pid) {
        let child = self.children.get_mut(pid);
        if let Some(ChildChannel::Pool {
            backchannel,
            interest,
        }) = child.and_then(|child| child.channel.as_mut())
        {
            // A child that has gone is about to be reported.
            let _ = backchannel.flush();
            let _ = watch_for_room(backchannel, interest, pid, &self.poll);
        }
    }

    fn send_order(&mut self, pid: Pid, order: Order) -> Result<(), OrderFailure> {
        let Some(child) = self.children.get_mut(pid) else {
            // It has ended, and the policy knows.
            return Ok(());
        };
        let Some(ChildChannel::Pool {
            backchannel,
            interest,
        }) = &mut child.channel
        else {
            return Err(OrderFailure::NoChannel);
        };
        if self.faults.child(order) {
            return Err(OrderFailure::System(Errno(libc::ENOBUFS)));
        }
        if !backchannel.keep(order.encode()) {
            return Err(OrderFailure::NotRead);
        }
        if !self.faults.write() {
            let written = backchannel.flush();
            written.map_err(|errno| OrderFailure::System(Errno(errno as i32)))?;
        }
        let watched = watch_for_room(backchannel, interest, pid, &self.poll);
        watched.map_err(|error| OrderFailure::System(errno(&error)))
    }
}

/// Has the poller wait for room to write while something waits to be written.
fn watch_for_room(
    backchannel: &Backchannel,
    interest: &mut Interest,
    pid: Pid,
    poll: &Poll,
) -> io::Result<()> {
    let wanted = backchannel.interest();
    if *interest != wanted {
        poll.modify(backchannel, Token::PoolChannel(pid).key(), wanted)?;
        *interest = wanted;
    }
    Ok(())
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
