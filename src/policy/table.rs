//! All services: finds the one that an event is about.

use std::collections::HashMap;
use std::time::Duration;

use super::recycle::Jitter;
use super::service::{Context, require};
use super::timers::Timer;
use super::{
    Action, ByPid, ChildInfo, Event, ExitStatus, Kind, Pid, Progress, Record, Rogue, Service,
    ServiceId, State, Time,
};
use crate::config::ByIdentity;

/// With more children than this, [`Table::settle`] asserts only what takes the same time for any
/// number of them.
const CHECKED_MAX: usize = 64;

/// All services and children, and the timers.
#[derive(Debug, Default)]
pub struct Table {
    pub(super) services: Vec<Option<Service>>,
    /// Places without a service; the last one is used first.
    pub(super) free: Vec<ServiceId>,
    /// The services that are configured; removed ones are not here. Never iterated, and one piece
    /// of memory: many small ones would keep that of former configurations in use.
    pub(super) places: HashMap<ByIdentity, ServiceId>,
    /// Never iterated, so that its order cannot matter.
    pub(super) pids: ByPid<ServiceId>,
    pub(super) cx: Context,
    /// There has been a configuration.
    pub(super) loaded: bool,
}

impl Table {
    /// An empty table. Children of removed services get `kill_time` to leave. A `verbose` table
    /// logs what it does, not only what goes wrong.
    pub fn new(kill_time: Duration, verbose: bool) -> Self {
        let cx = Context {
            kill_time,
            verbose,
            ..Context::default()
        };
        Self {
            cx,
            ..Self::default()
        }
    }

    /// Has the ages of children differ in another way.
    pub fn seed(&mut self, seed: u64) {
        self.cx.jitter = Jitter::new(seed);
    }

    /// Takes in one fact and appends what is to be done about it. Interest in listeners is not
    /// among it: that waits for [`Table::settle`].
    pub fn step(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        if let Event::Connection { service, clients } = event {
            return self.connection(now, service, clients, out);
        }
        self.turn(now, out, |table| match event {
            Event::Spawned { service, pid, .. } => table.spawned(service, pid, event),
            Event::Exited {
                pid,
                status,
                progress,
            } => table.exited(pid, status, progress),
            Event::Deadline => table.deadline(),
            Event::Reload(plan) => table.reload(plan),
            Event::Verbose(verbose) => table.cx.verbose = verbose,
            Event::Stop { signal } => {
                let record = Record::new(None, None, Kind::Terminating(signal));
                let log = Action::Log(record);
                table.cx.out.extend([log, Action::Terminate { signal }]);
            }
            event => {
                if let Some(id) = table.subject(&event) {
                    table.at(id, |service, cx| service.handle(cx, event));
                }
            }
        });
    }

    /// Has the table do something now; what it asks for is appended to `out`.
    pub(super) fn turn(&mut self, now: Time, out: &mut Vec<Action>, act: impl FnOnce(&mut Self)) {
        self.cx.now = now;
        std::mem::swap(&mut self.cx.out, out);
        act(self);
        std::mem::swap(&mut self.cx.out, out);
    }

    /// The service that an event is about.
    fn subject(&self, event: &Event) -> Option<ServiceId> {
        match *event {
            Event::Report { service, .. }
            | Event::Waiting { service, .. }
            | Event::SpawnFailed { service, .. }
            | Event::WatchFailed { service, .. }
            | Event::Pause { service }
            | Event::Resume { service }
            | Event::Replace { service }
            | Event::Wake { service } => Some(service),
            Event::PoolReport { pid, .. }
            | Event::PoolGarbage { pid, .. }
            | Event::OrderFailed { pid, .. }
            | Event::ChannelClosed { pid }
            | Event::SentDescriptors { pid }
            | Event::Measured { pid, .. }
            | Event::ExecHangs { pid } => self.service_of(pid),
            _ => None,
        }
    }

    /// Has a service do something. An event for a place without a service changes nothing.
    pub(super) fn at(&mut self, id: ServiceId, act: impl FnOnce(&mut Service, &mut Context)) {
        if let Some(Some(service)) = self.services.get_mut(id.index()) {
            self.cx.id = id;
            act(service, &mut self.cx);
        }
    }

    /// The kernel gives no pid twice before its end was collected. Should that have been missed, the
    /// new process is the one.
    fn spawned(&mut self, id: ServiceId, pid: Pid, event: Event) {
        if let Some(former) = self.pids.remove(&pid) {
            self.at(former, |service, cx| drop(service.release(cx, pid)));
            self.forget_if_done(former);
        }
        if self.service(id).is_some() {
            self.pids.insert(pid, id);
            self.at(id, |service, cx| service.handle(cx, event));
        }
    }

    fn exited(&mut self, pid: Pid, status: ExitStatus, progress: Progress) {
        if let Some(id) = self.pids.remove(&pid) {
            self.at(id, |service, cx| service.exited(cx, pid, status, progress));
            self.forget_if_done(id);
        }
    }

    fn deadline(&mut self) {
        let now = self.cx.now;
        while let Some((_, timer, id)) = self.next_timer().filter(|(at, ..)| *at <= now) {
            self.cx.timers.pop();
            self.at(id, |service, cx| {
                service.set_timer(cx, timer, None);
                match timer {
                    Timer::Unthrottle => service.unthrottle(cx),
                    Timer::Wakeup => service.wake(cx),
                    Timer::StressEnd => service.log_stress_end(cx),
                    Timer::Kill => service.kill_children(cx),
                    Timer::OrderTimeout => service.orders_timed_out(cx),
                    Timer::Child => service.children_overdue(cx),
                    Timer::Ping => service.ping(cx),
                    Timer::Age => service.children_aged(cx),
                    Timer::Measure => service.measure(cx),
                    Timer::Surplus => service.end_surplus(cx),
                    Timer::Start | Timer::Delay => service.touch(cx),
                }
            });
        }
    }

    fn next_timer(&mut self) -> Option<(Time, Timer, ServiceId)> {
        let services = &self.services;
        self.cx.timers.next(|at, timer, id| {
            let service = services.get(id.index()).and_then(Option::as_ref);
            service.is_some_and(|service| service.timer(timer) == Some(at))
        })
    }

    /// Ends a turn: decides once for every service that the turn's events touched whether it is to
    /// have more children or fewer, and whether its listeners are to be watched.
    ///
    /// # Panics
    /// In debug builds, when an invariant does not hold; see [`Table::check`].
    pub fn settle(&mut self, now: Time, out: &mut Vec<Action>) {
        self.turn(now, out, |table| {
            while let Some(id) = table.cx.touched.pop() {
                table.at(id, Service::settle);
                debug_assert_eq!(table.check_settled(id), Ok(()), "{id:?}");
            }
        });
    }

    /// Whether a service that has settled is as it should be.
    pub(super) fn check_settled(&self, id: ServiceId) -> Result<(), String> {
        match self.service(id) {
            // It is settled again.
            Some(service) if service.touched => Ok(()),
            Some(service) if service.children.len() > CHECKED_MAX => service.check_counts(),
            Some(service) => service.check(),
            None => Ok(()),
        }
    }

    /// Whether nothing has changed since [`Table::settle`].
    pub fn is_settled(&self) -> bool {
        self.cx.touched.is_empty()
    }

    /// When [`Event::Deadline`] is to be given next.
    pub fn next_deadline(&mut self) -> Option<Time> {
        self.next_timer().map(|(at, ..)| at)
    }

    /// Whether it logs what it does, and not only what goes wrong.
    pub fn is_verbose(&self) -> bool {
        self.cx.verbose
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
        self.pids.get(&pid).copied()
    }

    /// How many children there are, removed services' included.
    pub fn living(&self) -> usize {
        self.pids.len()
    }

    /// All children, removed services' included.
    pub fn pids(&self) -> impl Iterator<Item = Pid> {
        self.services()
            .flat_map(|(_, service)| service.children.keys().copied())
    }

    /// A service's children.
    pub fn pids_of(&self, id: ServiceId) -> impl Iterator<Item = Pid> {
        let service = self.service(id).into_iter();
        service.flat_map(|service| service.children.keys().copied())
    }

    /// A service's children, oldest first.
    pub fn children_of(&self, id: ServiceId) -> Vec<ChildInfo> {
        self.service(id)
            .map(Service::children_info)
            .unwrap_or_default()
    }

    /// What a child does in its ordered pool; nothing for other children.
    pub fn state_of(&self, pid: Pid) -> Option<State> {
        self.service(self.service_of(pid)?)?.pool_state(pid)
    }

    /// How long reports of the service's children may wait to be read together.
    pub fn report_delay(&self, id: ServiceId) -> Option<Duration> {
        self.service(id)?.report_delay()
    }

    /// When a child was started that ended at once and well without a report, so that it matters
    /// whether it took a client; nothing for other children.
    pub fn ended_at_once(&self, now: Time, pid: Pid, status: ExitStatus) -> Option<Time> {
        let service = self.service(self.service_of(pid)?)?;
        let child = service.children.get(&pid)?;
        let matters = child.ended_at_once(now, status) && !child.ordered && !service.removed;
        matters.then_some(child.started)
    }

    /// Whether the end of a child with this status is a failure that the log is to explain; nothing for
    /// a process that is no service's child.
    pub fn is_failure(&self, pid: Pid, status: ExitStatus) -> Option<bool> {
        let service = self.service(self.service_of(pid)?)?;
        Some(
            service
                .children
                .get(&pid)?
                .end(status, service.removed)
                .failed,
        )
    }

    /// All children of services with a `stop_timeout`, with that: how long each may take to end.
    pub fn awaited(&self) -> impl Iterator<Item = (Pid, Duration)> {
        self.services().flat_map(|(_, service)| {
            let timeout = service.config.limits().stop_timeout;
            let pids = service.children.keys();
            pids.filter_map(move |pid| Some((*pid, timeout?)))
        })
    }

    /// Whether all invariants hold; call it after [`Table::settle`].
    ///
    /// # Errors
    /// The first one that does not, in words.
    pub fn check(&self) -> Result<(), String> {
        for (id, service) in self.services() {
            if !self.pids_of(id).all(|pid| self.service_of(pid) == Some(id)) {
                return Err(format!("{id:?}: a child is known for another service's"));
            }
            let checked = service.check();
            checked.map_err(|what| format!("{id:?} {}: {what}", service.config.canonical))?;
        }
        let hanging: u32 = self.services().map(|(_, s)| s.rare().hanging).sum();
        require! {
            "unknown children are known": self.pids().count() == self.pids.len();
            "others hang in exec": hanging == self.cx.hanging;
        }
        Ok(())
    }
}

impl Service {
    /// Handles an event that is about the service or one of its children.
    fn handle(&mut self, cx: &mut Context, event: Event) {
        match event {
            // It was removed after the operator's command was read.
            Event::Pause { .. }
            | Event::Resume { .. }
            | Event::Replace { .. }
            | Event::Wake { .. }
                if self.removed => {}
            Event::Waiting { clients, .. } => self.clients_seen(cx, clients),
            Event::Report { writer, report, .. } => self.report(cx, writer, report),
            Event::Spawned {
                generation, pid, ..
            } => self.spawned(cx, generation, pid),
            Event::SpawnFailed { error, .. } => self.spawn_failed(cx, error),
            Event::WatchFailed { error, .. } => self.watch_failed(cx, error),
            Event::Pause { .. } => self.pause(cx),
            Event::Resume { .. } => self.resume(cx),
            Event::Replace { .. } => self.replace_children(cx),
            Event::Wake { .. } => self.wake_now(cx),
            Event::PoolReport { pid, report } => self.pool_report(cx, pid, report),
            Event::PoolGarbage { pid, letter } => self.end_rogue(cx, pid, Rogue::Unknown(letter)),
            Event::OrderFailed { pid, failure } => {
                self.end_rogue(cx, pid, Rogue::Unwritable(failure));
            }
            Event::ChannelClosed { pid } => self.channel_closed(cx, pid),
            Event::SentDescriptors { pid } => self.sent_descriptors(cx, pid),
            Event::Measured { pid, bytes } => self.measured(cx, pid, bytes),
            Event::ExecHangs { pid } => self.exec_hangs(cx, pid),
            _ => {}
        }
    }
}
