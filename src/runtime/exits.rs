//! The ends of children: their pidfds become readable. Other processes are reaped, too, that became
//! the master's: process 1 and subreapers inherit some, and a child can make some with
//! `CLONE_PARENT`.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::os::fd::AsFd;
use std::time::Duration;

use super::children::{ChildChannel, Children};
use super::token::Token;
use super::{Runtime, TURN_BUDGET};
use crate::policy::{Event, ExitStatus, Pid, ServiceId, Time};
use crate::sys::child::{self, End};
use crate::sys::poll::{self, Interest, Poll};

/// Ends that are processed in a turn, which takes some milliseconds: clients wait meanwhile, and
/// thousands of children may end at a time.
const EXITS_MAX: usize = 64;
/// When a child is looked at again that the poller does not report.
const RETRY: Duration = Duration::from_secs(1);

/// Children of a service that wait for their turn and for which memory is kept.
const ENDED_KEPT: usize = 16;

/// Children that have ended, or may have.
#[derive(Debug, Default)]
pub(super) struct Exits {
    /// In the order in which they were reported, some of them twice.
    ended: HashMap<ServiceId, VecDeque<Pid>>,
    /// The services of which some have ended, each once. They take turns: a crowd of one service
    /// must not stand before the only child of another.
    services: VecDeque<ServiceId>,
    /// Children that the poller has refused, or that have ended and cannot be reaped yet, and when
    /// they are looked at again.
    unwatched: Vec<Pid>,
    retry_at: Option<Time>,
    /// A process that is no child may have ended.
    pub(super) orphans: bool,
}

impl Exits {
    /// Has the poller report the end of a child.
    pub(super) fn watch(&mut self, pid: Pid, children: &Children, poll: &Poll) {
        let Some(child) = children.get(pid) else {
            return;
        };
        let added = poll.add(
            &child.process,
            Token::Exit(pid).key(),
            Interest::ReadableOnce,
        );
        if added.is_err() {
            // In the next turn.
            self.look_again(Time::ZERO, pid);
        }
    }

    fn look_again(&mut self, at: Time, pid: Pid) {
        self.unwatched.push(pid);
        self.retry_at = Some(self.retry_at.map_or(at, |before| before.min(at)));
    }

    fn ended(&mut self, id: ServiceId, pid: Pid) {
        let ended = self.ended.entry(id).or_default();
        if ended.is_empty() {
            self.services.push_back(id);
        }
        ended.push_back(pid);
    }

    /// The next child to be looked at.
    fn next(&mut self) -> Option<Pid> {
        let id = self.services.pop_front()?;
        let ended = self.ended.get_mut(&id)?;
        let pid = ended.pop_front();
        if ended.is_empty() {
            ended.shrink_to(ENDED_KEPT);
        } else {
            self.services.push_back(id);
        }
        pid
    }

    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        if self.orphans || !self.services.is_empty() {
            return Some(now);
        }
        self.retry_at
    }
}

impl Runtime {
    /// A child has ended, or is about to.
    pub(super) fn child_ended(&mut self, pid: Pid) {
        if let Some(child) = self.children.get(pid) {
            self.exits.ended(child.service, pid);
        }
    }

    /// Processes the ends of some of the children that have ended. What each has sent and printed
    /// comes first.
    pub(super) fn process_exits(&mut self, now: Time) {
        if self.exits.retry_at.take_if(|at| *at <= now).is_some() {
            for pid in mem::take(&mut self.exits.unwatched) {
                self.child_ended(pid);
            }
        }
        let began = self.now();
        for _ in 0..EXITS_MAX {
            // What one turn asks for must be done in the next: others wait behind it.
            if self.queue.len() >= TURN_BUDGET as usize || self.has_taken_long(began) {
                break;
            }
            let Some(pid) = self.exits.next() else {
                break;
            };
            self.process_exit(now, pid);
        }
        for _ in 0..EXITS_MAX {
            if !self.exits.orphans {
                break;
            }
            self.exits.orphans = self.reap_orphan(now);
        }
    }

    fn process_exit(&mut self, now: Time, pid: Pid) {
        let Some(child) = self.children.get(pid) else {
            return;
        };
        let id = child.service;
        let fd = child.process.as_fd();
        let has_ended = || poll::wait_until_readable(fd, Duration::ZERO);
        let reap = || child.process.reap();
        let Some(end) = reap().or_else(|| has_ended().then(reap).flatten()) else {
            let (key, interest) = (Token::Exit(pid).key(), Interest::ReadableOnce);
            let watch = || self.poll.modify(fd, key, interest);
            let watch = || watch().or_else(|_| self.poll.add(fd, key, interest));
            // A process that traces it can keep its end to itself.
            if has_ended() || watch().is_err() {
                self.exits.look_again(now + RETRY, pid);
            }
            return;
        };
        let status = match end {
            End::Code(code) => ExitStatus::Code(code),
            End::Signal(signal) => ExitStatus::Signal(signal),
        };
        self.read_last_words(now, pid);
        // SIGTERM is how the master ends a template, which the policy does not know.
        let failed = self
            .table
            .is_failure(pid, status)
            .unwrap_or_else(|| ![End::Code(0), End::Signal(libc::SIGTERM)].contains(&end));
        self.finish_output(now, pid, failed);
        self.log_exec_error(id, pid);
        self.children.remove(pid, &mut self.services, &self.poll);
        // From now on another process can have the pid.
        self.queue.retain(|action| action.pid() != Some(pid));
        if self.template_ended(now, id, pid, end) {
            return;
        }
        let progress = self.progress(now, id, pid, status);
        self.step(
            now,
            Event::Exited {
                pid,
                status,
                progress,
            },
        );
        self.end_group_if_unused(now, id);
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
        let Some(pid) = child::look_for_ended() else {
            return false;
        };
        if self.children.get(pid).is_some() {
            self.process_exit(now, pid);
        } else if self.templates.are_forking(pid) {
            // Its template has not announced it yet. After that, all others are looked for.
            return false;
        } else {
            child::reap_by_pid(pid);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_the_poller_refuses_does_not_wait_for_one_that_is_traced() {
        let mut exits = Exits::default();
        exits.look_again(RETRY, 1);
        exits.look_again(Time::ZERO, 2);
        exits.look_again(RETRY * 2, 3);
        assert_eq!(exits.next_deadline(RETRY), Some(Time::ZERO));
    }

    #[test]
    fn the_only_child_of_a_service_does_not_wait_for_a_crowd_of_another() {
        let [crowd, other, alone] = [0, 1, 2].map(ServiceId::from_index);
        let mut exits = Exits::default();
        for pid in 1..=100 {
            exits.ended(crowd, pid);
        }
        exits.ended(other, 201);
        exits.ended(other, 202);
        exits.ended(alone, 301);
        let first: Vec<_> = (0..6).map_while(|_| exits.next()).collect();
        assert_eq!(first, [1, 201, 301, 2, 202, 3]);
        let rest: Vec<_> = std::iter::from_fn(|| exits.next()).collect();
        assert_eq!(rest, (4..=100).collect::<Vec<_>>());
    }
}
