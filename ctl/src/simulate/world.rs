//! One service in simulated time: the master's policy decides, and a simple model takes the place of
//! the kernel, the children and the clients.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use master::config::Service;
use master::policy::{Action, Event, ExitStatus, Pid, Progress, ServiceId, Table, Time};
use master::protocol::StatusReport;

use super::load::Load;

/// How long clients can wait whose wait counts, after the simulated time.
const AFTERWARDS: Duration = Duration::from_secs(3600);

/// How children behave.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// From the start of a child until it takes its first client.
    pub start: Duration,
    /// Clients that a child serves before it leaves; 0 is no limit.
    pub max_use: u32,
    /// How long a child waits for a client before it leaves.
    pub max_idle: Duration,
    /// The time for a client of a child that was started in stress mode, at the most.
    pub stress_time: Option<Duration>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long each client waited for a child, in ascending order.
    pub waits: Vec<Duration>,
    /// Clients that found the listener's queue full.
    pub refused: u64,
    /// Children that were started.
    pub starts: u64,
    /// How long as many children as the limit allows were there.
    pub at_limit: Duration,
    /// How long the service was in stress mode.
    pub stressed: Duration,
    /// The most children at a time.
    pub most_children: usize,
    /// The sum of all children's lives.
    pub child_time: Duration,
    /// The simulated time.
    pub time: Duration,
}

impl Outcome {
    /// The wait that `percent` of the clients did not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.waits.len() * percent).div_ceil(100).saturating_sub(1);
        self.waits.get(at).copied().unwrap_or_default()
    }
}

/// Simulates the service for `period`, after a `warm_up` of which nothing counts.
pub fn simulate(
    service: Arc<Service>,
    mut load: Load,
    manners: Manners,
    warm_up: Duration,
    period: Duration,
) -> Outcome {
    let mut world = World::new(service, manners);
    let first = load.next_arrival(Time::ZERO);
    world.calendar.add(first, Happening::Arrival);
    world.run(&mut load, warm_up);
    world.outcome = Outcome {
        most_children: world.children.len(),
        ..Outcome::default()
    };
    world.run(&mut load, warm_up + period);
    let mut outcome = world.outcome.clone();
    // Clients that are in the queue at the end are still served, so that their waits are known.
    world.closed = true;
    world.run(&mut load, warm_up + period + AFTERWARDS);
    outcome.waits = world.outcome.waits;
    outcome.waits.sort_unstable();
    outcome
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrival,
    Started(Pid),
    Served(Pid),
    /// The child has been idle since its client of this number.
    IdleSince(Pid, u32),
}

/// What will happen, in the order of time.
#[derive(Debug, Default)]
struct Calendar {
    heap: BinaryHeap<Reverse<(Time, u64, Happening)>>,
    added: u64,
}

impl Calendar {
    fn add(&mut self, at: Time, happening: Happening) {
        self.added += 1;
        self.heap.push(Reverse((at, self.added, happening)));
    }

    fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next of what is due.
    fn take(&mut self, now: Time) -> Option<Happening> {
        self.next().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse((.., happening))| happening)
    }
}

#[derive(Debug)]
struct Child {
    generation: u32,
    stress: bool,
    uses: u32,
    busy: bool,
    /// It leaves when it has finished with its client.
    told: bool,
}

#[derive(Debug)]
struct World {
    table: Table,
    service: Arc<Service>,
    id: ServiceId,
    manners: Manners,
    now: Time,
    calendar: Calendar,
    /// When the clients in the listener's queue have come.
    queue: VecDeque<Time>,
    watched: bool,
    /// No client comes any more.
    closed: bool,
    children: BTreeMap<Pid, Child>,
    /// Children that wait for a client. The last one takes the next client.
    idle: Vec<Pid>,
    last_pid: Pid,
    outcome: Outcome,
}

impl World {
    fn new(service: Arc<Service>, manners: Manners) -> Self {
        let table = Table::new(Duration::from_secs(10), false);
        let plan = table.plan(std::slice::from_ref(&service), Duration::from_secs(10));
        let id = plan.entries[0].id;
        let mut world = Self {
            table,
            service,
            id,
            manners,
            now: Time::ZERO,
            calendar: Calendar::default(),
            queue: VecDeque::new(),
            watched: false,
            closed: false,
            children: BTreeMap::new(),
            idle: Vec::new(),
            last_pid: 0,
            outcome: Outcome::default(),
        };
        world.step(Event::Reload(plan));
        world
    }

    fn run(&mut self, load: &mut Load, until: Time) {
        while let Some(next) = self.next().filter(|next| *next <= until) {
            if self.closed && self.queue.is_empty() {
                return;
            }
            self.pass_time(next);
            if self.table.next_deadline().is_some_and(|at| at <= next) {
                self.step(Event::Deadline);
            }
            while let Some(happening) = self.calendar.take(next) {
                self.happen(happening, load);
            }
            self.settle(load);
        }
        self.pass_time(until);
    }

    fn next(&mut self) -> Option<Time> {
        let deadline = self.table.next_deadline();
        self.calendar.next().into_iter().chain(deadline).min()
    }

    fn pass_time(&mut self, to: Time) {
        let passed = to.saturating_sub(self.now);
        let count = self.children.len();
        self.outcome.child_time += passed * u32::try_from(count).unwrap_or(u32::MAX);
        if self.service.max > 0 && count >= self.service.max as usize {
            self.outcome.at_limit += passed;
        }
        if self.table.service(self.id).is_some_and(|s| s.stressed()) {
            self.outcome.stressed += passed;
        }
        self.outcome.time += passed;
        self.now = to;
    }

    fn happen(&mut self, happening: Happening, load: &mut Load) {
        match happening {
            Happening::Arrival if self.closed => {}
            Happening::Arrival => {
                self.calendar
                    .add(load.next_arrival(self.now), Happening::Arrival);
                if self.queue.len() > self.service.backlog as usize {
                    self.outcome.refused += 1;
                } else {
                    self.queue.push_back(self.now);
                }
            }
            Happening::Started(pid) => self.wait_for_client(pid),
            Happening::Served(pid) => {
                self.report(pid, 1);
                let max_use = self.manners.max_use;
                let child = self.children.get(&pid);
                if child.is_some_and(|child| max_use > 0 && child.uses >= max_use) {
                    self.exit(pid);
                } else {
                    self.wait_for_client(pid);
                }
            }
            Happening::IdleSince(pid, uses) => {
                let child = self.children.get(&pid);
                if child.is_some_and(|child| !child.busy && child.uses == uses) {
                    self.exit(pid);
                }
            }
        }
    }

    fn wait_for_client(&mut self, pid: Pid) {
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        child.busy = false;
        if child.told {
            return self.exit(pid);
        }
        self.idle.push(pid);
        let at = self.now + self.manners.max_idle;
        self.calendar.add(at, Happening::IdleSince(pid, child.uses));
    }

    /// Children take clients, and the policy does what it does, until nothing is left to do now.
    fn settle(&mut self, load: &mut Load) {
        loop {
            while !self.queue.is_empty() && self.serve_next(load) {}
            let mut actions = Vec::new();
            self.table.settle(self.now, &mut actions);
            self.carry_out(actions);
            if !self.watched || self.queue.is_empty() {
                return;
            }
            let (service, clients) = (self.id, 1);
            if !self.step(Event::Connection { service, clients }) {
                return;
            }
        }
    }

    /// Whether an idle child has taken the next client.
    fn serve_next(&mut self, load: &mut Load) -> bool {
        let Some(pid) = self.idle.pop() else {
            return false;
        };
        let (Some(child), Some(came)) = (self.children.get_mut(&pid), self.queue.pop_front())
        else {
            return false;
        };
        child.busy = true;
        child.uses += 1;
        let limit = self.manners.stress_time.filter(|_| child.stress);
        let time = load.next_time().min(limit.unwrap_or(Duration::MAX));
        self.outcome.waits.push(self.now - came);
        self.calendar.add(self.now + time, Happening::Served(pid));
        self.report(pid, 0);
        true
    }

    fn report(&mut self, pid: Pid, available: i32) {
        let Some(child) = self.children.get(&pid).filter(|child| !child.told) else {
            return;
        };
        let generation = child.generation;
        let report = StatusReport {
            pid,
            generation,
            available,
        };
        self.step(Event::Report {
            service: self.id,
            writer: pid,
            report: Ok(report),
        });
    }

    fn exit(&mut self, pid: Pid) {
        self.idle.retain(|idle| *idle != pid);
        if self.children.remove(&pid).is_some() {
            let status = ExitStatus::Code(0);
            let progress = Progress::Made;
            self.step(Event::Exited {
                pid,
                status,
                progress,
            });
        }
    }

    /// Whether the policy has asked for something.
    fn step(&mut self, event: Event) -> bool {
        let mut actions = Vec::new();
        self.table.step(self.now, event, &mut actions);
        let some = !actions.is_empty();
        self.carry_out(actions);
        some
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Watch(_) => self.watched = true,
                Action::Unwatch(_) | Action::Close(_) => self.watched = false,
                Action::Spawn {
                    generation, stress, ..
                } => self.spawn(generation, stress),
                Action::CloseChannel { pid } | Action::Signal { pid, .. } => self.tell(pid),
                // A wake-up is no client, and a shared listener has no orders.
                Action::Wake(_) | Action::Order { .. } => {}
                // The simulated children use no memory.
                Action::Terminate { .. } | Action::Log(_) | Action::Measure { .. } => {}
            }
        }
    }

    fn spawn(&mut self, generation: u32, stress: bool) {
        self.last_pid += 1;
        let pid = self.last_pid;
        let child = Child {
            generation,
            stress,
            uses: 0,
            // Until it is ready it takes no client, and does not leave for want of one.
            busy: true,
            told: false,
        };
        self.children.insert(pid, child);
        self.outcome.starts += 1;
        self.outcome.most_children = self.outcome.most_children.max(self.children.len());
        let at = self.now + self.manners.start;
        self.calendar.add(at, Happening::Started(pid));
        self.step(Event::Spawned {
            service: self.id,
            generation,
            pid,
        });
    }

    fn tell(&mut self, pid: Pid) {
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        child.told = true;
        if !child.busy {
            self.exit(pid);
        }
    }
}
