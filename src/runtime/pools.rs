//! Reads and writes the channels of ordered pools' children.

use std::io;
use std::mem;
use std::os::fd::AsFd;

use nix::errno::Errno as SystemErrno;

use super::Runtime;
use super::children::ChildChannel;
use super::token::Token;
use crate::policy::{Errno, Event, OrderFailure, Pid, Time};
use crate::protocol::pool::{Message, Order, Report};
use crate::sys::backchannel::{Backchannel, SendError, Written};
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
            let written = backchannel.flush().unwrap_or(Written::All);
            let _ = wait_for(written, backchannel, interest, pid, &self.poll);
        }
        let mut messages = Vec::new();
        let found = backchannel.read(&mut messages);
        for message in messages {
            self.step(now, event(pid, message));
        }
        match found {
            Found::Bytes(_) | Found::Nothing => {}
            Found::End => {
                self.close_channel(pid);
                self.step(now, Event::ChannelClosed { pid });
            }
            Found::Descriptors => {
                self.close_channel(pid);
                self.step(now, Event::SentDescriptors { pid });
            }
        }
    }

    /// Gives a child an order.
    pub(super) fn order(&mut self, now: Time, pid: Pid, order: Order) {
        let Some(child) = self.children.get_mut(pid) else {
            // It has ended, and the policy knows.
            return;
        };
        let Some(ChildChannel::Pool {
            backchannel,
            interest,
        }) = &mut child.channel
        else {
            let failure = OrderFailure::NoChannel;
            return self.step(now, Event::OrderFailed { pid, failure });
        };
        #[cfg(debug_assertions)]
        if self.faults.child(order) {
            let failure = OrderFailure::System(Errno(SystemErrno::ENOBUFS as i32));
            return self.step(now, Event::OrderFailed { pid, failure });
        }
        #[cfg(debug_assertions)]
        let sent = if self.faults.write() {
            backchannel.keep(order.encode()).map(|()| Written::Part)
        } else {
            backchannel.send(order.encode())
        };
        #[cfg(not(debug_assertions))]
        let sent = backchannel.send(order.encode());
        let failure = match sent {
            Ok(written) => {
                let waits = wait_for(written, backchannel, interest, pid, &self.poll);
                waits
                    .err()
                    .map(|error| OrderFailure::System(super::errno(&error)))
            }
            // A child that leaves of itself closes its end before its end is known.
            Err(SendError::System(SystemErrno::EPIPE | SystemErrno::ECONNRESET)) => {
                // What it has said before comes first.
                self.read_pool_channel(now, pid);
                if self.children.get(pid).is_none_or(|c| c.channel.is_none()) {
                    return;
                }
                self.close_channel(pid);
                return self.step(now, Event::ChannelClosed { pid });
            }
            Err(SendError::System(errno)) => Some(OrderFailure::System(Errno(errno as i32))),
            Err(SendError::Full) => Some(OrderFailure::NotRead),
        };
        if let Some(failure) = failure {
            self.step(now, Event::OrderFailed { pid, failure });
        }
    }
}

/// Has the poller wait for room to write, or no longer.
fn wait_for(
    written: Written,
    backchannel: &Backchannel,
    interest: &mut Interest,
    pid: Pid,
    poll: &Poll,
) -> io::Result<()> {
    let wanted = match written {
        Written::Part => Interest::ReadableOrWritable,
        Written::All => Interest::Readable,
    };
    if *interest != wanted {
        poll.modify(backchannel.as_fd(), Token::PoolChannel(pid).key(), wanted)?;
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
