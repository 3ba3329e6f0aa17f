//! The rules: facts from outside go in as [`Event`]s, wishes come out as [`Action`]s.
//!
//! Pure and deterministic: no clock (time is an argument), no descriptor, no system call, and no
//! result that depends on the order of a hash table. Everything that decides can be tested and
//! simulated without a process. The rules themselves are Postfix's, `src/master/master_avail.c`,
//! `master_spawn.c`, `master_status.c` and `master_wakeup.c`; where ours differ, the code says why.

mod avail;
mod children;
mod ordered;
mod overstay;
mod pids;
mod record;
mod reload;
mod stats;
mod steer;
#[cfg(test)]
mod tests;
mod throttle;
mod timers;
mod wakeup;
mod warm;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::protocol::pool::{Order, Report};
use crate::protocol::{Availability, StatusReport};
use crate::seldom::{Seldom, usual};

pub use ordered::State;
use overstay::Told;
pub use pids::ByPid;
pub use record::{Counts, Limiter, Record, Rogue};
pub use reload::{Entry, Plan};
pub use stats::{Activity, Sight, Stats};
use timers::Timers;

/// Monotonic time since some origin that never changes while the table lives.
pub type Time = Duration;

/// A process.
pub type Pid = i32;

/// A service's place in the table. A place is used again once the service that had it is gone,
/// its last child included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(u32);

impl ServiceId {
    /// The place as an index, for whoever keeps descriptors beside the table.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The place with this index.
    ///
    /// # Panics
    /// Above 4,294,967,295, which no table can reach.
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("fewer than 2^32 services"))
    }
}

/// A fact from outside.
#[derive(Debug)]
pub enum Event {
    /// A watched listener of the service has a connection waiting.
    Connection { service: ServiceId },
    /// A watched listener of an ordered pool has so many connections waiting, as far as the system
    /// counts them.
    Connections { service: ServiceId, count: u32 },
    /// A whole report came through the status channel of the `writer`, a child of the service.
    Report {
        service: ServiceId,
        writer: Pid,
        report: StatusReport,
    },
    /// So many bytes came through the status channel of the `writer` that are no reports.
    Garbage {
        service: ServiceId,
        writer: Pid,
        length: usize,
    },
    /// A child of an ordered pool said what it does, through its own channel.
    Said { pid: Pid, report: Report },
    /// A child of an ordered pool said something that begins like this and means nothing.
    Babbled { pid: Pid, letter: u8 },
    /// [`Action::Order`] could not be carried out, for this reason.
    Unwritable { pid: Pid, reason: String },
    /// The channel of a child of an ordered pool has ended.
    HungUp { pid: Pid },
    /// The child that [`Action::Spawn`] asked for runs.
    Spawned {
        service: ServiceId,
        generation: u32,
        pid: Pid,
    },
    /// The child that [`Action::Spawn`] asked for could not be made, for the system's reason.
    SpawnFailed { service: ServiceId, reason: String },
    /// [`Action::Watch`] was refused, for the system's reason.
    WatchFailed { service: ServiceId, reason: String },
    /// A process ended and was reaped.
    Exit { pid: Pid, status: ExitStatus },
    /// Time has passed; see [`Table::next_deadline`].
    Deadline,
    /// A new configuration was read and checked, and its listeners are open.
    Reload(Plan),
    /// An operator wants the service's clients to wait.
    Pause { service: ServiceId },
    /// An operator wants the service's clients to wait no longer.
    Resume { service: ServiceId },
    /// An operator wants other children for the service, as after a reload.
    Replace { service: ServiceId },
    /// An operator wants the service woken up now.
    Wake { service: ServiceId },
    /// An operator wants to be told of what the master does, or no longer.
    Verbose(bool),
    /// The master was told to end by this signal.
    Stop { signal: i32 },
}

impl Event {
    /// What `writer`, a child of the service, has written to its status channel, see
    /// [`crate::protocol::reports`].
    pub fn written(service: ServiceId, writer: Pid, what: Result<StatusReport, usize>) -> Self {
        match what {
            Ok(report) => Self::Report {
                service,
                writer,
                report,
            },
            Err(length) => Self::Garbage {
                service,
                writer,
                length,
            },
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

/// A wish that the runtime carries out at once, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Report connections that wait on the service's listeners, until `Unwatch`.
    Watch(ServiceId),
    Unwatch(ServiceId),
    /// Start a child, and answer with [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn {
        service: ServiceId,
        generation: u32,
        stress: bool,
    },
    Signal {
        pid: Pid,
        signal: Signal,
    },
    /// Write an order into the channel of a child of an ordered pool; complain with
    /// [`Event::Unwritable`].
    Order {
        pid: Pid,
        order: Order,
    },
    /// Close the channel of a child of an ordered pool.
    HangUp {
        pid: Pid,
    },
    /// Close the status channels of the service's children: they leave as soon as they have
    /// finished with their client.
    Dismiss(ServiceId),
    /// Connect to the service as a client would and send a wake-up.
    Wake(ServiceId),
    /// The service is no more: close its listeners and its children's status channels.
    Close(ServiceId),
    /// End the master and, with SIGTERM, its whole process group.
    Terminate {
        signal: i32,
    },
    Log(Record),
}

/// The signals that the master sends to single children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Int,
    Term,
    Kill,
}

/// One service: Postfix's `MASTER_SERV`.
#[derive(Debug)]
pub struct Service {
    config: Arc<config::Service>,
    /// Children that wait for a client, as far as the master was told.
    avail: u32,
    /// All children, also those that were told to leave.
    total: u32,
    /// Whether the runtime was asked to watch the listeners.
    listening: bool,
    /// Of all children, those that leave at once.
    departing: u32,
    /// A spawn that was asked for and not yet answered.
    spawning: bool,
    /// An operator has clients wait.
    paused: bool,
    trouble: Seldom<Trouble>,
    wakeup_at: Option<Time>,
    /// Wake-ups wait for the first use (`?` in the table).
    wakeup_waits: bool,
    /// A reload took the service away, and it only waits for its children to leave.
    removed: bool,
    /// A removed service's children that remain are killed then.
    kill_at: Option<Time>,
    /// The children that have a [`Child::due`].
    due: Seldom<overstay::Dues>,
    /// No particular order; [`Child::position`] is the place in here.
    children: Vec<Pid>,
    /// The children that accept when they are told to.
    pool: Seldom<ordered::Pool>,
    /// How fast children are started that no client has asked for.
    pace: Seldom<warm::Pace>,
    stats: Seldom<stats::Stats>,
    /// Whether the service is in [`Table::touched`].
    touched: bool,
}

impl Service {
    fn new(config: Arc<config::Service>) -> Self {
        Self {
            wakeup_waits: config.wakeup.is_some_and(|w| w.conditional),
            config,
            avail: 0,
            total: 0,
            departing: 0,
            listening: false,
            spawning: false,
            paused: false,
            trouble: Seldom::default(),
            wakeup_at: None,
            removed: false,
            kill_at: None,
            due: Seldom::default(),
            children: Vec::new(),
            pool: Seldom::default(),
            pace: Seldom::default(),
            stats: Seldom::default(),
            touched: false,
        }
    }

    /// The table's line as it holds now.
    pub fn config(&self) -> &Arc<config::Service> {
        &self.config
    }

    /// Children that wait for a client, as far as the master was told.
    pub fn avail(&self) -> u32 {
        self.avail
    }

    /// All children.
    pub fn total(&self) -> u32 {
        self.total
    }

    fn counts(&self) -> Counts {
        let Self { avail, total, .. } = *self;
        Counts { avail, total }
    }

    /// Whether the listeners are to be watched.
    pub fn listening(&self) -> bool {
        self.listening
    }

    /// Whether a failing command keeps the service from starting children.
    pub fn throttled(&self) -> bool {
        self.throttled_until().is_some()
    }

    /// Whether children that start now are told of stress.
    pub fn stressed(&self) -> bool {
        self.stress_until().is_some()
    }

    /// Whether a reload took the service away, and it only waits for its children to leave.
    pub fn removed(&self) -> bool {
        self.removed
    }

    /// Whether the limit has room for a child when there are `total` of them already.
    fn has_room(&self, total: u32) -> bool {
        self.config.max == 0 || total < self.config.max
    }
}

/// What few services have known.
#[derive(Debug, Default)]
struct Trouble {
    throttled_until: Option<Time>,
    backoff: throttle::Backoff,
    /// Stress mode ends then, 1000 s after the limit was last in reach.
    stress_until: Option<Time>,
    limit_warned: Option<Time>,
    gossip: record::Limiter,
}

usual!(Trouble);

/// One child: Postfix's `MASTER_PROC`.
#[derive(Debug)]
struct Child {
    service: ServiceId,
    generation: u32,
    availability: Availability,
    /// How often it became available again, that is, how many clients it has served.
    uses: u32,
    /// How many clients it has reported, the one that it has included.
    clients: u32,
    started: Time,
    leaving: Leaving,
    /// It has had its client since then, by its own word.
    busy_since: Option<Time>,
    /// It was told to leave then.
    dismissed: Option<Time>,
    told: Told,
    /// When it has stayed too long.
    due: Option<Time>,
    /// What it is to its ordered pool, if it was started for one.
    member: Option<Box<ordered::Member>>,
    /// Its place in [`Service::children`].
    position: usize,
}

/// Whether a child was told to leave, by the end of its status channel. It cannot report any more
/// then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// It had a client then.
    WhenDone,
    /// It was available then.
    AtOnce,
}

/// All services and children, and the timers.
#[derive(Debug, Default)]
pub struct Table {
    services: Vec<Option<Service>>,
    free: Vec<ServiceId>,
    /// The services that are configured; removed ones are not here. Never iterated either, and one
    /// piece of memory: many small ones would keep that of former configurations in use.
    places: HashMap<config::ByIdentity, ServiceId>,
    /// Never iterated, so that its order cannot matter.
    children: ByPid<Child>,
    timers: Timers,
    generation: u32,
    /// The services whose interest in their listeners is to be looked at again.
    touched: Vec<ServiceId>,
    kill_time: Duration,
    verbose: bool,
    /// There has been a configuration.
    loaded: bool,
}

impl Table {
    /// An empty table. Children of removed services get `kill_time` to leave. A `verbose` table
    /// logs what it does, not only what goes wrong.
    pub fn new(kill_time: Duration, verbose: bool) -> Self {
        Self {
            kill_time,
            verbose,
            ..Self::default()
        }
    }

    /// Takes in one fact and appends what is to be done about it. Interest in listeners is not
    /// among it: that waits for [`Table::settle`].
    pub fn step(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Connection { service } => self.connection(now, service, 1, out),
            Event::Connections { service, count } => self.connection(now, service, count, out),
            Event::Report {
                service,
                writer,
                report,
            } => self.report(now, service, writer, report, out),
            Event::Garbage {
                service,
                writer,
                length,
            } => self.garbage(now, service, writer, length, out),
            Event::Said { pid, report } => self.said(now, pid, report, out),
            Event::Babbled { pid, letter } => self.babbled(now, pid, letter, out),
            Event::Unwritable { pid, reason } => self.unwritable(now, pid, reason, out),
            Event::HungUp { pid } => self.hung_up(now, pid, out),
            Event::Spawned {
                service,
                generation,
                pid,
            } => self.spawned(now, service, generation, pid, out),
            Event::SpawnFailed { service, reason } => self.spawn_failed(now, service, reason, out),
            Event::WatchFailed { service, reason } => self.watch_failed(now, service, reason, out),
            Event::Exit { pid, status } => self.exited(now, pid, status, out),
            Event::Deadline => self.deadline(now, out),
            Event::Reload(plan) => self.reload(now, plan, out),
            Event::Pause { service } => self.pause(now, service, out),
            Event::Resume { service } => self.resume(service),
            Event::Replace { service } => self.replace_children(now, service, out),
            Event::Wake { service } => self.wake_now(now, service, out),
            Event::Verbose(verbose) => self.verbose = verbose,
            Event::Stop { signal } => out.extend([
                Action::Log(Record::Terminating { signal }),
                Action::Terminate { signal },
            ]),
        }
    }

    /// Ends a turn: decides once for every service that the turn's events touched whether it is to
    /// have more children or fewer, and whether its listeners are to be watched.
    pub fn settle(&mut self, now: Time, out: &mut Vec<Action>) {
        while let Some(id) = self.touched.pop() {
            if self.verbose {
                self.say_counts(id, out);
            }
            let Some(service) = self.service_mut(id) else {
                continue;
            };
            service.touched = false;
            if !service.keeps_nothing_warm() && !service.removed() {
                self.adapt(now, id, out);
            }
            if let Some(service) = self.service_mut(id) {
                avail::settle(service, id, now, out);
                service.take_stock(now);
            }
        }
    }

    /// When [`Event::Deadline`] is due next.
    pub fn next_deadline(&mut self) -> Option<Time> {
        let services = &self.services;
        self.timers.next(|at, timer| {
            let service = services.get(timer.service().index());
            service
                .and_then(Option::as_ref)
                .is_some_and(|s| timers::armed(s, timer) == Some(at))
        })
    }

    /// Whether it logs what it does, and not only what goes wrong.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// The service at this place.
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.index())?.as_ref()
    }

    /// All services with their places, removed ones included.
    pub fn services(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        let places = self.services.iter().enumerate();
        places.filter_map(|(index, s)| Some((ServiceId::from_index(index), s.as_ref()?)))
    }

    /// Which service a process belongs to.
    pub fn service_of(&self, pid: Pid) -> Option<ServiceId> {
        Some(self.children.get(&pid)?.service)
    }

    /// How many children there are, removed services' included.
    pub fn living(&self) -> usize {
        self.children.len()
    }

    /// All children, removed services' included.
    pub fn pids(&self) -> impl Iterator<Item = Pid> {
        self.services()
            .flat_map(|(_, s)| s.children.iter().copied())
    }

    /// A service's children.
    pub fn pids_of(&self, id: ServiceId) -> &[Pid] {
        self.service(id).map_or(&[], |service| &service.children)
    }

    fn service_mut(&mut self, id: ServiceId) -> Option<&mut Service> {
        self.services.get_mut(id.index())?.as_mut()
    }

    /// Has [`Table::settle`] look at the service.
    fn touch(&mut self, id: ServiceId) {
        if let Some(service) = self.service_mut(id) {
            if !service.touched {
                service.touched = true;
                self.touched.push(id);
            }
        }
    }

    /// Logs what only a verbose table says.
    fn detail(
        &self,
        id: ServiceId,
        out: &mut Vec<Action>,
        record: impl FnOnce(Arc<config::Service>) -> Record,
    ) {
        if let Some(service) = self.service(id).filter(|_| self.verbose) {
            out.push(Action::Log(record(service.config.clone())));
        }
    }

    fn deadline(&mut self, now: Time, out: &mut Vec<Action>) {
        while self.next_deadline().is_some_and(|at| at <= now) {
            let Some(timer) = self.timers.pop() else {
                return;
            };
            match timer {
                timers::Timer::Unthrottle(id) => self.unthrottle(id, out),
                timers::Timer::Wakeup(id) => self.wake(now, id, out),
                timers::Timer::StressEnd(id) => self.stress_ended(id, out),
                timers::Timer::Kill(id) => self.kill_children(id, out),
                timers::Timer::Patience(id) => self.patience_ended(now, id),
                timers::Timer::Due(id) => self.children_due(now, id, out),
                timers::Timer::Ping(id) => self.ping(now, id, out),
                timers::Timer::Surplus(id) => self.end_surplus(now, id, out),
                timers::Timer::Start(id) => self.start_again(id),
            }
        }
    }

    /// Whether all invariants hold; call it after [`Table::settle`].
    ///
    /// # Errors
    /// The first one that does not, in words.
    pub fn check(&self) -> Result<(), String> {
        for (pid, child) in &self.children {
            let service = self.service(child.service);
            let service =
                service.ok_or_else(|| format!("child {pid} of a service that is gone"))?;
            if service.children.get(child.position) != Some(pid) {
                return Err(format!("child {pid} is not in its service's list"));
            }
        }
        let listed: usize = self.services().map(|(_, s)| s.children.len()).sum();
        if listed != self.children.len() {
            return Err(format!("{listed} listed, {} known", self.children.len()));
        }
        self.services().try_for_each(|(id, service)| {
            self.check_service(service)
                .map_err(|what| format!("{id:?} {}: {what}", service.config.canonical))
        })
    }

    fn check_service(&self, service: &Service) -> Result<(), String> {
        let Service { avail, total, .. } = *service;
        let children = service.children.iter().map(|pid| &self.children[pid]);
        let marked = children.filter(|c| c.availability == Availability::Available);
        if service.children.len() as u32 != total {
            return Err(format!("total {total} of {}", service.children.len()));
        }
        if marked.count() as u32 != avail {
            return Err(format!("avail {avail} is not what the children are marked"));
        }
        if service.listening != service.wants_clients() {
            return Err(format!("listening is {}", service.listening));
        }
        let pids = service.children.iter();
        let due = pids.filter_map(|pid| Some((self.children[pid].due?, *pid)));
        if due.collect::<overstay::Dues>() != *service.due {
            return Err("others are due".into());
        }
        if service.removed() && !service.due.is_empty() {
            return Err("removed, and a child is due by itself".into());
        }
        if service.removed() && service.throttled() {
            return Err("removed, and throttled".into());
        }
        self.check_stock(service)?;
        if service.removed() && total == 0 {
            return Err("removed, and nothing to wait for".into());
        }
        self.check_pool(service)
    }
}
