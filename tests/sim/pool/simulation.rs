//! One ordered pool: the kernel and the children as they are, and the policy as it is driven by
//! the runtime. What the master was told is noted here a second time, in the most simple way.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use master::config::{Endpoint, Extra, Kind, Service};
use master::policy::{
    Action, Errno, Event, ExitStatus, OrderFailure, Pid, ServiceId, Signal, State, Table, Time,
};
use master::protocol::pool::{Order, Report};

use super::{Happening, NO_LIMITS, Settings};
use crate::coverage::Coverage;
use crate::happening::Steering;

type Broken = String;

const KILL_TIME: Duration = Duration::from_secs(3);
const THROTTLE_TIME: Duration = Duration::from_secs(20);
/// An order that is not answered holds others back no longer (master(8)).
const PATIENCE: Duration = Duration::from_millis(50);
/// Processes while there are faults; a pool without limit would go on for ever.
const PROCESSES_MAX: usize = 20;
/// Clients that can wait.
const BACKLOG: u32 = 6;
/// All timeouts of a rogue and those of a throttle, one after the other, are over before.
const CALM: Duration = Duration::from_secs(500);
const ROUNDS_MAX: usize = 20_000;
/// ENOMEM and EPIPE.
const NO_ROOM: Errno = Errno(12);
const BROKEN_PIPE: Errno = Errno(32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Has not executed its program, and does not.
    Hanging,
    Starting,
    Waiting,
    Ordered,
    Busy,
}

/// What a child says, the end of its channel included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Report(Report),
    Letter,
    Descriptors,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    phase: Phase,
    orders: VecDeque<Order>,
    /// Orders that the master keeps until they can be written.
    unwritten: VecDeque<Order>,
    words: VecDeque<Word>,
    /// The child's end of the channel, and the master's.
    open: bool,
    held: bool,
    stopped: bool,
    defiant: bool,
    /// Does nothing more by itself.
    rogue: bool,
    /// The master has read the end of its channel.
    end_read: bool,
    /// The master was told that it hangs.
    hang_reported: bool,
    /// The master has decided that it is to end.
    ending: bool,
    signal: Option<Signal>,
    end: Option<ExitStatus>,
    /// As the master knows it: said to be idle, and since when it has an order to answer.
    idle: bool,
    ordered_at: Option<Time>,
    /// And since when it has a client.
    busy_since: Option<Time>,
}

impl Process {
    fn new(pid: Pid) -> Self {
        Self {
            pid,
            phase: Phase::Starting,
            orders: VecDeque::new(),
            unwritten: VecDeque::new(),
            words: VecDeque::new(),
            open: true,
            held: true,
            stopped: false,
            defiant: false,
            rogue: false,
            end_read: false,
            hang_reported: false,
            ending: false,
            signal: None,
            end: None,
            idle: false,
            ordered_at: None,
            busy_since: None,
        }
    }

    fn say(&mut self, word: Word) {
        if self.open && self.held {
            self.words.push_back(word);
        }
    }

    /// The master does not count on it any more, whatever it says.
    fn no_longer_counts(&mut self) {
        self.ending = true;
        self.idle = false;
        self.busy_since = None;
        self.ordered_at = None;
    }

    fn end(&mut self, status: ExitStatus) {
        self.end = Some(status);
        self.open = false;
    }
}

/// What goes wrong at the next opportunity.
#[derive(Debug, Default)]
struct Faults {
    child: bool,
    write: bool,
    ping: bool,
    spawn: bool,
    watch: bool,
}

#[derive(Debug)]
pub struct Simulation {
    now: Time,
    table: Table,
    place: ServiceId,
    settings: Settings,
    /// Those in force.
    in_force: Settings,
    processes: Vec<Process>,
    waiting: u32,
    watched: bool,
    refused: bool,
    /// An operator has clients wait.
    paused: bool,
    steerings: Vec<Steering>,
    pub coverage: Coverage,
    /// Whether the system counts who waits.
    counts: bool,
    faults: Faults,
    reload: bool,
    /// How many actions a turn carries out, at its end; otherwise all are carried out at once.
    late: Option<u8>,
    /// What the table asked for and was not carried out yet.
    queue: VecDeque<Action>,
    /// Kept for its memory.
    actions: Vec<Action>,
    /// Starts and orders to end, for who counts them.
    pub started: u32,
    pub ended: u32,
}

impl Simulation {
    pub fn new() -> Self {
        let settings = Settings {
            max: 3,
            min_children: 1,
            min_idle: 1,
            max_idle: 2,
            double: false,
            limits: NO_LIMITS,
        };
        Self {
            now: Duration::from_secs(1),
            table: Table::new(KILL_TIME, true),
            place: ServiceId::from_index(0),
            settings,
            in_force: settings,
            processes: Vec::new(),
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
            Happening::ChildFails => self.faults.child = true,
            Happening::WriteWaits => self.faults.write = true,
            Happening::PingFails => self.faults.ping = true,
            Happening::SpawnFails => self.faults.spawn = true,
            Happening::WatchFails => self.faults.watch = true,
            Happening::Count => self.counts = !self.counts,
            Happening::Edit(settings) => self.settings = settings,
            Happening::Reload => self.reload = true,
            Happening::Steer(steering) => self.steerings.push(steering),
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
            // A child that has a client may take as long as it likes.
            Happening::Silence(nth) => self.happen(nth, |p| p.rogue |= p.phase != Phase::Busy),
            Happening::Letter(nth) => self.happen(nth, |p| {
                p.say(Word::Letter);
                p.rogue = true;
            }),
            Happening::Lie(nth) => self.happen(nth, |p| {
                let ordered = !p.orders.is_empty() || !p.unwritten.is_empty();
                let report = match p.phase {
                    // It could be what the master is about to ask for.
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

    /// The nth process that has not ended.
    fn nth(&self, nth: u8) -> Option<usize> {
        let living = (0..self.processes.len()).filter(|&at| self.processes[at].end.is_none());
        let living: Vec<usize> = living.collect();
        let nth = usize::from(nth).checked_rem(living.len())?;
        Some(living[nth])
    }

    fn happen(&mut self, nth: u8, what: impl FnOnce(&mut Process)) {
        if let Some(at) = self.nth(nth) {
            what(&mut self.processes[at]);
        }
    }

    /// What comes next in a process's life; whether anything did.
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
        for steering in std::mem::take(&mut self.steerings) {
            self.steer(steering)?;
        }
        // A configuration is taken up when all has been carried out.
        if self.queue.is_empty() && std::mem::take(&mut self.reload) {
            self.in_force = self.settings;
            let services = [Arc::new(service(self.settings))];
            let plan = self.table.plan(&services, KILL_TIME);
            self.step(Event::Reload(plan))?;
        }
        self.settle()?;
        for _ in 0..self.late.unwrap_or_default() {
            self.carry_out_next()?;
        }
        self.settle()?;
        self.check()
    }

    /// An operator has something to say.
    fn steer(&mut self, steering: Steering) -> Result<(), Broken> {
        match steering {
            Steering::Pause => self.paused = self.table.service(self.place).is_some(),
            Steering::Resume => self.paused = false,
            Steering::Replace | Steering::Wake => {}
        }
        self.step(steering.event(self.place))
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
            let Process { pid, end, .. } = self.processes.remove(at);
            let status = end.ok_or("a process that has ended")?;
            self.step(Event::Exited { pid, status })?;
        }
        let hangs = |p: &&mut Process| p.phase == Phase::Hanging && !p.hang_reported;
        while let Some(process) = self.processes.iter_mut().find(hangs) {
            process.hang_reported = true;
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

    /// Queues what the table asks for, and what the master knows then.
    fn take_actions(&mut self) -> Result<(), Broken> {
        for action in std::mem::take(&mut self.actions) {
            self.coverage.action(&action);
            match action {
                Action::Spawn { .. } if self.paused => {
                    return Err("a child for a service that is paused".into());
                }
                Action::Signal { pid, signal } => {
                    self.process(pid)?.no_longer_counts();
                    self.ended += u32::from(signal == Signal::Int);
                }
                Action::Order { pid, order } => self.check_order(pid, order)?,
                _ => {}
            }
            self.queue.push_back(action);
        }
        Ok(())
    }

    /// Everything, unless actions are late.
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

    /// What is about a child that has ended meanwhile is left out.
    fn act(&mut self, action: &Action) -> Result<(), Broken> {
        match *action {
            Action::Watch(_) => self.watch(),
            Action::Unwatch(_) => {
                self.refused = false;
                match std::mem::take(&mut self.watched) {
                    true => Ok(()),
                    false => Err("unwatched, and not watched before".into()),
                }
            }
            Action::Spawn {
                service,
                generation,
                ..
            } => self.spawn(service, generation),
            Action::Signal { pid, signal } => {
                if let Ok(process) = self.process(pid) {
                    process.signal = Some(signal);
                }
                Ok(())
            }
            Action::Order { pid, order } => self.order(pid, order),
            Action::CloseChannel { pid } => {
                while let Some(event) = self.next_word(pid) {
                    self.take_in(event)?;
                }
                if let Ok(process) = self.process(pid) {
                    process.held = false;
                    process.words.clear();
                }
                Ok(())
            }
            Action::Log(ref record) => match record.to_string().is_empty() {
                true => Err("a record without words".into()),
                false => Ok(()),
            },
            ref other => Err(format!("nobody asked for {other:?}")),
        }
    }

    fn process(&mut self, pid: Pid) -> Result<&mut Process, Broken> {
        let process = self.processes.iter_mut().find(|p| p.pid == pid);
        process.ok_or_else(|| format!("there is no process {pid}"))
    }

    fn watch(&mut self) -> Result<(), Broken> {
        if std::mem::replace(&mut self.watched, true) {
            return Err("watched twice".into());
        }
        self.refused = std::mem::take(&mut self.faults.watch);
        if self.refused {
            let (service, error) = (self.place, NO_ROOM);
            self.take_in(Event::WatchFailed { service, error })?;
        }
        Ok(())
    }

    fn spawn(&mut self, service: ServiceId, generation: u32) -> Result<(), Broken> {
        let max = self.in_force.max as usize;
        if max > 0 && self.processes.len() >= max {
            return Err(format!("one more than {max} children"));
        }
        let fails = std::mem::take(&mut self.faults.spawn);
        let event = match fails || self.processes.len() >= PROCESSES_MAX {
            true => Event::SpawnFailed {
                service,
                error: NO_ROOM,
            },
            false => {
                // The runtime does what is pending to the process that was meant.
                let pending = |pid| self.queue.iter().any(|action| pid_of(action) == Some(pid));
                let used = |&pid: &Pid| self.processes.iter().any(|p| p.pid == pid) || pending(pid);
                let pid = (100..).find(|pid| !used(pid)).ok_or("pids without end")?;
                self.processes.push(Process::new(pid));
                self.started += 1;
                Event::Spawned {
                    service,
                    generation,
                    pid,
                }
            }
        };
        self.take_in(event)
    }

    /// The table gives an order: it must be one that the child can be given.
    fn check_order(&mut self, pid: Pid, order: Order) -> Result<(), Broken> {
        let (now, paused) = (self.now, self.paused);
        if order != Order::Accept {
            return self.process(pid).map(|_| ());
        }
        if self.processes.iter().any(|p| p.idle && p.pid < pid) {
            return Err(format!(
                "{pid} is ordered, and not the idle child with the lowest pid"
            ));
        }
        let process = self.process(pid)?;
        let what = if paused {
            "while the service is paused"
        } else if !process.held {
            "whose channel is closed"
        } else if process.ordered_at.is_some() {
            "which has not answered the one before"
        } else if !process.idle {
            "which is not idle"
        } else {
            process.idle = false;
            process.ordered_at = Some(now);
            return Ok(());
        };
        Err(format!("an order for {pid}, {what}"))
    }

    fn order(&mut self, pid: Pid, order: Order) -> Result<(), Broken> {
        let fails = match order {
            Order::Accept => std::mem::take(&mut self.faults.child),
            Order::Ping => std::mem::take(&mut self.faults.ping),
        };
        let waits = std::mem::take(&mut self.faults.write);
        let Ok(process) = self.process(pid) else {
            return Ok(());
        };
        let failure = if !process.held {
            OrderFailure::NoChannel
        } else if fails || !process.open {
            OrderFailure::System(BROKEN_PIPE)
        } else {
            match waits || !process.unwritten.is_empty() {
                true => process.unwritten.push_back(order),
                false => process.orders.push_back(order),
            }
            return Ok(());
        };
        self.take_in(Event::OrderFailed { pid, failure })
    }

    /// Equal for worlds that differ only in pids and in the time of day.
    pub fn fingerprint(&mut self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let (now, until) = (self.now, self.table.next_deadline());
        until.map(|at| at.saturating_sub(now)).hash(&mut hasher);
        let throttled = self.table.service(self.place).map(|s| s.throttled());
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
            // Their words are few and have no pid in them.
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

    // What must hold.

    /// After the deadlines have had their turn.
    fn check_clients_time(&self) -> Result<(), Broken> {
        let limit = self.in_force.limits.request_timeout;
        let too_long = |p: &Process| {
            let ends = p.busy_since.zip(limit).map(|(since, limit)| since + limit);
            ends.is_some_and(|at| at <= self.now)
        };
        match self.processes.iter().find(|p| too_long(p)) {
            Some(process) => Err(format!("{} has its client for too long", process.pid)),
            None => Ok(()),
        }
    }

    /// After every turn.
    fn check(&self) -> Result<(), Broken> {
        self.table.check()?;
        let Some(service) = self.table.service(self.place) else {
            return Ok(());
        };
        let idle = self.processes.iter().filter(|p| p.idle).count();
        let found = (service.avail() as usize, service.total() as usize);
        if found != (idle, self.processes.len()) {
            let expected = (idle, self.processes.len());
            return Err(format!(
                "(idle, total) is {found:?} and should be {expected:?}"
            ));
        }
        if self.queue.is_empty() && service.listening() != self.watched {
            return Err("the table believes something else to be watched".into());
        }
        let recent = |p: &Process| p.ordered_at.is_some_and(|at| self.now < at + PATIENCE);
        let excused = self.watched
            || self.refused
            || !self.queue.is_empty()
            || self.processes.iter().any(recent);
        let blind = self.refused || service.throttled();
        if self.queue.is_empty() && self.paused && self.watched {
            return Err("a paused service is watched".into());
        }
        if self.waiting > 0 && idle > 0 && !excused && !blind && !self.paused {
            return Err("a client waits although a child is idle".into());
        }
        Ok(())
    }

    // Liveness.

    fn sleep(&mut self) -> Result<(), Broken> {
        let hangs = |p: &Process| p.phase == Phase::Hanging && !p.hang_reported;
        let talking =
            |p: &Process| hangs(p) || p.held && (!p.words.is_empty() || !p.open && !p.end_read);
        let busy = self.watched && self.waiting > 0 && !self.refused;
        if !busy && !self.processes.iter().any(|p| talking(p) || p.end.is_some()) {
            if let Some(at) = self.table.next_deadline() {
                self.now = self.now.max(at);
            }
        }
        self.turn()
    }

    fn calm(&mut self) -> Result<(), Broken> {
        self.faults = Faults::default();
        self.late = None;
        self.steerings.push(Steering::Resume);
        for process in &mut self.processes {
            process.stopped = false;
            process.defiant = false;
        }
        let end = self.now + CALM;
        let mut served = false;
        for _ in 0..ROUNDS_MAX {
            served |= self.waiting == 0;
            if self.now >= end {
                break;
            }
            let count = self.processes.len();
            let lived = (0..count).fold(false, |any, at| self.live(at) | any);
            match lived {
                true => self.turn()?,
                false => self.sleep()?,
            }
        }
        if self.table.service(self.place).is_none() {
            return Ok(());
        }
        match served {
            true => self.check_rest(),
            false => Err("a client is not served".into()),
        }
    }

    /// The pool rests: it is within its bounds.
    fn check_rest(&self) -> Result<(), Broken> {
        let Settings {
            max,
            min_children,
            min_idle,
            max_idle,
            ..
        } = self.in_force;
        let state = |p: &Process| self.table.state_of(p.pid);
        let states: Vec<_> = self.processes.iter().filter_map(state).collect();
        let total = states.len() as u32;
        let idle = states.iter().filter(|s| **s == State::Idle).count() as u32;
        let most = if max == 0 { u32::MAX } else { max };
        let rest = states
            .iter()
            .all(|s| matches!(s, State::Idle | State::Busy));
        let enough = idle >= min_idle || total == most;
        let surplus = idle > max_idle && total > min_children;
        match rest && total >= min_children && total <= most && enough && !surplus {
            true => Ok(()),
            false => Err(format!("at rest: {states:?} under {:?}", self.in_force)),
        }
    }
}

/// The process that an action is about.
fn pid_of(action: &Action) -> Option<Pid> {
    match *action {
        Action::Signal { pid, .. } | Action::Order { pid, .. } | Action::CloseChannel { pid } => {
            Some(pid)
        }
        _ => None,
    }
}

/// The next step of a child that keeps to the rules; whether there was one.
fn advance(process: &mut Process, waiting: &mut u32) -> bool {
    match process.phase {
        Phase::Hanging => return false,
        _ if !process.held => process.end(ExitStatus::Code(0)),
        Phase::Starting => {
            process.phase = Phase::Waiting;
            process.say(Word::Report(Report::Idle));
        }
        Phase::Waiting => match process.orders.pop_front() {
            None => return false,
            Some(Order::Ping) => {}
            Some(Order::Accept) => process.phase = Phase::Ordered,
        },
        Phase::Ordered => {
            // Another child may have been faster.
            *waiting = waiting.saturating_sub(1);
            process.phase = Phase::Busy;
            process.say(Word::Report(Report::Busy));
        }
        Phase::Busy => {
            process.phase = Phase::Waiting;
            process.say(Word::Report(Report::Idle));
        }
    }
    true
}

/// What the parser would make of the settings.
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
        }
        .boxed(),
        line: 1,
    }
}
