//! What is to be done for one child after the other: to signal it, to close what it had. Where a
//! reload removes a service or gives it others there may be thousands, while other services' clients
//! wait. So a turn does some of it, and the next turns do the rest, in order.
//!
//! Until all is done no child is reaped and no configuration read: a process ID is still that of
//! the child that is meant, and a place that of the service.

use std::collections::VecDeque;

use super::Runtime;
use crate::policy::{self, Pid, ServiceId};
use crate::sys::signal::{self, Signal};

/// Done in one turn: a millisecond or two.
const CHORES_MAX: usize = 64;

/// One of them.
#[derive(Debug)]
pub(super) enum Chore {
    Signal(Pid, policy::Signal),
    /// Close the status channel of a child, which leaves then.
    CloseChannel(Pid),
    /// Close the listeners of a service that is no more.
    CloseListeners(ServiceId),
}

/// All that is to be done.
#[derive(Debug, Default)]
pub(super) struct Chores(VecDeque<Chore>);

impl Chores {
    pub(super) fn add(&mut self, chore: Chore) {
        self.0.push_back(chore);
    }

    pub(super) fn are_done(&self) -> bool {
        self.0.is_empty()
    }
}

impl Runtime {
    /// Does as much as can be done in a turn.
    pub(super) fn do_chores(&mut self) {
        for _ in 0..CHORES_MAX {
            match self.chores.0.pop_front() {
                Some(Chore::Signal(pid, signal)) => self.signal(pid, signal),
                Some(Chore::CloseChannel(pid)) => self.reports.close_of(pid),
                Some(Chore::CloseListeners(id)) => {
                    self.ports.close(id, &self.poll);
                    self.reports.forget(id, &self.poll);
                }
                None => break,
            }
        }
        if self.chores.are_done() {
            // A turn has few, a removal many.
            self.chores.0.shrink_to(CHORES_MAX);
        }
    }

    /// Does all of it, when nobody is served any more.
    pub(super) fn finish_chores(&mut self) {
        while !self.chores.are_done() {
            self.do_chores();
        }
    }

    /// A child that was reaped in this turn, before the policy heard of it, is no child any more.
    fn signal(&self, pid: Pid, signal: policy::Signal) {
        if self.table.service_of(pid).is_none() {
            return;
        }
        let signal = match signal {
            policy::Signal::Int => Signal::SIGINT,
            policy::Signal::Term => Signal::SIGTERM,
            policy::Signal::Kill => Signal::SIGKILL,
        };
        signal::send(pid, signal);
    }
}
