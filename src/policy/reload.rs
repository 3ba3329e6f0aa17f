//! The difference between two configurations, and how the table gets from one to the other.
//!
//! A service is known by its kind and canonical name: `25` and `smtp` are one service. A service
//! that is kept keeps its listeners and its children, which leave when they have finished with
//! their client. One whose `accept` changes is removed, and added anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::child::Leaving;
use super::deadlines::grace;
use super::pool::warm::Pace;
use super::progress::Starts;
use super::service::Context;
use super::throttle::BackoffState;
use super::timers::{self, Timer};
use super::{Action, Kind, Record, Service, ServiceId, Signal, Table};
use crate::config::{self, ByIdentity};

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
    /// The services that are configured now and not kept in the new configuration.
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
            let known = self.known(service);
            kept.extend(known);
            let id = known.or_else(|| free.next()).or_else(|| unused.next());
            entries.push(Entry {
                id: id.expect("places do not run out before memory does"),
                service: service.clone(),
                known: known.is_some(),
            });
        }
        let configured = self.services().filter(|(_, service)| !service.removed);
        let configured = configured.map(|(id, _)| id);
        Plan {
            entries,
            removed: configured.filter(|id| !kept.contains(id)).collect(),
            kill_time,
        }
    }

    /// The place of a service that the table has, with children of the same kind.
    fn known(&self, service: &Arc<config::Service>) -> Option<ServiceId> {
        let id = *self.places.get(&ByIdentity(service.clone()))?;
        let same = self.service(id)?.config.is_ordered() == service.is_ordered();
        same.then_some(id)
    }

    pub(super) fn reload(&mut self, plan: Plan) {
        self.cx.kill_time = plan.kill_time;
        // At the start, one line for each service would say nothing that the table does not.
        let logs_added = std::mem::replace(&mut self.loaded, true);
        let more = plan.entries.iter().filter(|entry| !entry.known).count();
        self.services.reserve(more.saturating_sub(self.free.len()));
        self.places.reserve(more);
        for Entry { id, service, known } in plan.entries {
            // The key is taken out first: it would stay, and keep the former configuration in
            // memory.
            self.places.remove(&ByIdentity(service.clone()));
            self.places.insert(ByIdentity(service.clone()), id);
            if known {
                self.at(id, |s, cx| s.reconfigure(cx, service));
                continue;
            }
            if logs_added {
                let record = Record::new(Some(service.clone()), None, Kind::Added);
                self.cx.out.push(Action::Log(record));
            }
            self.insert(id, service);
            self.at(id, Service::begin);
        }
        for id in plan.removed {
            let is_replaced = !self.forget_name(id);
            self.at(id, |s, cx| s.remove(cx, is_replaced));
            self.forget_if_done(id);
        }
    }

    fn insert(&mut self, id: ServiceId, config: Arc<config::Service>) {
        match self.free.pop() {
            Some(free) => debug_assert_eq!(free, id, "plan() takes free places in this order"),
            None => self.services.push(None),
        }
        self.services[id.index()] = Some(Service::new(config));
    }

    /// A service is no longer configured. False if another one has its name already.
    fn forget_name(&mut self, id: ServiceId) -> bool {
        let Some(service) = self.service(id) else {
            return true;
        };
        let name = ByIdentity(service.config.clone());
        let is_own = self.places.get(&name) == Some(&id);
        if is_own {
            self.places.remove(&name);
        }
        is_own
    }

    /// Gives the place of a removed service free once its last child has ended.
    pub(super) fn forget_if_done(&mut self, id: ServiceId) {
        let done = |s: &Service| s.removed && s.children.is_empty();
        if self.service(id).is_some_and(done) {
            self.services[id.index()] = None;
            self.free.push(id);
        }
    }
}

impl Service {
    /// The service is new.
    fn begin(&mut self, cx: &mut Context) {
        self.fill();
        self.start_wakeups(cx);
        self.start_pings(cx);
        self.touch(cx);
    }

    /// The service is kept, with another configuration.
    fn reconfigure(&mut self, cx: &mut Context, config: Arc<config::Service>) {
        self.wakeup_waits = config.wakeup.is_some_and(|w| w.conditional);
        self.config = config;
        // The command may be another, and so may the times.
        let keeps_warm = self.keeps_warm();
        if let Some(rare) = self.existing_rare() {
            rare.backoff = BackoffState::default();
            rare.starts = Starts::default();
            if !keeps_warm {
                rare.pace = Pace::default();
                rare.timers[Timer::Start as usize] = None;
            }
        }
        self.replace_children(cx);
        self.start_pings(cx);
    }

    /// Has the children leave when they have finished, and begins the wake-ups anew.
    pub(super) fn replace_children(&mut self, cx: &mut Context) {
        if self.pool.is_some() {
            self.mark_old(cx);
        } else {
            self.tell_to_leave(cx);
        }
        self.set_timer(cx, Timer::Wakeup, None);
        self.start_wakeups(cx);
        self.touch(cx);
    }

    /// Takes a service out of the table. Its children are told to end, and killed when they have not
    /// done so in time. If it is replaced by one with another `accept`, they may finish with their
    /// clients, as after any reload, for as long as `stop_timeout` says.
    fn remove(&mut self, cx: &mut Context, is_replaced: bool) {
        self.log(cx, Kind::Removed(self.counts()));
        let may_stay = is_replaced && self.config.limits().stop_timeout.is_none();
        self.removed = true;
        self.listening = false;
        self.wakeup_waits = false;
        let rare = self.rare_mut();
        rare.timers = timers::Deadlines::default();
        rare.deadlines.clear();
        let kill_at = cx.now + grace(&self.config, cx.kill_time);
        self.set_timer(cx, Timer::Kill, (!may_stay).then_some(kill_at));
        // The children first: one that found its listener gone would complain.
        for (&pid, child) in &self.children {
            if !is_replaced {
                cx.signal(pid, Signal::Term);
            }
            if child.is_heard() {
                cx.close_channel(pid);
            }
        }
        self.change_all(cx, |child, _| {
            if child.ordered {
                child.leaving.get_or_insert(Leaving::Told);
            }
        });
        cx.out.push(Action::Close(cx.id));
    }

    /// The children of a removed service have had their time.
    pub(super) fn kill_children(&mut self, cx: &mut Context) {
        for &pid in self.children.keys() {
            self.log_child(cx, pid, Kind::Killing);
            cx.signal(pid, Signal::Kill);
        }
    }
}
