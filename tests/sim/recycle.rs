//! Children that share their listeners and are recycled, in a small world: each takes clients, uses
//! memory, gets older, and leaves when it is told to, some of them late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use master::config::{self, ChildLimits, Endpoint, Extra, Pool};
use master::policy::{Action, Event, ExitStatus, Kind, Pid, Progress, ServiceId, Table, Time};
use master::protocol::StatusReport;

use crate::Outcome;
use crate::options::Options;
use crate::random::Random;

const RUNS: u64 = 40;
const STEPS: u32 = 2_000;
/// The most children that leave at a time, as the manual promises.
const LEAVING_MAX: usize = 3;
const USES: u32 = 5;
const AGE: Duration = Duration::from_secs(100);
const MEMORY: u64 = 1 << 20;
/// How long the slowest child takes to leave.
const SLOW: Duration = Duration::from_secs(20);
const PLACE: usize = 0;

#[derive(Debug)]
struct Child {
    generation: u32,
    busy: bool,
    uses: u32,
    memory: u64,
    /// What the master was told last.
    measured: u64,
    started: Time,
    /// It was told to leave, and does so then.
    leaves: Option<Time>,
    /// Whether it was recycled.
    recycled: bool,
}

#[derive(Debug)]
struct World {
    table: Table,
    now: Time,
    random: Random,
    children: BTreeMap<Pid, Child>,
    next_pid: Pid,
    /// Children that have left because of their uses, age, and memory.
    left: u32,
}

fn service(random: &mut Random) -> config::Service {
    let limits = ChildLimits {
        max_uses: Some(USES),
        max_age: Some(AGE),
        memory_recycle: Some(MEMORY),
        ..ChildLimits::DEFAULT
    };
    let pool = Pool {
        min_idle: random.below(4),
        ..Pool::default()
    };
    config::Service {
        name: "shared".into(),
        kind: config::Kind::Unix,
        canonical: "private/shared".into(),
        endpoint: Endpoint::Path("private/shared".into()),
        unprivileged: true,
        chroot: false,
        wakeup: None,
        max: random.pick(&[0, 4, 20]),
        command: "child".into(),
        path: "/child".into(),
        args: Vec::new(),
        backlog: 100,
        throttle_time: Duration::from_secs(60),
        extra: Extra {
            pool,
            limits,
            ..Extra::default()
        }
        .boxed(),
        table: std::path::Path::new("master.cf").into(),
        line: 1,
    }
}

impl World {
    fn new(seed: u64) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let mut table = Table::new(Duration::from_secs(10), true);
        table.seed(seed);
        let plan = table.plan(&[Arc::new(service(&mut random))], Duration::from_secs(10));
        let mut world = Self {
            table,
            now: Duration::from_secs(1),
            random,
            children: BTreeMap::new(),
            next_pid: 100,
            left: 0,
        };
        world.step(Event::Reload(plan))?;
        Ok(world)
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        let mut actions = Vec::new();
        self.table.step(self.now, event, &mut actions);
        self.table.settle(self.now, &mut actions);
        self.table.check()?;
        for action in actions {
            self.carry_out(action)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Spawn { generation, .. } => {
                self.next_pid += 1;
                let pid = self.next_pid;
                let child = Child {
                    generation,
                    busy: false,
                    uses: 0,
                    memory: 0,
                    measured: 0,
                    started: self.now,
                    leaves: None,
                    recycled: false,
                };
                self.children.insert(pid, child);
                let service = ServiceId::from_index(PLACE);
                self.step(Event::Spawned {
                    service,
                    generation,
                    pid,
                })?;
            }
            Action::Log(record) => {
                if let (Kind::Recycled(_), Some(pid)) = (&record.kind, record.child) {
                    self.told(pid, &record.to_string())?;
                }
            }
            Action::CloseChannel { pid } => {
                let takes = self.random.below(SLOW.as_millis() as u32);
                let now = self.now;
                if let Some(child) = self.children.get_mut(&pid) {
                    child.leaves = Some(now + Duration::from_millis(takes.into()));
                }
            }
            Action::Measure { pid } => {
                if let Some(child) = self.children.get_mut(&pid) {
                    child.measured = child.memory;
                    let bytes = child.memory;
                    self.step(Event::Measured { pid, bytes })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A child is recycled: with a reason, without a client, and with few others.
    fn told(&mut self, pid: Pid, why: &str) -> Result<(), String> {
        let now = self.now;
        let child = self.children.get_mut(&pid).ok_or("no such child")?;
        let is_old = now - child.started >= AGE * 9 / 10;
        if child.uses < USES && !is_old && child.measured <= MEMORY {
            return Err(format!("without a reason: {why}"));
        }
        if child.busy {
            return Err(format!("with its client: {why}"));
        }
        child.recycled = true;
        let leaving = self.children.values().filter(|child| child.recycled);
        if leaving.count() > LEAVING_MAX {
            return Err(format!("more than {LEAVING_MAX} at a time: {why}"));
        }
        Ok(())
    }

    fn report(&mut self, pid: Pid, busy: bool) -> Result<(), String> {
        let Some(child) = self.children.get_mut(&pid) else {
            return Ok(());
        };
        child.busy = busy;
        child.uses += u32::from(!busy);
        let report = StatusReport {
            pid,
            generation: child.generation,
            available: (!busy).into(),
        };
        // The channel of one that leaves is closed.
        if child.leaves.is_some() {
            return Ok(());
        }
        self.step(Event::Report {
            service: ServiceId::from_index(PLACE),
            writer: pid,
            report: Ok(report),
        })
    }

    /// Lets time pass, with all that is due.
    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        loop {
            let leaves = self.children.iter();
            let leaves = leaves.filter_map(|(pid, child)| Some((child.leaves?, *pid, child.busy)));
            let next = leaves.filter(|(_, _, busy)| !busy).min();
            let deadline = self.table.next_deadline();
            let first = next.map(|(at, ..)| at).into_iter().chain(deadline).min();
            let Some(first) = first.filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(first);
            match next.filter(|(at, ..)| *at <= self.now) {
                Some((_, pid, _)) => {
                    let child = self.children.remove(&pid);
                    self.left += u32::from(child.is_some_and(|child| child.recycled));
                    self.step(Event::Exited {
                        pid,
                        status: ExitStatus::Code(0),
                        progress: Progress::Made,
                    })?;
                }
                None => self.step(Event::Deadline)?,
            }
        }
        self.now = end;
        Ok(())
    }

    fn any(&mut self, busy: bool) -> Option<Pid> {
        let fit = self.children.iter().filter(|(_, child)| child.busy == busy);
        let pids: Vec<_> = fit.map(|(pid, _)| *pid).collect();
        (!pids.is_empty()).then(|| self.random.pick(&pids))
    }

    fn happen(&mut self) -> Result<(), String> {
        match self.random.below(8) {
            0 | 1 => {
                let idle = self.any(false);
                idle.map_or(Ok(()), |pid| self.report(pid, true))?;
            }
            2 | 3 => {
                let busy = self.any(true);
                busy.map_or(Ok(()), |pid| self.report(pid, false))?;
            }
            4 if self
                .table
                .service(ServiceId::from_index(PLACE))
                .is_some_and(|s| s.listening()) =>
            {
                let (service, clients) = (ServiceId::from_index(PLACE), 1);
                self.step(Event::Connection { service, clients })?;
            }
            5 => {
                let any = self.any(true);
                if let Some(child) = any.and_then(|pid| self.children.get_mut(&pid)) {
                    child.memory = self.random.pick(&[MEMORY / 2, MEMORY, MEMORY + 1]);
                }
            }
            _ => {
                let time = Duration::from_millis(self.random.below(2000).into());
                self.pass(time)?;
            }
        }
        Ok(())
    }

    /// All clients are served: no child that should have left is there after a while.
    fn calm(&mut self) -> Result<(), String> {
        while let Some(pid) = self.any(true) {
            self.report(pid, false)?;
        }
        let all = self.children.len() as u32;
        let due = self.children.iter().filter(|(_, child)| child.uses >= USES);
        let due: Vec<_> = due.map(|(pid, _)| *pid).collect();
        self.pass(SLOW * (all / LEAVING_MAX as u32 + 2))?;
        match due.iter().find(|pid| self.children.contains_key(pid)) {
            Some(pid) => Err(format!("process {pid} was not recycled")),
            None => Ok(()),
        }
    }
}

fn simulate(seed: u64) -> Result<u32, String> {
    let mut world = World::new(seed)?;
    for _ in 0..STEPS {
        world.happen()?;
    }
    world.calm()?;
    Ok(world.left)
}

pub fn run(options: &Options) -> Outcome {
    if !options.choose("recycling", "") {
        return Ok("no recycling".into());
    }
    let mut left = 0;
    for seed in options.seed..options.seed + RUNS {
        left += simulate(seed).map_err(|what| format!("recycling, seed {seed}: {what}"))?;
    }
    if left < 1000 {
        return Err(format!("recycling: only {left} children were recycled"));
    }
    Ok(format!("recycling: {left} children in {RUNS} runs"))
}
