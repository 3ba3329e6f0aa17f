//! The simulated world: the kernel, the table's file, the book, and in their midst the real
//! policy, driven as the runtime drives it.

use std::time::Duration;

use master::policy::{Action, Event, ServiceId, Table, Time};
use master::protocol::StatusReport;

use crate::book::Book;
use crate::happening::Happening;
use crate::kernel::{End, Kernel, Port};
use crate::lines::Lines;
use crate::seen::Seen;

/// The runtime's loop sleeps no longer.
const TURN_MAX: Duration = Duration::from_secs(500);
/// Every process does something in a round, so it takes few to serve all clients; but wake-ups go
/// on while a service is throttled.
const ROUNDS_MAX: usize = 2000;
/// The endpoints' places, those of two that were removed and are there still, and one of nobody.
const PLACES: usize = 7;
/// ENOMEM and ENOSPC.
const NO_ROOM: &str = "no room";

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
pub struct World {
    pub kernel: Kernel,
    pub book: Book,
    pub lines: Lines,
    pub seen: Seen,
    table: Table,
    hangup: bool,
    /// A stop, and whether the next master is verbose.
    stop: Option<bool>,
    actions: Vec<Action>,
}

/// A promise that was broken, in words.
pub type Broken = String;

impl World {
    /// A master without services.
    pub fn new() -> Self {
        let kernel = Kernel::at(Duration::from_secs(1));
        Self::with(kernel, Lines::default(), false)
    }

    fn with(kernel: Kernel, lines: Lines, verbose: bool) -> Self {
        Self {
            table: Table::new(lines.kill_time, verbose),
            kernel,
            book: Book::new(verbose),
            lines,
            seen: Seen::default(),
            hangup: false,
            stop: None,
            actions: Vec::new(),
        }
    }

    /// Whether the happening could happen.
    ///
    /// # Errors
    /// What it broke.
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
            Happening::Edit(endpoint, edit) => return Ok(self.lines.edit(endpoint, edit)),
            Happening::KillTime(seconds) => {
                self.lines.kill_time = Duration::from_secs(seconds.into());
            }
            Happening::Hangup => self.hangup = true,
            Happening::Steer(place, steering) => {
                let place = ServiceId::from_index(usize::from(place) % PLACES);
                return self.steer(steering.event(place)).map(|()| true);
            }
            Happening::Verbose(verbose) => {
                return self.steer(Event::Verbose(verbose)).map(|()| true);
            }
            Happening::Stop(verbose) => self.stop = Some(verbose),
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
            | Happening::Garbage(nth) => {
                let process = kernel.living(nth);
                return Ok(process.is_some_and(|at| happen_to(kernel, at, happening)));
            }
        }
        Ok(true)
    }

    /// What is about to happen in the next turn.
    pub fn pending(&self) -> ([bool; 3], Option<bool>) {
        let Kernel {
            spawn_fails,
            watch_fails,
            ..
        } = self.kernel;
        ([self.hangup, spawn_fails, watch_fails], self.stop)
    }

    pub fn until_deadline(&mut self) -> Option<Time> {
        let now = self.kernel.now;
        self.deadline().map(|at| at.saturating_sub(now))
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
                Part::Exits => self.bury_dead()?,
                Part::Deadlines => self.pass_deadlines()?,
                Part::Connections => {
                    for &service in &connections {
                        self.step(Event::Connection { service })?;
                    }
                }
                Part::Reload => self.reload()?,
            }
        }
        self.settle()?;
        self.check()?;
        match self.stop {
            Some(verbose) => self.start_again(verbose),
            None => Ok(()),
        }
    }

    /// A turn in which only an operator has something to say.
    fn steer(&mut self, event: Event) -> Result<(), Broken> {
        self.step(event)?;
        self.settle()?;
        self.check()
    }

    fn read_reports(&mut self) -> Result<(), Broken> {
        while let Some(event) = self.kernel.next_heard() {
            self.step(event)?;
        }
        Ok(())
    }

    fn bury_dead(&mut self) -> Result<(), Broken> {
        while let Some((pid, status)) = self.kernel.reap() {
            self.step(Event::Exit { pid, status })?;
        }
        Ok(())
    }

    fn pass_deadlines(&mut self) -> Result<(), Broken> {
        let now = self.kernel.now;
        if self.deadline().is_some_and(|at| at <= now) {
            self.step(Event::Deadline)?;
        }
        match self.deadline().is_some_and(|at| at < now) {
            true => Err("a deadline was passed over".into()),
            false => Ok(()),
        }
    }

    fn deadline(&mut self) -> Option<Time> {
        self.table.next_deadline()
    }

    fn reload(&mut self) -> Result<(), Broken> {
        if !std::mem::take(&mut self.hangup) {
            return Ok(());
        }
        let services = self.lines.services();
        let plan = self.table.plan(&services, self.lines.kill_time);
        for entry in &plan.entries {
            let account = self.book.accounts.get(&entry.id);
            let same = account.is_some_and(|a| a.service.identity() == entry.service.identity());
            if account.is_some() != entry.known || entry.known != same {
                return Err(format!("{:?} is in a wrong place", entry.service.name));
            }
            if self.kernel.open(entry.id, entry.service.clone()) {
                self.watch(entry.id)?;
            }
        }
        self.step(Event::Reload(plan))?;
        let open = self.kernel.ports().map(|(_, port)| port.service.identity());
        let mut wanted: Vec<_> = services.iter().map(|service| service.identity()).collect();
        let mut open: Vec<_> = open.collect();
        wanted.sort_unstable();
        open.sort_unstable();
        match open == wanted {
            true => Ok(()),
            false => Err(format!("{open:?} are open instead of {wanted:?}")),
        }
    }

    /// Until there is nothing left to do. What the kernel refuses to watch is to be settled in the
    /// same turn: by the next one the throttle may be over, and nobody would notice that the
    /// listener is not watched.
    fn settle(&mut self) -> Result<(), Broken> {
        loop {
            let now = self.kernel.now;
            self.book.settle(now);
            self.table.settle(now, &mut self.actions);
            if self.actions.is_empty() {
                return self.book.compare(&self.table);
            }
            self.carry_out()?;
        }
    }

    fn step(&mut self, event: Event) -> Result<(), Broken> {
        self.take_in(event);
        self.carry_out()?;
        self.book.compare(&self.table)
    }

    fn take_in(&mut self, event: Event) {
        let now = self.kernel.now;
        self.seen.event(&event);
        self.book.enter(now, &event);
        self.table.step(now, event, &mut self.actions);
    }

    fn carry_out(&mut self) -> Result<(), Broken> {
        while !self.actions.is_empty() {
            let mut batch = std::mem::take(&mut self.actions);
            for action in batch.drain(..) {
                self.seen.action(&action);
                self.book.wish(self.kernel.now, &action)?;
                self.act(&action)?;
            }
            if self.actions.is_empty() {
                // Kept for its memory.
                self.actions = batch;
            }
        }
        Ok(())
    }

    fn act(&mut self, action: &Action) -> Result<(), Broken> {
        let kernel = &mut self.kernel;
        let possible = match *action {
            Action::Watch(id) => return self.watch(id),
            Action::Unwatch(id) => kernel.unwatch(id),
            Action::Spawn {
                service,
                generation,
                ..
            } => return self.spawn(service, generation),
            Action::Signal { pid, signal } => kernel.signal(pid, signal),
            Action::Order { .. } | Action::HangUp { .. } => false,
            Action::Dismiss(id) => {
                kernel.dismiss(id);
                true
            }
            Action::Wake(id) => {
                // Who finds the queue full gives up.
                kernel.port_mut(id).map(Port::connect).is_some()
            }
            Action::Close(id) => kernel.close(id),
            Action::Terminate { .. } => true,
            Action::Log(ref record) => return said(&record.to_string()),
        };
        possible
            .then_some(())
            .ok_or_else(|| format!("the kernel cannot do {action:?}"))
    }

    fn watch(&mut self, service: ServiceId) -> Result<(), Broken> {
        let watched = self.kernel.watch(service);
        if !watched.ok_or_else(|| format!("{service:?} is watched already, or gone"))? {
            let reason = NO_ROOM.into();
            self.take_in(Event::WatchFailed { service, reason });
        }
        Ok(())
    }

    fn spawn(&mut self, service: ServiceId, generation: u32) -> Result<(), Broken> {
        let port = self.kernel.port(service).ok_or("spawn: no service")?;
        let children = self.kernel.processes.iter().filter(|p| p.place == service);
        let (max, children) = (port.service.max as usize, children.count());
        if max > 0 && children >= max {
            return Err(format!("{service:?} has {children} children of {max}"));
        }
        let event = match self.kernel.spawn(service, generation) {
            Some(pid) => Event::Spawned {
                service,
                generation,
                pid,
            },
            None => Event::SpawnFailed {
                service,
                reason: NO_ROOM.into(),
            },
        };
        self.take_in(event);
        Ok(())
    }

    // What must hold.

    /// After every turn.
    fn check(&mut self) -> Result<(), Broken> {
        self.table.check()?;
        self.book.compare_watched(&self.table)?;
        let (wanted, found) = (self.book.next_deadline(), self.deadline());
        if wanted != found {
            return Err(format!("the next deadline is {wanted:?}, not {found:?}"));
        }
        let known = |pid| self.table.service_of(pid).is_some();
        let Kernel {
            processes,
            vanished,
            ..
        } = &self.kernel;
        let mut pids = processes.iter().map(|process| process.pid);
        if !pids.all(known) || self.table.pids().count() != processes.len() + vanished.len() {
            return Err("the table has other processes".into());
        }
        for (at, process) in processes.iter().enumerate() {
            let member = self.book.accounts[&process.place].members[&process.pid];
            let removed = self.kernel.port(process.place).is_none();
            if !removed && self.kernel.told(at) != member.leaving {
                return Err(format!("pid {} was told something else", process.pid));
            }
        }
        Ok(())
    }

    /// The master has ended, and so have its children.
    fn start_again(&mut self, verbose: bool) -> Result<(), Broken> {
        let next = Self::with(Kernel::at(self.kernel.now), self.lines.clone(), verbose);
        *self = Self {
            seen: self.seen,
            hangup: true,
            ..next
        };
        self.reload()?;
        self.settle()
    }

    // Liveness.

    /// Whether there was nothing else to do.
    fn sleep(&mut self) -> Result<bool, Broken> {
        let idle = self.kernel.connections().is_empty() && !self.hangup && self.stop.is_none();
        if !idle || !self.kernel.is_quiet() {
            return Ok(false);
        }
        let now = self.kernel.now;
        let at = self.deadline().unwrap_or(Time::MAX).min(now + TURN_MAX);
        self.kernel.pass(at.saturating_sub(now));
        self.turn(PARTS)?;
        Ok(true)
    }

    /// The faults end: everybody who waits is served, without more time than the throttle takes.
    fn calm(&mut self) -> Result<(), Broken> {
        self.kernel.calm = true;
        let paused = self.book.accounts.iter().filter(|(_, a)| a.paused);
        for service in paused.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.steer(Event::Resume { service })?;
        }
        self.turn(PARTS)?;
        let throttles = self.book.accounts.values().map(|a| a.throttled_until);
        let last = throttles.flatten().max().unwrap_or(self.kernel.now);
        for _ in 0..ROUNDS_MAX {
            if self.kernel.ports().all(|(_, port)| port.waiting == 0) {
                self.kernel.calm = false;
                return Ok(());
            }
            let lived = self.live_all();
            self.turn(PARTS)?;
            if !lived && !self.live_all() {
                self.sleep()?;
            }
            if self.kernel.now > last {
                break;
            }
        }
        Err("a client is not served".into())
    }

    /// Whether any process had something to do.
    fn live_all(&mut self) -> bool {
        let count = self.kernel.processes.len();
        (0..count).fold(false, |any, at| self.kernel.live(at) | any)
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
        Happening::Stale(_) => {
            let generation = own.generation.wrapping_sub(1);
            return kernel.write(at, Some(StatusReport { generation, ..own }));
        }
        Happening::Forge(_, other) => {
            let other = kernel.living(other);
            let claimed = other.map(|other| kernel.own_report(other, 1));
            return kernel.write(at, claimed);
        }
        Happening::Stray(_, endpoint) => return kernel.stray(at, endpoint),
        Happening::Unknown(_) => {
            let available = 2;
            return kernel.write(at, Some(StatusReport { available, ..own }));
        }
        Happening::Garbage(_) => return kernel.write(at, None),
        _ => return false,
    }
    true
}

/// Every record can be said.
fn said(line: &str) -> Result<(), Broken> {
    match line.is_empty() {
        true => Err("a record without words".into()),
        false => Ok(()),
    }
}
