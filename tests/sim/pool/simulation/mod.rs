//! One ordered pool: the true state of kernel and children, and the policy, driven like by the
//! runtime. What the master knows is recorded here a second time, in the simplest way.

mod actions;
mod process;
mod promises;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use master::config::{Endpoint, Extra, Kind, Service};
use master::policy::{
    Action, Errno, Event, ExitStatus, Pid, Progress, ServiceId, Signal, Table, Time,
};
use master::protocol::pool::Report;

use super::{Happening, NO_LIMITS, Settings};
use crate::coverage::Coverage;
use crate::happening::OperatorRequest;
use crate::template::{News, Template};
use crate::upgraded::Upgraded;
use process::{Phase, Process, Word, advance};

type Broken = String;

const KILL_TIME: Duration = Duration::from_secs(3);
const THROTTLE_TIME: Duration = Duration::from_secs(20);
/// Maximum number of processes during faults; a pool without a limit would start more and more.
const PROCESSES_MAX: usize = 20;
/// Maximum number of waiting clients.
const BACKLOG: u32 = 6;
/// ENOMEM and EPIPE.
const NO_ROOM: Errno = Errno(12);
const BROKEN_PIPE: Errno = Errno(32);

/// Faults for the next opportunity.
#[derive(Debug, Default)]
struct Faults {
    child: bool,
    write: bool,
    ping: bool,
    spawn: bool,
    watch: bool,
    /// The next child that is measured uses much.
    memory: bool,
    /// Each child that is ready leaves, until this is over.
    leaves: bool,
}

#[derive(Debug)]
pub struct Simulation {
    now: Time,
    table: Upgraded,
    place: ServiceId,
    settings: Settings,
    /// The settings in force.
    in_force: Settings,
    processes: Vec<Process>,
    /// What forks the children of a preloaded pool.
    template: Option<Template>,
    waiting: u32,
    watched: bool,
    refused: bool,
    /// Whether an operator has paused the service.
    paused: bool,
    steerings: Vec<OperatorRequest>,
    pub coverage: Coverage,
    /// Whether the system counts waiting clients.
    counts: bool,
    faults: Faults,
    reload: bool,
    /// The number of actions per turn, executed at its end; `None` executes all at once.
    late: Option<u8>,
    /// Actions that have not been executed yet.
    queue: VecDeque<Action>,
    /// A buffer that is reused.
    actions: Vec<Action>,
    /// Counters of starts and of orders to end.
    pub started: u32,
    pub ended: u32,
}

impl Simulation {
    /// A pool whose master is upgraded again and again.
    pub fn upgraded() -> Self {
        let mut simulation = Self::new();
        simulation.table.begin(Table::new(KILL_TIME, true));
        simulation
    }

    pub fn new() -> Self {
        let settings = Settings {
            max: 3,
            min_children: 1,
            min_idle: 1,
            max_idle: 2,
            double: false,
            preload: false,
            limits: NO_LIMITS,
        };
        Self {
            now: Duration::from_secs(1),
            table: Upgraded::new(Table::new(KILL_TIME, true)),
            place: ServiceId::from_index(0),
            settings,
            in_force: settings,
            processes: Vec::new(),
            template: None,
            waiting: 0,
            watched: false,
            refused: false,
            paused: false,
            steerings: Vec::new(),
            coverage: Coverage::default(),
            counts: false,
            faults: Faults::default(),
            reload: false,
            late: None,
            queue: VecDeque::new(),
            actions: Vec::new(),
            started: 0,
            ended: 0,
        }
    }

    /// # Errors
    /// The promise that was broken.
    pub fn apply(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Turn => return self.turn(),
            Happening::Sleep => return self.sleep(),
            Happening::Calm => return self.calm(),
            Happening::Pass(milliseconds) => self.now += Duration::from_millis(milliseconds.into()),
            Happening::Client => self.waiting = (self.waiting + 1).min(BACKLOG),
            Happening::Template => self.happen_to_template(Template::live),
            Happening::TemplateEnds => self.happen_to_template(Template::end),
            Happening::TemplateRefuses => self.happen_to_template(Template::refuse),
            Happening::TemplateHangs => self.happen_to_template(Template::hang),
            Happening::TemplateRenewed => return self.renew_template(),
            Happening::Leave => self.faults.leaves = !self.faults.leaves,
            Happening::ChildFails => self.faults.child = true,
            Happening::WriteWaits => self.faults.write = true,
            Happening::PingFails => self.faults.ping = true,
            Happening::SpawnFails => self.faults.spawn = true,
            Happening::Grow => self.faults.memory = true,
            Happening::WatchFails => self.faults.watch = true,
            Happening::Count => self.counts = !self.counts,
            Happening::Edit(settings) => self.settings = settings,
            Happening::Reload => self.reload = true,
            Happening::Operator(request) => self.steerings.push(request),
            Happening::Late(actions) => {
                self.late = Some(actions).filter(|actions| *actions > 0);
                return self.settle();
            }
            Happening::Hang(nth) => self.happen(nth, |p| {
                if p.phase == Phase::Starting && p.words.is_empty() {
                    p.phase = Phase::Hanging;
                }
            }),
            Happening::SendDescriptors(nth) => self.happen(nth, |p| p.say(Word::Descriptors)),
            Happening::Live(nth) => {
                if let Some(at) = self.nth(nth) {
                    self.live(at);
                }
            }
            Happening::Retire(nth) => self.happen(nth, |p| {
                if p.phase == Phase::Waiting {
                    p.end(ExitStatus::Code(0));
                }
            }),
            Happening::Fail(nth) => self.happen(nth, |p| p.end(ExitStatus::Code(1))),
            Happening::Crash(nth) => self.happen(nth, |p| p.end(ExitStatus::Signal(9))),
            Happening::Stop(nth) => self.happen(nth, |p| p.stopped = true),
            Happening::Continue(nth) => self.happen(nth, |p| p.stopped = false),
            Happening::Defy(nth) => self.happen(nth, |p| p.defiant = true),
            // A busy child may take as long as it likes.
            Happening::Silence(nth) => self.happen(nth, |p| p.rogue |= p.phase != Phase::Busy),
            Happening::Letter(nth) => self.happen(nth, |p| {
                p.say(Word::Letter);
                p.rogue = true;
            }),
            Happening::Lie(nth) => self.happen(nth, |p| {
                let ordered = !p.orders.is_empty() || !p.unwritten.is_empty();
                let report = match p.phase {
                    // It could be what the master is about to request.
                    _ if !p.words.is_empty() => return,
                    Phase::Starting => Report::Busy,
                    Phase::Waiting if !ordered => Report::Busy,
                    Phase::Waiting | Phase::Ordered => Report::Idle,
                    Phase::Busy | Phase::Hanging => return,
                };
                p.say(Word::Report(report));
                p.rogue = true;
            }),
            Happening::HangUp(nth) => self.happen(nth, |p| {
                p.open = false;
                p.rogue = true;
            }),
        }
        Ok(())
    }

    /// The index of the nth process that has not ended.
    fn nth(&self, nth: u8) -> Option<usize> {
        let living: Vec<usize> = (0..self.processes.len())
            .filter(|&at| self.processes[at].end.is_none())
            .collect();
        let nth = usize::from(nth).checked_rem(living.len())?;
        Some(living[nth])
    }

    fn happen(&mut self, nth: u8, what: impl FnOnce(&mut Process)) {
        if let Some(at) = self.nth(nth) {
            what(&mut self.processes[at]);
        }
    }

    fn happen_to_template(&mut self, what: impl FnOnce(&mut Template) -> bool) {
        self.template.as_mut().map(what);
    }

    fn renew_template(&mut self) -> Result<(), Broken> {
        let template = self.template.as_mut().filter(|found| found.has_loaded());
        if let Some(template) = template {
            template.replace(true);
            self.operate(OperatorRequest::Replace)?;
        }
        Ok(())
    }

    /// Reads what the template has said, and has it go on if it has something to do.
    fn serve_template(&mut self) -> Result<(), Broken> {
        let now = self.now;
        while let Some(news) = self.template.as_mut().and_then(|it| it.next_news(now)) {
            let event = match news {
                News::Forked(generation) => self.started(generation)?,
                News::Failed => {
                    // What is still queued comes to nothing, too.
                    self.queue
                        .retain(|action| !matches!(action, Action::Spawn { .. }));
                    self.failed()
                }
            };
            self.step(event)?;
        }
        self.order_fork();
        Ok(())
    }

    /// Has the template go on, if it has something to do.
    fn order_fork(&mut self) {
        let found = self.table.service(self.place);
        let may_load = found.is_some_and(|found| !found.throttled() && !found.removed());
        if let Some(template) = &mut self.template {
            template.proceed(self.now, may_load);
        }
    }

    /// After a reload, there is another template, or none.
    fn change_template(&mut self) {
        match &mut self.template {
            slot if !self.in_force.preload => {
                let request = slot.take().and_then(|mut template| template.take_request());
                self.queue.extend(request.map(|generation| Action::Spawn {
                    service: self.place,
                    generation,
                    stress: false,
                }));
            }
            Some(template) => template.replace(true),
            slot => *slot = Some(Template::missing()),
        }
    }

    /// Lets a process take its next step; false if there is none.
    fn live(&mut self, at: usize) -> bool {
        let waiting = &mut self.waiting;
        let process = &mut self.processes[at];
        if process.end.is_some() {
            return false;
        }
        match process.signal {
            Some(Signal::Kill) => process.end(ExitStatus::Signal(9)),
            _ if process.stopped || process.phase == Phase::Hanging => return false,
            Some(Signal::Int) if !process.defiant => process.end(ExitStatus::Signal(2)),
            Some(Signal::Term) if !process.defiant => process.end(ExitStatus::Signal(15)),
            _ if process.rogue => return false,
            _ if self.faults.leaves && process.phase == Phase::Waiting => {
                process.end(ExitStatus::Code(0));
            }
            _ => return advance(process, waiting),
        }
        true
    }

    // The master's loop, in the runtime's order.

    fn turn(&mut self) -> Result<(), Broken> {
        let connection = self.watched && !self.refused && self.waiting > 0;
        for process in &mut self.processes {
            let written = process.unwritten.drain(..);
            process.orders.extend(written);
        }
        self.read_channels()?;
        self.serve_template()?;
        self.process_exits()?;
        if self.table.next_deadline().is_some_and(|at| at <= self.now) {
            self.step(Event::Deadline)?;
        }
        if self.table.next_deadline().is_some_and(|at| at < self.now) {
            return Err("a deadline was passed over".into());
        }
        self.check_clients_time()?;
        if connection {
            let service = self.place;
            let clients = if self.counts { self.waiting } else { 1 };
            self.step(Event::Connection { service, clients })?;
        }
        for request in std::mem::take(&mut self.steerings) {
            self.operate(request)?;
        }
        // A configuration takes effect after all actions are executed.
        if self.queue.is_empty() && std::mem::take(&mut self.reload) {
            self.in_force = self.settings;
            let services = [Arc::new(service(self.settings))];
            let plan = self.table.plan(&services, KILL_TIME);
            self.acquit();
            self.change_template();
            self.step(Event::Reload(plan))?;
        }
        self.settle()?;
        for _ in 0..self.late.unwrap_or_default() {
            self.carry_out_next()?;
        }
        self.settle()?;
        self.check()
    }

    /// Handles an operator's request.
    fn operate(&mut self, request: OperatorRequest) -> Result<(), Broken> {
        match request {
            OperatorRequest::Pause => self.paused = self.table.service(self.place).is_some(),
            OperatorRequest::Resume => self.paused = false,
            OperatorRequest::Replace => self.acquit(),
            OperatorRequest::Wake => {}
        }
        self.step(request.event(self.place))
    }

    /// The children that are there say nothing about the program of from now on.
    fn acquit(&mut self) {
        for process in &mut self.processes {
            process.on_trial = false;
        }
    }

    fn read_channels(&mut self) -> Result<(), Broken> {
        let pids: Vec<Pid> = self.processes.iter().map(|p| p.pid).collect();
        for pid in pids {
            while let Some(event) = self.next_word(pid) {
                self.step(event)?;
            }
        }
        Ok(())
    }

    fn next_word(&mut self, pid: Pid) -> Option<Event> {
        let process = self.processes.iter_mut().find(|p| p.pid == pid && p.held)?;
        match process.words.pop_front() {
            Some(Word::Letter) => {
                process.idle = false;
                Some(Event::PoolGarbage { pid, letter: b'X' })
            }
            Some(Word::Descriptors) => {
                process.no_longer_counts();
                process.held = false;
                process.words.clear();
                Some(Event::SentDescriptors { pid })
            }
            Some(Word::Report(report)) => {
                process.ordered_at = None;
                process.idle = report == Report::Idle && !process.ending;
                process.on_trial &= !process.idle;
                process.busy_since = process.busy_since.filter(|_| !process.idle);
                if report == Report::Busy && !process.ending {
                    process.busy_since.get_or_insert(self.now);
                }
                Some(Event::PoolReport { pid, report })
            }
            None if !process.open && !std::mem::replace(&mut process.end_read, true) => {
                process.no_longer_counts();
                Some(Event::ChannelClosed { pid })
            }
            None => None,
        }
    }

    fn process_exits(&mut self) -> Result<(), Broken> {
        while let Some(at) = self.processes.iter().position(|p| p.end.is_some()) {
            let process = self.processes.remove(at);
            let (pid, end) = (process.pid, process.end);
            let status = end.ok_or("a process that has ended")?;
            let progress = Progress::Unknown;
            self.step(Event::Exited {
                pid,
                status,
                progress,
            })?;
            let service = self.table.service(self.place);
            if process.on_trial && !service.is_some_and(|service| service.throttled()) {
                return Err(format!("{pid} was never idle, and throttles nothing"));
            }
        }
        let hangs = |p: &&mut Process| p.phase == Phase::Hanging && !p.hang_reported;
        while let Some(process) = self.processes.iter_mut().find(hangs) {
            process.hang_reported = true;
            process.on_trial = false;
            process.no_longer_counts();
            let pid = process.pid;
            self.step(Event::ExecHangs { pid })?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Broken> {
        loop {
            self.table.settle(self.now, &mut self.actions);
            self.take_actions()?;
            if self.late.is_some() || self.queue.is_empty() {
                return Ok(());
            }
            self.carry_out()?;
        }
    }

    fn step(&mut self, event: Event) -> Result<(), Broken> {
        self.take_in(event)?;
        self.carry_out()
    }

    fn take_in(&mut self, event: Event) -> Result<(), Broken> {
        self.coverage.event(&event);
        self.table.step(self.now, event, &mut self.actions);
        self.take_actions()
    }

    /// Equal for states that differ only in pids and in the time of day.
    pub fn fingerprint(&mut self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let (now, until) = (self.now, self.table.next_deadline());
        until.map(|at| at.saturating_sub(now)).hash(&mut hasher);
        let throttled = self.table.service(self.place).map(|s| s.throttled());
        let template = self.template.as_ref();
        template
            .map(|template| template.fingerprint(now))
            .hash(&mut hasher);
        (
            self.waiting,
            self.watched,
            self.refused,
            self.reload,
            throttled,
        )
            .hash(&mut hasher);
        let mut order: Vec<&Process> = self.processes.iter().collect();
        order.sort_by_key(|p| p.pid);
        for process in order {
            let age = process.ordered_at.map(|at| now - at);
            let state = self.table.state_of(process.pid);
            // The messages are few and contain no pid.
            let rest = (
                &process.phase,
                &process.orders,
                &process.words,
                &process.signal,
            );
            let flags = (
                process.open,
                process.held,
                process.rogue,
                process.idle,
                process.ending,
            );
            (age, state, flags, format!("{rest:?} {:?}", process.end)).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// The service, as the parser would return it.
pub fn service(settings: Settings) -> Service {
    Service {
        name: "spamd".into(),
        kind: Kind::Inet,
        canonical: "783".into(),
        endpoint: Endpoint::Inet(vec![SocketAddr::from(([127, 0, 0, 1], 783))]),
        unprivileged: true,
        chroot: false,
        wakeup: None,
        max: settings.max,
        command: "spamd-child".into(),
        path: "spamd-child".into(),
        args: Vec::new(),
        backlog: 100,
        throttle_time: THROTTLE_TIME,
        extra: Extra {
            pool: settings.pool(),
            limits: settings.limits,
            ..Extra::default()
        }
        .boxed(),
        table: std::path::Path::new("master.cf").into(),
        line: 1,
    }
}
