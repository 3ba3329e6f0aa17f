//! What the policy counts for those who look on. Nothing here decides anything.

use super::ordered::{Pool, State};
use super::{Child, ExitStatus, Leaving, Pid, Service, ServiceId, Table, Time};
use crate::protocol::Availability;
use crate::seldom::usual;

/// What one service has seen since it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The most children that were busy at a time, and when that was first so.
    pub peak: u32,
    pub peak_at: Option<Time>,
    /// How often all processes that the limit allows were in use.
    pub limit_reached: u64,
    /// They are.
    at_limit: bool,
    /// Clients that children have reported.
    pub connections: u64,
    /// Children that were started, that ended with status 0, with another, and by a signal.
    pub started: u64,
    pub ended: u64,
    pub failed: u64,
    pub killed: u64,
}

usual!(Stats);

impl Stats {
    pub(super) fn count_end(&mut self, status: ExitStatus) {
        let count = match status {
            ExitStatus::Code(0) => &mut self.ended,
            ExitStatus::Code(_) => &mut self.failed,
            ExitStatus::Signal(_) => &mut self.killed,
        };
        *count += 1;
    }

    /// So many children are busy, of so many that may be (0 is no limit).
    pub(super) fn count_busy(&mut self, now: Time, busy: u32, max: u32) {
        if busy > self.peak {
            self.peak = busy;
            self.peak_at = Some(now);
        }
        let at_limit = max > 0 && busy >= max;
        self.limit_reached += u64::from(at_limit && !self.at_limit);
        self.at_limit = at_limit;
    }
}

/// What a child does, for those who look on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Starting,
    Available,
    Busy,
    /// It was told to leave; perhaps it has a client still.
    Leaving,
}

/// One child, for those who look on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    pub pid: Pid,
    pub generation: u32,
    pub activity: Activity,
    /// Clients that it has reported.
    pub clients: u32,
    pub started: Time,
}

impl Child {
    /// It has reported a client.
    pub(super) fn take_client(&mut self, now: Time) {
        self.busy_since = Some(now);
        self.clients = self.clients.saturating_add(1);
    }

    fn activity(&self) -> Activity {
        let state = self.member.as_ref().map(|member| member.state);
        match (state, self.leaving, self.availability) {
            (Some(State::Starting), ..) => Activity::Starting,
            (Some(State::Killed | State::Gone), ..) => Activity::Leaving,
            (None, Leaving::WhenDone | Leaving::AtOnce, _) => Activity::Leaving,
            (_, _, Availability::Available) => Activity::Available,
            (_, _, Availability::Taken) => Activity::Busy,
        }
    }
}

impl Service {
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Children that have a client, as far as the master was told.
    pub fn busy(&self) -> u32 {
        let others = |pool: &Pool| pool.count(State::Starting) + pool.leaving();
        let others = self.pool.own().map_or(0, others);
        self.total - self.avail - self.departing - others
    }

    /// Children of an ordered pool that are not ready yet.
    pub fn starting(&self) -> u32 {
        self.pool.count(State::Starting)
    }

    /// When stress mode ends.
    pub fn stress_until(&self) -> Option<Time> {
        self.trouble.own()?.stress_until
    }

    /// When the service is woken up next.
    pub fn wakeup_at(&self) -> Option<Time> {
        self.wakeup_at
    }

    /// Whether somebody has told the master to leave the service alone.
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// Counts who is busy at the end of a turn.
    pub(super) fn take_stock(&mut self, now: Time) {
        let busy = self.busy();
        // Most services have never had anybody.
        if busy > 0 || self.stats.changed().is_some() {
            self.stats.count_busy(now, busy, self.config.max);
        }
    }
}

impl Table {
    /// A child has reported a client.
    pub(super) fn count_client(&mut self, id: ServiceId) {
        if let Some(service) = self.service_mut(id) {
            service.stats.connections += 1;
        }
    }

    /// Whether the counts agree with what the children do.
    pub(super) fn check_stock(&self, service: &Service) -> Result<(), String> {
        let count = |wanted: &dyn Fn(&Child) -> bool| {
            let children = service.children.iter().map(|pid| &self.children[pid]);
            children.filter(|child| wanted(child)).count() as u32
        };
        let busy = count(&|c| c.activity() == Activity::Busy || c.leaving == Leaving::WhenDone);
        if busy != service.busy() {
            return Err(format!("{busy} are busy, not {}", service.busy()));
        }
        let stats = &service.stats;
        let living = stats.started - stats.ended - stats.failed - stats.killed;
        match busy <= stats.peak && u64::from(service.total) <= living {
            true => Ok(()),
            false => Err(format!("counted {stats:?} of {}", service.total)),
        }
    }

    /// The children of a service, oldest first.
    pub fn children_of(&self, id: ServiceId) -> Vec<Sight> {
        let pids = self.service(id).map_or(&[][..], |s| &s.children);
        let children = pids.iter().filter_map(|pid| {
            let child = self.children.get(pid)?;
            Some(Sight {
                pid: *pid,
                generation: child.generation,
                activity: child.activity(),
                clients: child.clients,
                started: child.started,
            })
        });
        let mut children: Vec<_> = children.collect();
        children.sort_unstable_by_key(|sight| (sight.started, sight.pid));
        children
    }
}
