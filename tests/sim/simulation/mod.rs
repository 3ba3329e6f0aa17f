//! The simulated world: the kernel, the table's file, the model, and the real policy, driven like
//! by the runtime.

mod promises;

use std::collections::VecDeque;
use std::time::Duration;

use master::policy::{Action, Errno, Event, Pid, ServiceId, Table, Time};
use master::protocol::StatusReport;

use crate::coverage::Coverage;
use crate::happening::Happening;
use crate::kernel::{End, Kernel, Message, Phase, Port};
use crate::lines::Lines;
use crate::model::Model;
use crate::template::News;
use crate::upgraded::Upgraded;

/// The number of places: the endpoints', two of removed services that still have children, and an
/// unused one.
const PLACES: usize = 7;
/// ENOMEM.
const NO_ROOM: Errno = Errno(12);

/// The parts of a turn, in the runtime's order.
const PARTS: [Part; 5] = [
    Part::Reports,
    Part::Exits,
    Part::Deadlines,
    Part::Connections,
    Part::Reload,
];

#[derive(Clone, Copy, Debug)]
enum Part {
    Reports,
    Exits,
    Deadlines,
    Connections,
    Reload,
}

/// One of the orders in which a turn could do its parts.
fn permutation(mut number: usize) -> [Part; 5] {
    let mut order = PARTS;
    for at in 0..order.len() {
        let rest = order.len() - at;
        order[at..].rotate_left(number % rest);
        number /= rest;
    }
    order
}

#[derive(Debug)]
pub struct Simulation {
    pub kernel: Kernel,
    pub model: Model,
    pub lines: Lines,
    pub coverage: Coverage,
    table: Upgraded,
    hangup: bool,
    /// Whether to stop, and whether the next master is verbose.
    stop: Option<bool>,
    /// The number of actions per turn, executed at its end; `None` executes all at once.
    pub late: Option<u8>,
    /// Actions that have not been executed yet.
    pub queue: VecDeque<Action>,
    /// A buffer that is reused.
    actions: Vec<Action>,
}

/// A description of a broken promise.
pub type Broken = String;

impl Simulation {
    /// A master without services.
    pub fn new() -> Self {
        let kernel = Kernel::at(Duration::from_secs(1));
        Self::with(kernel, Lines::default(), false)
    }

    /// A master without services that is upgraded again and again.
    pub fn upgraded() -> Self {
        let mut simulation = Self::new();
        simulation.begin_upgrades(false);
        simulation
    }

    fn begin_upgrades(&mut self, verbose: bool) {
        let same = Table::new(self.lines.kill_time, verbose);
        self.table.begin(same);
    }

    fn with(kernel: Kernel, lines: Lines, verbose: bool) -> Self {
        Self {
            table: Upgraded::new(Table::new(lines.kill_time, verbose)),
            kernel,
            model: Model::new(verbose),
            lines,
            coverage: Coverage::default(),
            hangup: false,
            stop: None,
            late: None,
            queue: VecDeque::new(),
            actions: Vec::new(),
        }
    }

    /// Whether the happening was possible.
    ///
    /// # Errors
    /// The promise that it broke.
    pub fn apply(&mut self, happening: Happening) -> Result<bool, Broken> {
        let kernel = &mut self.kernel;
        match happening {
            Happening::Turn => return self.turn(PARTS).map(|()| true),
            Happening::Disorder(number) => {
                return self.turn(permutation(number.into())).map(|()| true);
            }
            Happening::Sleep => return self.sleep(),
            Happening::Calm => return self.calm().map(|()| true),
            Happening::Pass(milliseconds) => {
                kernel.pass(Duration::from_millis(milliseconds.into()));
            }
            Happening::Client(endpoint) => return Ok(kernel.client(endpoint)),
            Happening::Echo(nth) => return Ok(kernel.echo(nth)),
            Happening::Lose(nth) => return Ok(kernel.lose(nth)),
            Happening::SpawnFails => kernel.spawn_fails = true,
            Happening::WatchFails => kernel.watch_fails = true,
            Happening::Count => kernel.does_not_count = !kernel.does_not_count,
            Happening::Edit(endpoint, edit) => return Ok(self.lines.edit(endpoint, edit)),
            Happening::KillTime(seconds) => {
                self.lines.kill_time = Duration::from_secs(seconds.into());
            }
            Happening::Hangup => self.hangup = true,
            Happening::Operator(place, request) => {
                let place = ServiceId::from_index(usize::from(place) % PLACES);
                return self.operate(request.event(place)).map(|()| true);
            }
            Happening::Verbose(verbose) => {
                return self.operate(Event::Verbose(verbose)).map(|()| true);
            }
            Happening::Stop(verbose) => self.stop = Some(verbose),
            Happening::Look => return self.look().map(|()| true),
            Happening::Late(actions) => {
                self.late = Some(actions).filter(|actions| *actions > 0);
                return self.settle().map(|()| true);
            }
            Happening::Template(nth)
            | Happening::TemplateEnds(nth)
            | Happening::TemplateRefuses(nth)
            | Happening::TemplateHangs(nth)
            | Happening::TemplateRenewed(nth) => {
                let service = self.kernel.nth_template(nth);
                return service.map_or(Ok(false), |id| self.happen_to_template(id, happening));
            }
            Happening::Live(nth)
            | Happening::Retire(nth)
            | Happening::Fail(nth)
            | Happening::Crash(nth, _)
            | Happening::Defy(nth)
            | Happening::Vanish(nth)
            | Happening::Stale(nth)
            | Happening::Forge(nth, _)
            | Happening::Stray(nth, _)
            | Happening::Unknown(nth)
            | Happening::Hang(nth)
            | Happening::SendDescriptors(nth)
            | Happening::Garbage(nth) => {
                let process = kernel.living(nth);
                return Ok(process.is_some_and(|at| happen_to(kernel, at, happening)));
            }
        }
        Ok(true)
    }

    /// What the next turn will do.
    pub fn pending(&self) -> ([bool; 4], Option<bool>) {
        let Kernel {
            spawn_fails,
            watch_fails,
            does_not_count,
            ..
        } = self.kernel;
        let faults = [self.hangup, spawn_fails, watch_fails, does_not_count];
        (faults, self.stop)
    }

    pub fn until_deadline(&mut self) -> Option<Time> {
        let now = self.kernel.now;
        self.deadline().map(|at| at.saturating_sub(now))
    }

    fn happen_to_template(&mut self, id: ServiceId, happening: Happening) -> Result<bool, Broken> {
        let template = self.kernel.template(id).ok_or("no template")?;
        let possible = match happening {
            Happening::Template(_) => template.live(),
            Happening::TemplateEnds(_) => template.end(),
            Happening::TemplateRefuses(_) => template.refuse(),
            Happening::TemplateHangs(_) => template.hang(),
            _ => template.has_loaded(),
        };
        if let Happening::TemplateRenewed(_) = happening {
            if possible {
                template.replace(true);
                self.operate(Event::Replace { service: id })?;
            }
        }
        Ok(possible)
    }

    // The master's loop.

    fn turn(&mut self, order: [Part; 5]) -> Result<(), Broken> {
        let connections = self.kernel.connections();
        if self.stop.is_some() {
            self.step(Event::Stop { signal: 15 })?;
        }
        for part in order {
            match part {
                Part::Reports => self.read_reports()?,
                Part::Exits => self.process_exits()?,
                Part::Deadlines => self.pass_deadlines()?,
                Part::Connections => {
                    for &service in &connections {
                        let clients = 1;
                        self.step(Event::Connection { service, clients })?;
                    }
                }
                Part::Reload => self.reload()?,
            }
        }
        self.settle()?;
        for _ in 0..self.late.unwrap_or_default() {
            self.carry_out_next()?;
        }
        self.settle()?;
        self.check()?;
        match self.stop {
            Some(verbose) => self.start_again(verbose),
            None => Ok(()),
        }
    }

    /// A turn with only an operator's request.
    fn operate(&mut self, event: Event) -> Result<(), Broken> {
        self.step(event)?;
        self.settle()?;
        self.check()
    }

    /// A turn that only looks for clients that no child takes.
    fn look(&mut self) -> Result<(), Broken> {
        let ports = self.kernel.ports();
        let waiting: Vec<_> = ports.map(|(id, port)| (id, port.waiting > 0)).collect();
        for (service, clients) in waiting {
            let found = self.table.service(service);
            if found.is_some_and(|service| service.may_hide_clients()) {
                self.step(Event::Waiting { service, clients })?;
            }
        }
        self.settle()?;
        self.check()
    }

    fn read_reports(&mut self) -> Result<(), Broken> {
        while let Some(event) = self.kernel.next_heard() {
            self.step(event)?;
        }
        Ok(())
    }

    /// Reads what templates have said, and has those go on that have something to do.
    fn serve_templates(&mut self) -> Result<(), Broken> {
        for service in self.kernel.preloaded() {
            while let Some(news) = self.kernel.template_news(service) {
                let found = self.table.service(service);
                let is_wanted = found.is_some_and(|found| !found.removed());
                let event = match news {
                    // It reads the end of its channel, and leaves.
                    News::Forked(_) if !is_wanted => continue,
                    News::Forked(generation) => self.started(service, generation),
                    News::Failed => {
                        // What is still queued comes to nothing, too.
                        self.queue.retain(|action| !spawns(action, service));
                        failed(service)
                    }
                };
                self.step(event)?;
            }
            self.order_fork(service);
        }
        Ok(())
    }

    /// Has the service's template go on, if it has something to do.
    fn order_fork(&mut self, service: ServiceId) {
        let now = self.kernel.now;
        let found = self.table.service(service);
        let may_load = found.is_some_and(|found| !found.throttled() && !found.removed());
        if let Some(template) = self.kernel.template(service) {
            template.proceed(now, may_load);
        }
    }

    fn process_exits(&mut self) -> Result<(), Broken> {
        self.serve_templates()?;
        while let Some((pid, status, progress)) = self.kernel.reap() {
            let now = self.kernel.now;
            let matters = self.table.ended_at_once(now, pid, status).is_some();
            if matters != self.model.is_judged(now, pid, status) {
                return Err(format!("whether {pid} took a client matters: {matters}"));
            }
            self.step(Event::Exited {
                pid,
                status,
                progress,
            })?;
        }
        while let Some(pid) = self.kernel.next_hanging() {
            self.step(Event::ExecHangs { pid })?;
        }
        Ok(())
    }

    fn pass_deadlines(&mut self) -> Result<(), Broken> {
        let now = self.kernel.now;
        if self.deadline().is_some_and(|at| at <= now) {
            self.step(Event::Deadline)?;
        }
        if self.deadline().is_some_and(|at| at < now) {
            Err("a deadline was passed over".into())
        } else {
            Ok(())
        }
    }

    fn deadline(&mut self) -> Option<Time> {
        self.table.next_deadline()
    }

    fn reload(&mut self) -> Result<(), Broken> {
        // A configuration takes effect after all actions are executed.
        if !self.hangup || !self.queue.is_empty() {
            return Ok(());
        }
        self.hangup = false;
        let services = self.lines.services();
        let plan = self.table.plan(&services, self.lines.kill_time);
        for entry in &plan.entries {
            let account = self.model.accounts.get(&entry.id);
            let same = account.is_some_and(|a| a.service.identity() == entry.service.identity());
            if account.is_some() != entry.known || entry.known != same {
                return Err(format!("{:?} is in a wrong place", entry.service.name));
            }
            let port = self.kernel.port(entry.id);
            let moved = port.is_some_and(|port| port.service.endpoint != entry.service.endpoint);
            if self.kernel.open(entry.id, entry.service.clone()) {
                self.watch(entry.id)?;
            }
            if let Some(generation) = self.kernel.change_template(entry.id, moved) {
                self.queue.push_back(Action::Spawn {
                    service: entry.id,
                    generation,
                    stress: false,
                });
            }
        }
        self.step(Event::Reload(plan))?;
        self.check_open(&services)
    }

    /// Settles until nothing is left to do. A refused watch must be handled in the same turn: by
    /// the next one the throttle may be over, and the unwatched listener would not be noticed.
    fn settle(&mut self) -> Result<(), Broken> {
        loop {
            let now = self.kernel.now;
            self.model.settle(now);
            self.table.settle(now, &mut self.actions);
            self.take_actions()?;
            if self.late.is_some() || self.queue.is_empty() {
                return self.model.compare(&self.table);
            }
            self.carry_out()?;
        }
    }

    fn step(&mut self, event: Event) -> Result<(), Broken> {
        self.take_in(event)?;
        self.carry_out()?;
        self.model.compare(&self.table)
    }

    fn take_in(&mut self, event: Event) -> Result<(), Broken> {
        let now = self.kernel.now;
        self.coverage.event(&event);
        self.model.enter(now, &event);
        self.table.step(now, event, &mut self.actions);
        self.take_actions()
    }

    /// Queues the table's actions, which must be due and possible.
    fn take_actions(&mut self) -> Result<(), Broken> {
        for action in self.actions.drain(..) {
            self.coverage.action(&action);
            self.model.wish(self.kernel.now, &action)?;
            let possible = match action {
                Action::Signal { pid, .. } | Action::CloseChannel { pid } => {
                    self.kernel.is_known(pid)
                }
                Action::Spawn { service, .. } => self.kernel.has_room(service),
                Action::Order { .. } | Action::Measure { .. } => false,
                _ => true,
            };
            if !possible {
                return Err(format!("the kernel cannot do {action:?}"));
            }
            self.queue.push_back(action);
        }
        Ok(())
    }

    /// Executes all queued actions, or as many as `late` allows.
    fn carry_out(&mut self) -> Result<(), Broken> {
        while self.late.is_none() && !self.queue.is_empty() {
            self.carry_out_next()?;
        }
        Ok(())
    }

    fn carry_out_next(&mut self) -> Result<(), Broken> {
        match self.queue.pop_front() {
            Some(action) => self.act(&action),
            None => Ok(()),
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), Broken> {
        let kernel = &mut self.kernel;
        let possible = match *action {
            Action::Watch(id) => return self.watch(id),
            // A removed service's listeners are closed without being unwatched.
            Action::Unwatch(id) => kernel.unwatch(id),
            Action::Spawn {
                service,
                generation,
                ..
            } => return self.spawn(service, generation),
            Action::Signal { pid, signal } => {
                kernel.signal(pid, signal);
                true
            }
            Action::CloseChannel { pid } => {
                while let Some(event) = self.kernel.next_heard_of(pid) {
                    self.take_in(event)?;
                }
                self.kernel.close_channel(pid);
                true
            }
            Action::Order { .. } | Action::Measure { .. } => false,
            // A wake-up is dropped if the queue is full.
            Action::Wake(id) => kernel.port_mut(id).map(Port::connect).is_some(),
            Action::Close(id) => kernel.close(id),
            Action::Terminate { .. } => true,
            Action::Log(ref record) => return promises::said(&record.to_string()),
        };
        possible
            .then_some(())
            .ok_or_else(|| format!("the kernel cannot do {action:?}"))
    }

    fn watch(&mut self, service: ServiceId) -> Result<(), Broken> {
        let watched = self.kernel.watch(service);
        if !watched.ok_or_else(|| format!("{service:?} is watched already, or gone"))? {
            let error = NO_ROOM;
            self.take_in(Event::WatchFailed { service, error })?;
        }
        Ok(())
    }

    fn spawn(&mut self, service: ServiceId, generation: u32) -> Result<(), Broken> {
        if let Some(template) = self.kernel.template(service) {
            template.request(generation)?;
            self.order_fork(service);
            return Ok(());
        }
        let event = self.started(service, generation);
        self.take_in(event)
    }

    /// The system starts a child, or has no room for it.
    fn started(&mut self, service: ServiceId, generation: u32) -> Event {
        let used: Vec<Pid> = self.queue.iter().filter_map(pid_of).collect();
        match self.kernel.spawn(service, generation, &used) {
            Some(pid) => Event::Spawned {
                service,
                generation,
                pid,
            },
            None => failed(service),
        }
    }
}

/// Whether an action starts a child of a service.
fn spawns(action: &Action, id: ServiceId) -> bool {
    matches!(action, Action::Spawn { service, .. } if *service == id)
}

fn failed(service: ServiceId) -> Event {
    Event::SpawnFailed {
        service,
        error: NO_ROOM,
    }
}

fn happen_to(kernel: &mut Kernel, at: usize, happening: Happening) -> bool {
    let own = kernel.own_report(at, 1);
    match happening {
        Happening::Live(_) => return kernel.live(at),
        Happening::Retire(_) => kernel.end(at, End::Code(0)),
        Happening::Fail(_) => kernel.end(at, End::Code(1)),
        Happening::Crash(_, signal) => kernel.end(at, End::Signal(signal.into())),
        Happening::Defy(_) => kernel.processes[at].defiant = true,
        Happening::Vanish(_) => kernel.vanish(at),
        Happening::Hang(_) => {
            let process = &mut kernel.processes[at];
            let hangs = process.phase == Phase::Starting;
            if hangs {
                process.phase = Phase::Hanging;
            }
            return hangs;
        }
        Happening::Stale(_) => {
            let generation = own.generation.wrapping_sub(1);
            let report = StatusReport { generation, ..own };
            return kernel.write(at, Message::Report(report));
        }
        Happening::Forge(_, other) => {
            let other = kernel.living(other);
            let claimed = other.map(|other| kernel.own_report(other, 1));
            return claimed.is_some_and(|claimed| kernel.write(at, Message::Report(claimed)));
        }
        Happening::Stray(_, endpoint) => return kernel.stray(at, endpoint),
        Happening::Unknown(_) => {
            let available = 2;
            let report = StatusReport { available, ..own };
            return kernel.write(at, Message::Report(report));
        }
        Happening::Garbage(_) => return kernel.write(at, Message::Garbage),
        Happening::SendDescriptors(_) => return kernel.write(at, Message::Descriptors),
        _ => return false,
    }
    true
}

/// The process that an action is for.
fn pid_of(action: &Action) -> Option<Pid> {
    match *action {
        Action::Signal { pid, .. } | Action::CloseChannel { pid } => Some(pid),
        _ => None,
    }
}
