//! The ends of children: their pidfds become readable. Other processes are reaped, too, that became
//! the master's: process 1 and subreapers inherit some, and a child can make some with
//! `CLONE_PARENT`.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use super::Runtime;
use super::children::{ChildChannel, Children};
use super::token::Token;
use crate::policy::{Event, ExitStatus, Pid, Time};
use crate::sys::child::{self, End};
use crate::sys::poll::{self, Interest, Poll};

/// Ends that are processed in a turn, which takes some milliseconds: clients wait meanwhile, and
/// thousands of children may end at a time.
const EXITS_MAX: usize = 64;
/// When a child is looked at again that the poller does not report.
const RETRY: Duration = Duration::from_secs(1);

/// Children that have ended, or may have.
#[derive(Debug, Default)]
pub(super) struct Exits {
    /// In the order in which they were reported, some of them twice.
    ended: VecDeque<Pid>,
    /// Children that the poller has refused, or that have ended and cannot be reaped yet, and when
    /// they are looked at again.
    unwatched: Vec<Pid>,
    retry_at: Option<Time>,
    /// A process that is no child may have ended.
    orphans: bool,
}

impl Exits {
    /// Has the poller report the end of a child.
    pub(super) fn watch(&mut self, pid: Pid, children: &Children, poll: &Poll) {
        let Some(child) = children.get(pid) else {
            return;
        };
        let key = Token::Exit(pid).key();
        let added = poll.add(child.process.as_fd(), key, Interest::ReadableOnce);
        if added.is_err() {
            // In the next turn.
            self.look_again(Time::ZERO, pid);
        }
    }

    fn look_again(&mut self, at: Time, pid: Pid) {
        self.unwatched.push(pid);
        self.retry_at.get_or_insert(at);
    }

    /// The child has ended, or is about to: its channel has.
    pub(super) fn ended(&mut self, pid: Pid) {
        self.ended.push_back(pid);
    }

    pub(super) fn orphan_ended(&mut self) {
        self.orphans = true;
    }

    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        if self.orphans || !self.ended.is_empty() {
            return Some(now);
        }
        self.retry_at
    }

    fn retry(&mut self, now: Time) {
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            self.ended.extend(self.unwatched.drain(..));
        }
    }
}

impl Runtime {
    /// Processes the ends of some of the children that have ended. What each has sent and printed
    /// comes first.
    pub(super) fn process_exits(&mut self, now: Time) {
        self.exits.retry(now);
        for _ in 0..EXITS_MAX {
            let Some(pid) = self.exits.ended.pop_front() else {
                break;
            };
            self.process_exit(now, pid);
        }
        for _ in 0..EXITS_MAX {
            self.exits.orphans &= self.reap_orphan(now);
            if !self.exits.orphans {
                break;
            }
        }
    }

    fn process_exit(&mut self, now: Time, pid: Pid) {
        let Some(child) = self.children.get(pid) else {
            return;
        };
        let id = child.service;
        let fd = child.process.as_fd();
        let mut is_traced = false;
        let reaped = child.process.reap().or_else(|| {
            // A process that traces it can keep its end to itself. Or it has ended just now.
            is_traced = poll::wait_until_readable(fd, Duration::ZERO);
            is_traced.then(|| child.process.reap()).flatten()
        });
        let Some(end) = reaped else {
            let (key, interest) = (Token::Exit(pid).key(), Interest::ReadableOnce);
            let watch = || self.poll.modify(fd, key, interest);
            let watch = || watch().or_else(|_| self.poll.add(fd, key, interest));
            if is_traced || watch().is_err() {
                self.exits.look_again(now + RETRY, pid);
            }
            return;
        };
        self.read_last_words(now, pid);
        self.finish_output(now, pid);
        self.log_exec_error(id, pid);
        self.children.remove(pid, &mut self.services, &self.poll);
        // From now on another process can have the pid.
        self.queue.retain(|action| action.pid() != Some(pid));
        let status = match end {
            End::Code(code) => ExitStatus::Code(code),
            End::Signal(signal) => ExitStatus::Signal(signal),
        };
        self.step(now, Event::Exited { pid, status });
    }

    /// Reads what a child has sent whose channel is about to be closed.
    pub(super) fn read_last_words(&mut self, now: Time, pid: Pid) {
        match self.children.get(pid).and_then(|c| c.channel.as_ref()) {
            Some(ChildChannel::Status(_)) => self.read_last_reports(now, pid),
            Some(ChildChannel::Pool { .. }) => self.read_pool_channel(now, pid),
            None => {}
        }
    }

    /// Reaps a process that is no child, or processes the end of a child. Whether one had ended.
    fn reap_orphan(&mut self, now: Time) -> bool {
        if !self.exits.orphans {
            return false;
        }
        let Some(pid) = child::look_for_ended() else {
            return false;
        };
        if self.children.get(pid).is_some() {
            self.process_exit(now, pid);
        } else {
            child::reap_by_pid(pid);
        }
        true
    }
}
