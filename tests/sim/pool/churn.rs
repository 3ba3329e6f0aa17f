//! A steady load on an ordered pool: the number of children that are started and ended in an hour,
//! by our rules and by those of SpamAssassin's `SpamdForkScaling.pm`, in comparison.
//!
//! Clients come at random (Poisson), with random service times (exponential); a child takes two
//! seconds to start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use master::policy::{Action, Event, ExitStatus, Pid, Progress, ServiceId, Signal, Table, Time};
use master::protocol::pool::{Order, Report};

use super::{NO_LIMITS, Settings, simulation};
use crate::Outcome;
use crate::options::Options;
use crate::random::Random;

const SETTINGS: Settings = Settings {
    max: 40,
    min_children: 1,
    min_idle: 1,
    max_idle: 3,
    double: false,
    preload: false,
    limits: NO_LIMITS,
};
/// The mean interval between clients and the mean service time: eight clients at a time on average.
const BETWEEN: Duration = Duration::from_millis(25);
const TAKES: Duration = Duration::from_millis(200);
const STARTS: Duration = Duration::from_secs(2);
/// The time until the pool's size is stable; then it is measured for an hour.
const WARM_UP: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);

/// An event for a parent.
enum Fact {
    Connection,
    Said(Pid, Report),
    Ended(Pid),
    Started(Pid),
    Deadline,
}

/// A request of a parent.
enum Wish {
    Start,
    End(Pid),
    Accept(Pid),
}

trait Parent {
    fn hear(&mut self, now: Time, fact: Fact) -> Vec<Wish>;
    /// Whether it needs connection events.
    fn listens(&self) -> bool;
    fn deadline(&mut self) -> Option<Time>;
}

/// Our policy.
struct Ours {
    table: Table,
    listens: bool,
}

const PLACE: usize = 0;

impl Ours {
    fn new() -> Self {
        let table = Table::new(Duration::from_secs(10), false);
        let listens = false;
        Self { table, listens }
    }

    fn event(&self, fact: Fact) -> Event {
        let service = ServiceId::from_index(PLACE);
        match fact {
            Fact::Connection => Event::Connection {
                service,
                clients: 1,
            },
            Fact::Said(pid, report) => Event::PoolReport { pid, report },
            Fact::Ended(pid) => Event::Exited {
                pid,
                status: ExitStatus::Signal(2),
                progress: Progress::Unknown,
            },
            Fact::Started(pid) => Event::Spawned {
                service,
                generation: 1,
                pid,
            },
            Fact::Deadline if self.table.services().next().is_none() => {
                let services = [Arc::new(simulation::service(SETTINGS))];
                Event::Reload(self.table.plan(&services, Duration::from_secs(10)))
            }
            Fact::Deadline => Event::Deadline,
        }
    }
}

impl Parent for Ours {
    fn hear(&mut self, now: Time, fact: Fact) -> Vec<Wish> {
        let mut actions = Vec::new();
        let event = self.event(fact);
        self.table.step(now, event, &mut actions);
        self.table.settle(now, &mut actions);
        let mut wishes = Vec::new();
        for action in actions {
            match action {
                Action::Watch(_) => self.listens = true,
                Action::Unwatch(_) => self.listens = false,
                Action::Spawn { .. } => wishes.push(Wish::Start),
                Action::Order {
                    pid,
                    order: Order::Accept,
                } => wishes.push(Wish::Accept(pid)),
                Action::Signal {
                    pid,
                    signal: Signal::Int,
                } => wishes.push(Wish::End(pid)),
                _ => {}
            }
        }
        wishes
    }

    fn listens(&self) -> bool {
        self.listens
    }

    fn deadline(&mut self) -> Option<Time> {
        self.table.next_deadline()
    }
}

/// The module's rules, and those of spamd for filling its pool.
#[derive(Default)]
struct Spamds {
    children: BTreeSet<Pid>,
    idle: BTreeSet<Pid>,
    overloaded: bool,
}

impl Spamds {
    fn accept(&mut self, wishes: &mut Vec<Wish>) {
        match self.idle.pop_first() {
            Some(pid) => wishes.push(Wish::Accept(pid)),
            None => self.overloaded = true,
        }
    }

    fn adapt(&mut self, wishes: &mut Vec<Wish>) {
        let (idle, total) = (self.idle.len() as u32, self.children.len() as u32);
        if idle < SETTINGS.min_idle {
            if total < SETTINGS.max {
                wishes.push(Wish::Start);
            }
        } else if idle > SETTINGS.max_idle && total > SETTINGS.min_children {
            wishes.extend(self.idle.pop_last().map(Wish::End));
        }
    }
}

impl Parent for Spamds {
    fn hear(&mut self, _: Time, fact: Fact) -> Vec<Wish> {
        let mut wishes = Vec::new();
        match fact {
            Fact::Connection => self.accept(&mut wishes),
            Fact::Said(pid, Report::Idle) => {
                self.idle.insert(pid);
                if std::mem::take(&mut self.overloaded) {
                    self.accept(&mut wishes);
                }
                self.adapt(&mut wishes);
            }
            // The parent blocks until this report comes.
            Fact::Said(_, Report::Busy) => {}
            Fact::Ended(pid) => {
                self.children.remove(&pid);
            }
            Fact::Started(pid) => {
                self.children.insert(pid);
            }
            Fact::Deadline => {}
        }
        if matches!(fact, Fact::Ended(_) | Fact::Deadline | Fact::Started(_)) {
            let missing = (SETTINGS.max_idle as usize).saturating_sub(self.children.len());
            wishes.extend((0..missing.min(1)).map(|_| Wish::Start));
        }
        wishes
    }

    fn listens(&self) -> bool {
        !self.overloaded
    }

    fn deadline(&mut self) -> Option<Time> {
        None
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Client,
    Ready(Pid),
    Served(Pid),
    End(Pid),
}

/// The simulation around a parent.
struct Steady<P> {
    parent: P,
    now: Time,
    random: Random,
    due: BinaryHeap<Reverse<(Time, Due)>>,
    waiting: u32,
    busy: BTreeMap<Pid, bool>,
    next_pid: Pid,
    started: u32,
    ended: u32,
}

impl<P: Parent> Steady<P> {
    fn new(parent: P) -> Self {
        Self {
            parent,
            now: Duration::from_secs(1),
            random: Random::new(1),
            due: BinaryHeap::new(),
            waiting: 0,
            busy: BTreeMap::new(),
            next_pid: 100,
            started: 0,
            ended: 0,
        }
    }

    /// The number of starts and ends in an hour after the size is stable.
    fn hour(mut self) -> (u32, u32) {
        self.hear(Fact::Deadline);
        self.come();
        self.run_until(WARM_UP);
        (self.started, self.ended) = (0, 0);
        self.run_until(WARM_UP + HOUR);
        (self.started, self.ended)
    }

    fn run_until(&mut self, end: Time) {
        loop {
            let happens = self.due.peek().map(|Reverse((at, _))| *at);
            let deadline = self.parent.deadline();
            let next = happens.into_iter().chain(deadline).min();
            let Some(next) = next.filter(|&at| at <= end) else {
                return;
            };
            self.now = self.now.max(next);
            if deadline == Some(next) {
                self.hear(Fact::Deadline);
            } else if let Some(Reverse((_, due))) = self.due.pop() {
                self.happen(due);
            }
            while self.waiting > 0 && self.parent.listens() {
                let before = self.waiting;
                self.hear(Fact::Connection);
                if self.waiting == before {
                    break;
                }
            }
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Client => {
                self.waiting += 1;
                self.come();
            }
            Due::Ready(pid) | Due::Served(pid) => {
                if self.busy.insert(pid, false).is_some() {
                    self.hear(Fact::Said(pid, Report::Idle));
                }
            }
            Due::End(pid) => {
                self.busy.remove(&pid);
                self.hear(Fact::Ended(pid));
            }
        }
    }

    /// Schedules the next client.
    fn come(&mut self) {
        let after = self.about(BETWEEN);
        self.due.push(Reverse((self.now + after, Due::Client)));
    }

    fn about(&mut self, mean: Duration) -> Duration {
        const PARTS: u32 = 1 << 24;
        let part = f64::from(self.random.below(PARTS) + 1) / f64::from(PARTS);
        mean.mul_f64(-part.ln())
    }

    fn hear(&mut self, fact: Fact) {
        let mut wishes = self.parent.hear(self.now, fact);
        while let Some(wish) = wishes.pop() {
            let facts = self.grant(wish);
            for fact in facts {
                wishes.extend(self.parent.hear(self.now, fact));
            }
        }
    }

    fn grant(&mut self, wish: Wish) -> Vec<Fact> {
        match wish {
            Wish::Start => {
                self.next_pid += 1;
                self.started += 1;
                let pid = self.next_pid;
                self.busy.insert(pid, true);
                let ready = self.now + STARTS;
                self.due.push(Reverse((ready, Due::Ready(pid))));
                vec![Fact::Started(pid)]
            }
            Wish::End(pid) => {
                self.ended += 1;
                self.due.push(Reverse((self.now, Due::End(pid))));
                Vec::new()
            }
            Wish::Accept(pid) => {
                self.waiting = self.waiting.saturating_sub(1);
                self.busy.insert(pid, true);
                let takes = self.about(TAKES);
                self.due.push(Reverse((self.now + takes, Due::Served(pid))));
                vec![Fact::Said(pid, Report::Busy)]
            }
        }
    }
}

/// Compares the two parents.
pub fn run(options: &Options) -> Outcome {
    if !options.choose("steady load", "") {
        return Ok("no steady load".into());
    }
    let ours = Steady::new(Ours::new()).hour();
    let spamds = Steady::new(Spamds::default()).hour();
    let text = format!(
        "an hour of steady load: ours starts {} children and ends {}, by spamd's rules {} and {}",
        ours.0, ours.1, spamds.0, spamds.1
    );
    if (ours.0 + ours.1) * 20 <= spamds.0 + spamds.1 {
        Ok(text)
    } else {
        Err(text)
    }
}
