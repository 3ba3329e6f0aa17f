//! Children that stay too long: with one client, after they were told to leave, or after they were
//! told to end.
//!
//! Each child has one deadline at most; what it is for follows from what the child does. Postfix
//! has none of the first two, and neither has a service that does not ask for them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::child::Child;
use super::pool::{START_TIME, State};
use super::service::Context;
use super::timers::Timer;
use super::{Kind, Pid, Rogue, Service, Signal, Time};

/// Children with a deadline, the first one first.
pub(super) type Deadlines = BTreeSet<(Time, Pid)>;

/// Whether a child was told to end because it stayed too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Termination {
    No,
    /// It may clean up.
    Asked(Time),
    /// It may not.
    Killed,
}

impl Child {
    /// When it has had its client for long enough, or its time to leave.
    fn stays_until(&self, service: &Service) -> Option<Time> {
        let limits = service.config.limits();
        let request = limits.request_timeout.zip(self.busy_since);
        let leave = limits.stop_timeout.zip(self.leave_since);
        let ends = [request, leave].into_iter().flatten();
        ends.map(|(time, since)| since + time).min()
    }

    fn next_deadline(&self, service: &Service, kill_time: Duration) -> Option<Time> {
        match self.termination {
            Termination::No => self.stays_until(service),
            // A child that is done after all has done no harm.
            Termination::Asked(_) if self.busy_since.is_none() && self.leave_since.is_none() => {
                None
            }
            Termination::Asked(at) => Some(at + service.grace(kill_time)),
            Termination::Killed => None,
        }
    }
}

impl Service {
    /// How long a child may take to end.
    pub(super) fn grace(&self, kill_time: Duration) -> Duration {
        self.config.limits().stop_timeout.unwrap_or(kill_time)
    }

    /// The first deadline of a child.
    pub(super) fn next_child_deadline(&self) -> Option<Time> {
        Some(self.rare().deadlines.first()?.0)
    }

    /// Changes a child's deadline, and with it its service's list. The children of a removed service
    /// have one in common instead.
    pub(super) fn set_deadline(&mut self, cx: &mut Context, pid: Pid, at: Option<Time>) {
        let at = at.filter(|_| !self.removed);
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        let old = std::mem::replace(&mut child.deadline, at);
        self.move_deadline(cx, pid, old, at);
    }

    /// Changes the list of deadlines, for a child that has `new` in the place of `old`.
    pub(super) fn move_deadline(
        &mut self,
        cx: &mut Context,
        pid: Pid,
        old: Option<Time>,
        new: Option<Time>,
    ) {
        if old == new {
            return;
        }
        let before = self.next_child_deadline();
        let deadlines = &mut self.rare_mut().deadlines;
        if let Some(old) = old {
            deadlines.remove(&(old, pid));
        }
        deadlines.extend(new.map(|at| (at, pid)));
        let first = self.next_child_deadline();
        if let Some(at) = first.filter(|_| first != before) {
            cx.set_timer(at, Timer::Child);
        }
    }

    /// Sets a child's deadline anew, after what it is for may have changed. One of an ordered pool
    /// has others while it has no client.
    pub(super) fn update_deadline(&mut self, cx: &mut Context, pid: Pid) {
        let Some(child) = self.children.get(&pid) else {
            return;
        };
        if child.pool_state().is_none_or(|state| state == State::Busy) {
            let at = child.next_deadline(self, cx.shared.kill_time);
            // Most children never have one.
            if child.deadline != at {
                self.set_deadline(cx, pid, at);
            }
        }
    }

    /// Those of all children.
    pub(super) fn update_deadlines(&mut self, cx: &mut Context) {
        let limits = self.config.limits();
        let limited = limits.request_timeout.is_some() || limits.stop_timeout.is_some();
        if limited || !self.rare().deadlines.is_empty() {
            for pid in self.children.keys().copied().collect::<Vec<_>>() {
                self.update_deadline(cx, pid);
            }
        }
    }

    /// Children have had their time to get ready, to answer, to serve, to leave, or to end.
    pub(super) fn children_overdue(&mut self, cx: &mut Context) {
        while let Some(&(at, pid)) = self.rare().deadlines.first() {
            if at > cx.now {
                return;
            }
            let timeout = self.config.pool().reply_timeout;
            match self.pool_state(pid) {
                Some(State::Killed | State::Gone) => self.kill_overdue(cx, pid),
                Some(State::Starting) => self.end_rogue(cx, pid, Rogue::Unready(START_TIME)),
                Some(State::Ordered) => self.end_rogue(cx, pid, Rogue::Silent(timeout)),
                Some(State::Busy | State::Idle) | None => self.overstayed(cx, pid),
            }
        }
    }

    /// Ends a child that has had its client for too long or was told to leave long ago; and then,
    /// if that does not help, kills it.
    fn overstayed(&mut self, cx: &mut Context, pid: Pid) {
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        if child.termination != Termination::No {
            return self.kill_overdue(cx, pid);
        }
        child.termination = Termination::Asked(cx.now);
        let age = |since: Option<Time>| since.map(|since| cx.now.saturating_sub(since));
        let (busy, leaving) = (age(child.busy_since), age(child.leave_since));
        let limit = self.config.limits().request_timeout;
        let too_long = limit.and_then(|limit| busy.filter(|&age| age >= limit));
        let kind = match too_long {
            Some(age) => Kind::TooLong(age),
            None => Kind::Lingering(leaving.unwrap_or_default()),
        };
        self.log_child(cx, pid, kind);
        if self.pool.is_some() {
            self.end_member(cx, pid);
        } else {
            cx.signal(pid, Signal::Term);
            self.update_deadline(cx, pid);
        }
    }

    fn kill_overdue(&mut self, cx: &mut Context, pid: Pid) {
        self.set_deadline(cx, pid, None);
        if let Some(child) = self.children.get_mut(&pid) {
            child.termination = Termination::Killed;
            self.log_child(cx, pid, Kind::Overdue);
            cx.signal(pid, Signal::Kill);
        }
    }
}
