//! Children that stay too long: with one client, after they were told to leave, or after they were
//! told to end.
//!
//! Each child has one deadline at most; what it is for follows from what the child does. Postfix
//! has none of the first two, and neither has a service that does not ask for them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

use super::child::{Child, Leaving, State};
use super::pool::START_TIME;
use super::service::Context;
use super::{Kind, Pid, Rogue, Service, Signal, Time};
use crate::config;

/// Children with a deadline, the first one first.
pub(super) type Deadlines = BTreeSet<(Time, Pid)>;

/// Whether a child got a signal that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Termination {
    No,
    /// It got SIGTERM, in an ordered pool SIGINT, at this time: it may clean up.
    Asked(Time),
    /// It got SIGKILL.
    Killed,
}

/// How long a child may take to end.
pub(super) fn grace(config: &config::Service, kill_time: Duration) -> Duration {
    config.limits().stop_timeout.unwrap_or(kill_time)
}

impl Child {
    /// When it is to have become ready, answered, served its client, left, or ended.
    pub(super) fn next_deadline(
        &self,
        config: &config::Service,
        removed: bool,
        kill_time: Duration,
    ) -> Option<Time> {
        let limits = config.limits();
        match (self.pool_state(), self.termination) {
            // The children of a removed service have one in common instead.
            _ if removed => None,
            (_, Termination::Killed) | (Some(State::Idle), _) => None,
            (Some(State::Starting), _) => Some(self.started + START_TIME),
            (Some(State::Ordered), _) => Some(self.since? + config.pool().reply_timeout),
            (_, Termination::No) => {
                let request = limits.request_timeout.zip(self.since);
                let leave = limits.stop_timeout.zip(self.leave_since);
                let ends = [request, leave].into_iter().flatten();
                ends.map(|(time, since)| since + time).min()
            }
            // A child that is done after all has done no harm.
            (_, Termination::Asked(_)) if self.since.is_none() && self.leave_since.is_none() => {
                None
            }
            (_, Termination::Asked(at)) => Some(at + grace(config, kill_time)),
        }
    }
}

impl Service {
    /// Children have had their time to get ready, to answer, to serve, to leave, or to end.
    pub(super) fn children_overdue(&mut self, cx: &mut Context) {
        while let Some(&(at, pid)) = self.rare().deadlines.first() {
            if at > cx.now {
                return;
            }
            let timeout = self.config.pool().reply_timeout;
            match self.pool_state(pid) {
                Some(State::Starting) => self.end_rogue(cx, pid, Rogue::Unready(START_TIME)),
                Some(State::Ordered) => self.end_rogue(cx, pid, Rogue::Silent(timeout)),
                _ => self.overstayed(cx, pid),
            }
        }
    }

    /// Ends a child that has had its client for too long or was told to leave long ago; and then,
    /// if that does not help, kills it.
    fn overstayed(&mut self, cx: &mut Context, pid: Pid) {
        let Some(child) = self.children.get(&pid) else {
            return;
        };
        if child.termination != Termination::No {
            self.log_child(cx, pid, Kind::Overdue);
            cx.signal(pid, Signal::Kill);
            return self.change(cx, pid, |child, _| child.termination = Termination::Killed);
        }
        let age = |since: Option<Time>| since.map(|since| cx.now.saturating_sub(since));
        let limit = self.config.limits().request_timeout;
        let busy = age(child.since).filter(|&age| limit.is_some_and(|limit| age >= limit));
        let kind = match busy {
            Some(age) => Kind::TooLong(age),
            None => Kind::Lingering(age(child.leave_since).unwrap_or_default()),
        };
        self.log_child(cx, pid, kind);
        if self.pool.is_some() {
            self.end_member(cx, pid, Leaving::Told);
        } else {
            cx.signal(pid, Signal::Term);
            self.change(cx, pid, |child, now| {
                child.termination = Termination::Asked(now)
            });
        }
    }
}
