//! A table's state as a value, and the table that goes on from it: in another program, after an
//! upgrade. What follows from the rest (counts, sets, the order of deadlines) is not in it, and is
//! found anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_derive::{Deserialize, Serialize};

use super::child::{Child, Counted};
use super::pool::Pool;
use super::recycle::Jitter;
use super::service::Rare;
use super::timers::Timer;
use super::{Action, Pid, Service, ServiceId, Table, Time};
use crate::config::{self, ByIdentity};

/// The state of a [`Table`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    services: Vec<Option<State>>,
    free: Vec<ServiceId>,
    touched: Vec<ServiceId>,
    generation: u32,
    jitter: Jitter,
    kill_time: Time,
    verbose: bool,
    loaded: bool,
}

/// The state of a [`Service`].
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    /// Which of the configurations that are kept beside the snapshot.
    config: usize,
    children: Vec<(Pid, Child)>,
    timers: Vec<(Timer, Time)>,
    listening: bool,
    spawning: bool,
    paused: bool,
    removed: bool,
    wakeup_waits: bool,
    pool: Option<Pool>,
    rare: Option<Rare>,
}

impl State {
    fn of(service: &Service, config: usize) -> Self {
        let children = service.children.iter();
        let timers = Timer::ALL.into_iter();
        Self {
            config,
            children: children.map(|(pid, c)| (*pid, (**c).clone())).collect(),
            timers: timers
                .filter_map(|timer| Some((timer, service.timer(timer)?)))
                .collect(),
            listening: service.listening,
            spawning: service.spawning,
            paused: service.paused,
            removed: service.removed,
            wakeup_waits: service.wakeup_waits,
            pool: service.pool.as_deref().cloned(),
            rare: service.rare.as_deref().cloned(),
        }
    }

    /// The service without its children and deadlines.
    fn service(&self, config: Arc<config::Service>) -> Service {
        let mut service = Service::new(config);
        service.listening = self.listening;
        service.spawning = self.spawning;
        service.paused = self.paused;
        service.removed = self.removed;
        service.wakeup_waits = self.wakeup_waits;
        service.rare = self.rare.clone().map(Box::new);
        if let (Some(own), Some(pool)) = (&mut service.pool, &self.pool) {
            **own = pool.clone();
        }
        service
    }
}

impl Table {
    /// The table's state. `config` keeps a service's configuration, and says under which number.
    pub fn snapshot(&self, mut config: impl FnMut(&Arc<config::Service>) -> usize) -> Snapshot {
        let services = self.services.iter().map(Option::as_ref);
        Snapshot {
            services: services
                .map(|service| service.map(|s| State::of(s, config(&s.config))))
                .collect(),
            free: self.free.clone(),
            touched: self.cx.touched.clone(),
            generation: self.cx.generation,
            jitter: self.cx.jitter,
            kill_time: self.cx.kill_time,
            verbose: self.cx.verbose,
            loaded: self.loaded,
        }
    }

    /// The table that goes on from a snapshot. `configs` are those that were kept, by their numbers.
    ///
    /// # Errors
    /// What does not fit together, in words.
    pub fn restore(snapshot: &Snapshot, configs: &[Arc<config::Service>]) -> Result<Self, String> {
        let mut table = Self::new(snapshot.kill_time, snapshot.verbose);
        table.loaded = snapshot.loaded;
        table.cx.generation = snapshot.generation;
        table.cx.jitter = snapshot.jitter;
        for (index, state) in snapshot.services.iter().enumerate() {
            let id = ServiceId::from_index(index);
            let Some(state) = state else {
                table.services.push(None);
                continue;
            };
            let config = configs.get(state.config);
            let config = config.ok_or_else(|| format!("{id:?} has no configuration"))?;
            table.services.push(Some(state.service(config.clone())));
            let key = ByIdentity(config.clone());
            if !state.removed && table.places.insert(key, id).is_some() {
                return Err(format!("{id:?} is there twice"));
            }
            table.restore_children(id, state)?;
        }
        table.restore_places(snapshot)?;
        for (id, _) in table.services() {
            let settled = table.check_settled(id);
            settled.map_err(|what| format!("{id:?}: {what}"))?;
        }
        Ok(table)
    }

    /// The channels of these children were lost: they read end of file, and leave.
    pub fn channels_lost(&mut self, now: Time, pids: &[Pid], out: &mut Vec<Action>) {
        self.turn(now, out, |table| {
            for &pid in pids {
                if let Some(id) = table.service_of(pid) {
                    table.at(id, |service, cx| service.channel_lost(cx, pid));
                }
            }
        });
    }

    fn restore_children(&mut self, id: ServiceId, state: &State) -> Result<(), String> {
        for (pid, _) in &state.children {
            if self.pids.insert(*pid, id).is_some() {
                return Err(format!("{id:?}: process {pid} is there twice"));
            }
        }
        self.at(id, |service, cx| {
            for (timer, at) in &state.timers {
                service.set_timer(cx, *timer, Some(*at));
            }
            for (pid, child) in &state.children {
                service.recount(cx, *pid, Counted::default(), child.counted());
                service.children.insert(*pid, Box::new(child.clone()));
            }
            if let (Some(own), Some(pool)) = (&mut service.pool, &state.pool) {
                own.replaced = pool.replaced;
            }
        });
        Ok(())
    }

    fn restore_places(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        let places = 0..self.services.len();
        let unused = places.map(ServiceId::from_index);
        let unused: BTreeSet<_> = unused.filter(|id| self.service(*id).is_none()).collect();
        let free: BTreeSet<_> = snapshot.free.iter().copied().collect();
        if free != unused || free.len() != snapshot.free.len() {
            return Err("other places are free".to_owned());
        }
        self.free.clone_from(&snapshot.free);
        // One may be of a place that has no service any more.
        self.cx.touched.clone_from(&snapshot.touched);
        let touched: BTreeSet<_> = snapshot.touched.iter().collect();
        for (index, service) in self.services.iter_mut().enumerate() {
            if let Some(service) = service {
                service.touched = touched.contains(&ServiceId::from_index(index));
            }
        }
        Ok(())
    }
}
