//! Children that stay too long: with one client, after they were told to leave, or after they were
//! told to end.
//!
//! Each child has one deadline at most; what it is for follows from what the child does. Postfix
//! has none of the first two, and neither has a service that does not ask for them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ordered::{START_TIME, State};
use super::record::Rogue;
use super::timers::Timer;
use super::{Action, Child, Pid, Record, Service, ServiceId, Signal, Table, Time};
use crate::seldom::usual;

/// Children with a [`Child::due`], the first one first.
pub(super) type Dues = BTreeSet<(Time, Pid)>;

usual!(Dues);

/// Whether a child was told to end because it stayed too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    #[default]
    No,
    /// It may clean up.
    Asked(Time),
    /// It may not.
    Killed,
}

impl Service {
    /// How long a child may take to end.
    pub(super) fn grace(&self, kill_time: Duration) -> Duration {
        self.config.care.stop_timeout.unwrap_or(kill_time)
    }

    /// The children with a deadline that comes first.
    pub(super) fn next_due(&self) -> Option<Time> {
        Some(self.due.first()?.0)
    }
}

impl Child {
    /// When it has had its client for long enough, or its time to leave.
    fn stays_until(&self, service: &Service) -> Option<Time> {
        let care = service.config.care.own()?;
        let request = care.request_timeout.zip(self.busy_since);
        let leave = care.stop_timeout.zip(self.dismissed);
        let ends = [request, leave].into_iter().flatten();
        ends.map(|(time, since)| since + time).min()
    }

    fn due(&self, service: &Service, kill_time: Duration) -> Option<Time> {
        match self.told {
            Told::No => self.stays_until(service),
            // Who is done after all has done no harm.
            Told::Asked(_) if self.busy_since.is_none() && self.dismissed.is_none() => None,
            Told::Asked(at) => Some(at + service.grace(kill_time)),
            Told::Killed => None,
        }
    }
}

impl Table {
    /// The one place where a child's deadline and its service's list of them change, together.
    /// The children of a removed service have one in common instead.
    pub(super) fn set_due(&mut self, pid: Pid, at: Option<Time>) {
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        let id = child.service;
        let Some(service) = self.services[id.index()].as_mut() else {
            return;
        };
        let at = at.filter(|_| !service.removed());
        let old = std::mem::replace(&mut child.due, at);
        if old == at {
            return;
        }
        let before = service.next_due();
        if let Some(old) = old {
            service.due.remove(&(old, pid));
        }
        service.due.extend(at.map(|at| (at, pid)));
        let first = service.next_due();
        if let Some(at) = first.filter(|_| first != before) {
            self.timers.add(at, Timer::Due(id));
        }
    }

    /// Sets a child's deadline anew, after what it is for may have changed. One of an ordered pool
    /// has others while it has no client.
    pub(super) fn reckon(&mut self, pid: Pid) {
        let Some(child) = self.children.get(&pid) else {
            return;
        };
        let member = child.member.as_ref();
        if member.is_some_and(|member| member.state != State::Busy) {
            return;
        }
        let service = self.service(child.service);
        let at = service.and_then(|service| child.due(service, self.kill_time));
        // Most children never have one.
        if child.due != at {
            self.set_due(pid, at);
        }
    }

    /// Those of all children.
    pub(super) fn reckon_all(&mut self, id: ServiceId) {
        let count = self.service(id).map_or(0, |s| s.children.len());
        for at in 0..count {
            let pid = self.service(id).map(|s| s.children[at]);
            pid.into_iter().for_each(|pid| self.reckon(pid));
        }
    }

    /// Children have had their time to get ready, to answer, to serve, to leave, or to end.
    pub(super) fn children_due(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        while let Some(service) = self.service(id) {
            let first = service.due.first().copied();
            let Some((_, pid)) = first.filter(|(at, _)| *at <= now) else {
                return;
            };
            let reply_timeout = service.config.pool.reply_timeout;
            match self.state_of(pid) {
                Some(State::Killed | State::Gone) => self.kill_overdue(pid, out),
                Some(State::Starting) => {
                    let after = START_TIME;
                    self.rogue(now, pid, Rogue::Unready { after }, out);
                }
                Some(State::Ordered) => {
                    let after = reply_timeout;
                    self.rogue(now, pid, Rogue::Silent { after }, out);
                }
                Some(State::Busy | State::Idle) | None => self.overstayed(now, pid, out),
            }
        }
    }

    /// Ends a child that has had its client for too long or was told to leave long ago; and then,
    /// if that does not help, kills it.
    fn overstayed(&mut self, now: Time, pid: Pid, out: &mut Vec<Action>) {
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        let Some(service) = self.services[child.service.index()].as_ref() else {
            return;
        };
        if child.told != Told::No {
            return self.kill_overdue(pid, out);
        }
        let service = service.config.clone();
        let since = |at: Option<Time>| now.saturating_sub(at.unwrap_or(now));
        let busy = since(child.busy_since);
        let too_long = |limit| child.busy_since.is_some() && busy >= limit;
        out.push(Action::Log(
            match service.care.request_timeout.is_some_and(too_long) {
                true => Record::TooLong {
                    service,
                    pid,
                    age: busy,
                },
                false => Record::Lingering {
                    service,
                    pid,
                    age: since(child.dismissed),
                },
            },
        ));
        child.told = Told::Asked(now);
        if child.member.is_some() {
            return self.end_member(now, pid, out);
        }
        let signal = Signal::Term;
        out.push(Action::Signal { pid, signal });
        self.reckon(pid);
    }

    fn kill_overdue(&mut self, pid: Pid, out: &mut Vec<Action>) {
        self.set_due(pid, None);
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        child.told = Told::Killed;
        if let Some(service) = self.services[child.service.index()].as_ref() {
            let service = service.config.clone();
            let signal = Signal::Kill;
            out.push(Action::Log(Record::Overdue { service, pid }));
            out.push(Action::Signal { pid, signal });
        }
    }

    /// All children of services that want their end seen to, and how long each may take.
    pub fn awaited(&self) -> impl Iterator<Item = (Pid, Duration)> {
        self.services().flat_map(|(_, service)| {
            let timeout = service.config.care.stop_timeout;
            let children = service.children.iter();
            children.filter_map(move |pid| Some((*pid, timeout?)))
        })
    }
}
