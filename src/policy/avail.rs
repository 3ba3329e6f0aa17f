//! Who listens. While a child of a service is available, it accepts for itself and the master
//! looks away; only when none is, and the limit has room for one more, does the master watch the
//! listeners. At the limit, services that strangers can reach turn to stress mode.
//!
//! The rules are those of Postfix's `master_avail.c`. Those of pools whose children do not accept
//! for themselves are in `ordered.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::timers::Timer;
use super::{Action, Pid, Record, Service, ServiceId, Table, Time};
use crate::config;
use crate::protocol::Availability;

/// How long stress mode outlasts the last moment at the limit, and how long the warning about the
/// limit is not repeated (Postfix, `master_avail.c`).
pub(super) const STRESS_TIME: Duration = Duration::from_secs(1000);

impl Service {
    /// Whether the master has to take the next connection to a child.
    pub(super) fn wants_clients(&self) -> bool {
        if self.config.is_ordered() {
            return self.pool.wants_clients() && !self.removed() && !self.paused;
        }
        self.avail == 0
            && !self.spawning
            && !self.paused
            && !self.throttled()
            && !self.removed()
            && self.has_room(self.total)
    }

    /// Whether clients have to wait because every child is busy and no more may be started.
    fn at_limit(&self) -> bool {
        let open = !self.throttled() && !self.removed() && !self.paused;
        open && self.avail == 0 && !self.has_room(self.total - self.departing)
    }
}

/// Watches the listeners or leaves them alone, and says when clients have to wait.
pub(super) fn settle(service: &mut Service, id: ServiceId, now: Time, out: &mut Vec<Action>) {
    if service.at_limit() && service.config.stress_eligible() {
        warn_limit(service, now, out, Record::LimitReached);
    }
    if service.is_short() {
        warn_limit(service, now, out, Record::PoolFull);
    }
    let wanted = service.wants_clients();
    if wanted != service.listening {
        service.listening = wanted;
        out.push(match wanted {
            true => Action::Watch(id),
            false => Action::Unwatch(id),
        });
    }
}

fn warn_limit(
    service: &mut Service,
    now: Time,
    out: &mut Vec<Action>,
    record: fn(Arc<config::Service>) -> Record,
) {
    let recent = |at: Time| now.saturating_sub(at) <= STRESS_TIME;
    if !service.trouble.limit_warned.is_some_and(recent) {
        service.trouble.limit_warned = Some(now);
        out.push(Action::Log(record(service.config.clone())));
    }
}

impl Table {
    /// What [`settle`] goes by.
    pub(super) fn say_counts(&self, id: ServiceId, out: &mut Vec<Action>) {
        if let Some(counts) = self.service(id).map(Service::counts) {
            self.detail(id, out, |service| Record::Counts { service, counts });
        }
        let is_ordered = |service: &&Service| service.config.is_ordered();
        if let Some(counts) = self.service(id).filter(is_ordered).map(|s| s.pool.counts()) {
            self.detail(id, out, |service| Record::States { service, counts });
        }
    }

    /// A connection waits. What a turn's earlier events changed may have taken care of it.
    pub(super) fn connection(
        &mut self,
        now: Time,
        id: ServiceId,
        clients: u32,
        out: &mut Vec<Action>,
    ) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        if !service.wants_clients() {
            return;
        }
        if service.config.is_ordered() {
            return self.give_to_idle(now, id, clients, out);
        }
        self.start_one(now, id, out);
    }

    /// Starts a child. The last one that the limit allows is a sign of stress, unless all the others
    /// are available, as they are in a service that is being filled.
    pub(super) fn start_one(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        let loaded = service.avail < service.total;
        if loaded && service.config.stress_eligible() && !service.has_room(service.total + 1) {
            self.prolong_stress(now, id, out);
        }
        self.spawn(id, out);
    }

    /// The last child that the limit allows is about to be started.
    fn prolong_stress(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        let entered = !service.stressed();
        let until = now + STRESS_TIME;
        service.trouble.stress_until = Some(until);
        let (service, counts) = (service.config.clone(), service.counts());
        self.timers.add(until, Timer::StressEnd(id));
        if entered {
            out.push(Action::Log(Record::StressBegins { service, counts }));
            // Children that know nothing of the stress make room for those that do.
            self.restart(now, id, out);
        }
    }

    pub(super) fn stress_ended(&mut self, id: ServiceId, out: &mut Vec<Action>) {
        if let Some(service) = self.service_mut(id) {
            service.trouble.stress_until = None;
            let (service, counts) = (service.config.clone(), service.counts());
            out.push(Action::Log(Record::StressEnds { service, counts }));
        }
    }

    fn spawn(&mut self, id: ServiceId, out: &mut Vec<Action>) {
        let generation = self.generation.wrapping_add(1);
        self.generation = generation;
        let Some(service) = self.service_mut(id) else {
            return;
        };
        service.spawning = true;
        let stress = service.config.stress_eligible() && service.stressed();
        out.push(Action::Spawn {
            service: id,
            generation,
            stress,
        });
        self.touch(id);
    }

    /// One more child is available.
    pub(super) fn avail_more(&mut self, id: ServiceId, pid: Pid) {
        self.set_availability(id, pid, Availability::Available);
    }

    /// One child less is available.
    pub(super) fn avail_less(&mut self, id: ServiceId, pid: Pid) {
        self.set_availability(id, pid, Availability::Taken);
    }

    /// The one place where a child's mark and its service's count change, together.
    fn set_availability(&mut self, id: ServiceId, pid: Pid, to: Availability) {
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        if std::mem::replace(&mut child.availability, to) == to {
            return;
        }
        if let Some(service) = self.service_mut(id) {
            match to {
                Availability::Available => service.avail += 1,
                Availability::Taken => service.avail -= 1,
            }
        }
        self.touch(id);
    }
}
