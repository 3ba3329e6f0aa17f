//! The difference between two configurations, and how the table gets from one to the other.
//!
//! A service is known by its kind and canonical name: `25` and `smtp` are one service. What is kept
//! keeps its listeners and its children, which leave when they have finished with their client.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::timers::Timer;
use super::{Action, Leaving, Record, Service, ServiceId, Signal, Table, Time};
use crate::config::{self, ByIdentity};
use crate::protocol::Availability;

/// One service of a new configuration and its place in the table.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: ServiceId,
    pub service: Arc<config::Service>,
    /// Whether the table has the service already.
    pub known: bool,
}

/// What a new configuration means for the table that [made](Table::plan) it, as long as no other
/// event comes between.
#[derive(Clone, Debug)]
pub struct Plan {
    pub entries: Vec<Entry>,
    /// The services that are configured now and no longer in the new configuration.
    pub removed: Vec<ServiceId>,
    pub kill_time: Duration,
}

impl Table {
    /// Gives every service of a new configuration its place; changes nothing. The children of
    /// services that are not among them will have `kill_time` to leave.
    pub fn plan(&self, services: &[Arc<config::Service>], kill_time: Duration) -> Plan {
        let mut free = self.free.iter().rev().copied();
        let mut unused = (self.services.len()..).map(ServiceId::from_index);
        let mut kept = BTreeSet::new();
        let mut entries = Vec::with_capacity(services.len());
        for service in services {
            let known = self.places.get(&ByIdentity(service.clone())).copied();
            kept.extend(known);
            let id = known.or_else(|| free.next()).or_else(|| unused.next());
            entries.push(Entry {
                id: id.expect("places do not run out before memory does"),
                service: service.clone(),
                known: known.is_some(),
            });
        }
        let configured = self.services().filter(|(_, service)| !service.removed());
        let configured = configured.map(|(id, _)| id);
        Plan {
            entries,
            removed: configured.filter(|id| !kept.contains(id)).collect(),
            kill_time,
        }
    }

    pub(super) fn reload(&mut self, now: Time, plan: Plan, out: &mut Vec<Action>) {
        self.kill_time = plan.kill_time;
        // At the start, one line for each service would say nothing that the table does not.
        let news = std::mem::replace(&mut self.loaded, true);
        let more = plan.entries.iter().filter(|entry| !entry.known).count();
        self.services.reserve(more.saturating_sub(self.free.len()));
        self.places.reserve(more);
        for Entry { id, service, known } in plan.entries {
            if known {
                self.replace(id, service);
                self.restart(now, id, out);
            } else {
                if news {
                    out.push(Action::Log(Record::Added(service.clone())));
                }
                self.insert(id, service);
                self.fill(id);
                self.start_wakeups(now, id, out);
            }
            self.start_pings(now, id);
            self.touch(id);
        }
        for id in plan.removed {
            self.remove(now, id, out);
        }
    }

    fn insert(&mut self, id: ServiceId, config: Arc<config::Service>) {
        match self.free.pop() {
            Some(free) => debug_assert_eq!(free, id, "plan() takes free places in this order"),
            None => self.services.push(None),
        }
        self.places.insert(ByIdentity(config.clone()), id);
        self.services[id.index()] = Some(Service::new(config));
    }

    fn replace(&mut self, id: ServiceId, config: Arc<config::Service>) {
        // The key is taken out first: it would stay, and keep the former configuration in memory.
        self.places.remove(&ByIdentity(config.clone()));
        self.places.insert(ByIdentity(config.clone()), id);
        if let Some(service) = self.service_mut(id) {
            service.wakeup_waits = config.wakeup.is_some_and(|w| w.conditional);
            service.config = config;
            service.forgive();
        }
    }

    /// Tells the children to leave when they have finished, and begins the wake-ups anew.
    pub(super) fn restart(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        self.outdate(now, id);
        self.dismiss(now, id, out);
        if let Some(service) = self.service_mut(id) {
            service.wakeup_at = None;
        }
        self.start_wakeups(now, id, out);
    }

    /// Tells the children to leave when they have finished, by closing their status channels. They
    /// are no longer counted on: Postfix goes on counting them, and so leaves a service without
    /// anyone to listen when one does not go.
    pub(super) fn dismiss(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.services[id.index()].as_mut() else {
            return;
        };
        for pid in &service.children {
            let Some(child) = self.children.get_mut(pid).filter(|c| c.member.is_none()) else {
                continue;
            };
            child.dismissed.get_or_insert(now);
            match std::mem::replace(&mut child.availability, Availability::Taken) {
                Availability::Available => {
                    child.leaving = Leaving::AtOnce;
                    service.departing += 1;
                    service.avail -= 1;
                }
                Availability::Taken if child.leaving == Leaving::No => {
                    child.leaving = Leaving::WhenDone;
                }
                Availability::Taken => {}
            }
        }
        out.push(Action::Dismiss(id));
        self.reckon_all(id);
        self.touch(id);
    }

    /// Takes a service out of service. Nobody waits for its children: they are told to end, and
    /// killed when they have not done so in time.
    fn remove(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let kill_time = self.kill_time;
        let Some(service) = self.services[id.index()].as_mut() else {
            return;
        };
        let kill_at = now + service.grace(kill_time);
        out.push(Action::Log(Record::Removed {
            service: service.config.clone(),
            counts: service.counts(),
        }));
        self.places.remove(&ByIdentity(service.config.clone()));
        service.removed = true;
        service.kill_at = Some(kill_at);
        service.wakeup_at = None;
        service.wakeup_waits = false;
        if let Some(trouble) = service.trouble.changed() {
            trouble.throttled_until = None;
            trouble.stress_until = None;
        }
        service.listening = false;
        if let Some(pool) = service.pool.changed() {
            pool.retire();
        }
        if let Some(pace) = service.pace.changed() {
            pace.stop();
        }
        // The children first: one that found its listener gone would complain.
        let signal = Signal::Term;
        for pid in service.children.clone() {
            out.push(Action::Signal { pid, signal });
            self.retire(pid, out);
            self.set_due(pid, None);
        }
        out.push(Action::Close(id));
        self.timers.add(kill_at, Timer::Kill(id));
        self.forget_if_done(id);
    }

    /// The children of a removed service have had their time.
    pub(super) fn kill_children(&mut self, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        service.kill_at = None;
        let signal = Signal::Kill;
        for &pid in &service.children {
            let service = service.config.clone();
            out.push(Action::Log(Record::Killing { service, pid }));
            out.push(Action::Signal { pid, signal });
        }
    }

    /// Gives the place of a removed service free once its last child is gone.
    pub(super) fn forget_if_done(&mut self, id: ServiceId) {
        let done = |s: &Service| s.removed() && s.children.is_empty();
        if self.service(id).is_some_and(done) {
            self.services[id.index()] = None;
            self.free.push(id);
        }
    }
}
