//! The rules, one test each. A fixture is a table and what it asked for; its clock is a number.

mod backoff;
mod check;
mod deadlines;
mod ends;
mod faults;
mod listening;
mod operator;
mod ordered;
mod progress;
mod records;
mod recycle;
mod reloads;
mod reports;
mod statistics;
mod stress;
mod table;
mod wakeups;
mod warm;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::timers::Timers;
use super::*;
use crate::config::{self, ChildLimits, Endpoint, Extra, Kind as Type, Pool, Wakeup};
use crate::protocol::StatusReport;
use crate::protocol::pool::{Order, Report};

const SECOND: Duration = Duration::from_secs(1);
const KILL_TIME: Duration = Duration::from_secs(10);
const THROTTLE_TIME: Duration = Duration::from_secs(60);

/// ENOMEM.
const NO_ROOM: Errno = Errno(12);

/// What `master.toml` says of a service whose children are kept like this.
fn with_pool(pool: Pool) -> Option<Box<Extra>> {
    let limits = ChildLimits::default();
    let extra = Extra {
        pool,
        limits,
        ..Extra::default()
    };
    extra.boxed()
}

fn close_channel(pid: Pid) -> Action {
    Action::CloseChannel { pid }
}

/// A service on a port that strangers can reach.
fn inet(port: u16, max: u32) -> config::Service {
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    config::Service {
        name: port.to_string(),
        kind: Type::Inet,
        canonical: port.to_string(),
        endpoint: Endpoint::Inet(vec![address]),
        unprivileged: true,
        chroot: false,
        wakeup: None,
        max,
        command: "smtpd".into(),
        path: "/usr/lib/postfix/sbin/smtpd".into(),
        args: Vec::new(),
        backlog: 100,
        throttle_time: THROTTLE_TIME,
        extra: None,
        table: std::path::Path::new("master.cf").into(),
        line: 1,
    }
}

/// A service that only local programs can reach.
fn unix(name: &str, max: u32) -> config::Service {
    let canonical = format!("private/{name}");
    config::Service {
        name: name.into(),
        kind: Type::Unix,
        endpoint: Endpoint::Path(PathBuf::from(&canonical)),
        canonical,
        ..inet(0, max)
    }
}

fn waking(service: config::Service, seconds: u64, conditional: bool) -> config::Service {
    let every = Duration::from_secs(seconds);
    config::Service {
        wakeup: Some(Wakeup { every, conditional }),
        ..service
    }
}

struct Fixture {
    table: Table,
    now: Time,
    actions: Vec<Action>,
    next_pid: Pid,
}

impl Fixture {
    fn new(services: impl IntoIterator<Item = config::Service>) -> Self {
        let mut fixture = Self {
            table: Table::new(KILL_TIME, false),
            now: SECOND,
            actions: Vec::new(),
            next_pid: 100,
        };
        fixture.reload(services);
        fixture
    }

    /// One event and the end of its turn; what the table asked for, in order.
    fn step(&mut self, event: Event) -> Vec<Action> {
        self.table.step(self.now, event, &mut self.actions);
        self.table.settle(self.now, &mut self.actions);
        self.table.check().expect("the invariants hold");
        std::mem::take(&mut self.actions)
    }

    fn reload(&mut self, services: impl IntoIterator<Item = config::Service>) -> Vec<Action> {
        let services: Vec<_> = services.into_iter().map(Arc::new).collect();
        let plan = self.table.plan(&services, KILL_TIME);
        self.step(Event::Reload(plan))
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut all = Vec::new();
        while let Some(at) = self.table.next_deadline().filter(|&at| at <= end) {
            self.now = at;
            all.extend(self.step(Event::Deadline));
        }
        self.now = end;
        all
    }

    fn connect(&mut self, service: ServiceId) -> Vec<Action> {
        self.step(Event::Connection {
            service,
            clients: 1,
        })
    }

    /// A connection that the table answers with a spawn, and the child; its pid and generation.
    fn spawn(&mut self, service: ServiceId) -> (Pid, u32) {
        let actions = self.connect(service);
        let spawn = actions.iter().find_map(|action| match action {
            Action::Spawn { generation, .. } => Some(*generation),
            _ => None,
        });
        let generation = spawn.unwrap_or_else(|| panic!("no spawn in {actions:?}"));
        self.spawned(service, generation)
    }

    /// A child that was asked for runs.
    fn spawned(&mut self, service: ServiceId, generation: u32) -> (Pid, u32) {
        self.next_pid += 1;
        let pid = self.next_pid;
        self.step(Event::Spawned {
            service,
            generation,
            pid,
        });
        (pid, generation)
    }

    fn report(&mut self, service: ServiceId, child: (Pid, u32), available: i32) -> Vec<Action> {
        let (pid, generation) = child;
        self.step(Event::Report {
            service,
            writer: pid,
            report: Ok(StatusReport {
                pid,
                generation,
                available,
            }),
        })
    }

    fn taken(&mut self, service: ServiceId, child: (Pid, u32)) -> Vec<Action> {
        self.report(service, child, 0)
    }

    fn available(&mut self, service: ServiceId, child: (Pid, u32)) -> Vec<Action> {
        self.report(service, child, 1)
    }

    /// A new child that is busy.
    fn busy(&mut self, service: ServiceId) -> (Pid, u32) {
        let child = self.spawn(service);
        self.taken(service, child);
        child
    }

    fn exit(&mut self, child: (Pid, u32), status: ExitStatus) -> Vec<Action> {
        self.exit_with(child, status, Progress::Made)
    }

    fn exit_with(
        &mut self,
        (pid, _): (Pid, u32),
        status: ExitStatus,
        progress: Progress,
    ) -> Vec<Action> {
        self.step(Event::Exited {
            pid,
            status,
            progress,
        })
    }

    fn counts(&self, id: ServiceId) -> (u32, u32) {
        let service = self.table.service(id).expect("a service");
        (service.avail(), service.total())
    }
}

const FIRST: ServiceId = ServiceId(0);
const SECOND_SERVICE: ServiceId = ServiceId(1);

fn logged(actions: &[Action]) -> Vec<String> {
    let records = actions.iter().filter_map(|action| match action {
        Action::Log(record) => Some(record.to_string()),
        _ => None,
    });
    records.collect()
}

fn without_logs(actions: Vec<Action>) -> Vec<Action> {
    let wanted = |action: &Action| !matches!(action, Action::Log(_));
    actions.into_iter().filter(wanted).collect()
}
