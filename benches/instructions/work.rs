//! The measured pieces of work.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use master::config::{
    self, Base, Config, Endpoint, Family, Kind, Pool, Resolver, Source, Sources, User, Wakeup,
};
use master::policy::{Action, Event, ExitStatus, Pid, Progress, ServiceId, State, Table, Time};
use master::protocol::StatusReport;
use master::protocol::pool::Report;

/// One piece of work.
pub struct Work {
    pub name: &'static str,
    /// The number of repetitions, for a stable average.
    pub times: usize,
    /// The number of items in one repetition.
    pub items: usize,
    /// The recorded number of instructions for one item.
    pub expected: u64,
    work: fn(usize),
}

impl Work {
    pub fn run(&self, times: usize) {
        (self.work)(times);
    }
}

const fn work(
    name: &'static str,
    (times, items): (usize, usize),
    expected: u64,
    work: fn(usize),
) -> Work {
    Work {
        name,
        times,
        items,
        expected,
        work,
    }
}

pub const WORK: [Work; 14] = [
    work("a report", (20_000, 1), 674, reports),
    work("a client of an ordered pool", (10_000, 1), 2_173, clients),
    work(
        "a child from connection to end",
        (10_000, 1),
        2_300,
        children,
    ),
    work("a deadline among 1000", (20, 1_000), 634, |n| {
        deadlines(1_000, n)
    }),
    work("a deadline among 10000", (2, 10_000), 756, |n| {
        deadlines(10_000, n)
    }),
    work(
        "a child among 500 that end at once",
        (20, 500),
        2_701,
        |n| ends(500, n),
    ),
    work(
        "a child among 5000 that end at once",
        (2, 5_000),
        3_262,
        |n| ends(5_000, n),
    ),
    work(
        "a child among 100 of a removed service",
        (40, 100),
        3_267,
        |n| removal(100, n),
    ),
    work(
        "a child among 1000 of a removed service",
        (4, 1_000),
        3_702,
        |n| removal(1_000, n),
    ),
    work("a reloaded service among 500", (20, 500), 1_891, |n| {
        reloads(500, n)
    }),
    work("a reloaded service among 5000", (2, 5_000), 2_063, |n| {
        reloads(5_000, n)
    }),
    work("a line of master.cf", (2, LINES), 14_560, master_cf),
    work("a line of main.cf", (2, LINES), 5_752, main_cf),
    work("an expansion in main.cf", (2, LINES), 1_178, expansions),
];

const NOW: Time = Duration::from_secs(1_000);

/// A table, and a simulation of the children that it starts.
struct SimulatedMaster {
    table: Table,
    actions: Vec<Action>,
    next_pid: Pid,
    /// The started children, in order.
    children: Vec<(ServiceId, Pid, u32)>,
}

impl SimulatedMaster {
    /// A table with `services` services.
    fn new(services: usize, wakeup: Option<Wakeup>) -> Self {
        let mut simulated = Self {
            table: Table::new(Duration::from_secs(10), false),
            actions: Vec::new(),
            next_pid: 1_000,
            children: Vec::new(),
        };
        simulated.reload(&table(services, wakeup));
        simulated
    }

    fn reload(&mut self, services: &[Arc<config::Service>]) {
        let plan = self.table.plan(services, Duration::from_secs(10));
        self.step(NOW, Event::Reload(plan));
        self.fill();
    }

    fn step(&mut self, now: Time, event: Event) {
        self.table.step(now, event, &mut self.actions);
        self.take_actions();
    }

    /// Records the requested starts of children and ignores all other actions.
    fn take_actions(&mut self) {
        for action in self.actions.drain(..) {
            if let Action::Spawn {
                service,
                generation,
                ..
            } = black_box(action)
            {
                self.next_pid += 1;
                self.children.push((service, self.next_pid, generation));
            }
        }
    }

    fn settle(&mut self, now: Time) {
        self.table.settle(now, &mut self.actions);
        black_box(&mut self.actions).clear();
    }

    /// Starts the children that pools require; all become idle.
    fn fill(&mut self) {
        let mut known = self.children.len();
        loop {
            self.table.settle(NOW, &mut self.actions);
            self.take_actions();
            let Some(&(service, pid, generation)) = self.children.get(known) else {
                return;
            };
            known += 1;
            self.begin(service, pid, generation);
            let report = Report::Idle;
            self.step(NOW, Event::PoolReport { pid, report });
        }
    }

    /// A client connects and gets a new child.
    fn spawn(&mut self, service: ServiceId) -> (Pid, u32) {
        let clients = 1;
        self.step(NOW, Event::Connection { service, clients });
        let (_, pid, generation) = *self.children.last().expect("a child for the client");
        self.begin(service, pid, generation);
        self.settle(NOW);
        self.report(service, pid, generation, 0);
        (pid, generation)
    }

    /// A requested child has been started.
    fn begin(&mut self, service: ServiceId, pid: Pid, generation: u32) {
        self.step(
            NOW,
            Event::Spawned {
                service,
                generation,
                pid,
            },
        );
    }

    fn report(&mut self, service: ServiceId, pid: Pid, generation: u32, available: i32) {
        let report = StatusReport {
            pid,
            generation,
            available,
        };
        self.step(
            NOW,
            Event::Report {
                service,
                writer: pid,
                report: Ok(report),
            },
        );
        self.settle(NOW);
    }

    fn end(&mut self, pid: Pid) {
        let status = ExitStatus::Code(0);
        self.step(
            NOW,
            Event::Exited {
                pid,
                status,
                progress: Progress::Made,
            },
        );
    }
}

fn table(services: usize, wakeup: Option<Wakeup>) -> Vec<Arc<config::Service>> {
    let service = |n| {
        let canonical = format!("private/s{n}");
        Arc::new(config::Service {
            name: format!("s{n}"),
            kind: Kind::Unix,
            endpoint: Endpoint::Path(PathBuf::from(&canonical)),
            canonical,
            unprivileged: false,
            chroot: false,
            wakeup,
            max: 0,
            command: "child".into(),
            path: "/usr/lib/postfix/sbin/child".into(),
            args: Vec::new(),
            backlog: 100,
            extra: None,
            throttle_time: Duration::from_secs(60),
            table: Path::new("master.cf").into(),
            line: n as u32 + 1,
        })
    };
    (0..services).map(service).collect()
}

/// One child, in a table of many services, reports that it is taken and available in turn.
fn reports(times: usize) {
    let mut simulated = SimulatedMaster::new(1_000, None);
    let service = ServiceId::from_index(500);
    let (pid, generation) = simulated.spawn(service);
    for n in 0..times {
        simulated.report(service, pid, generation, (n % 2 == 0).into());
    }
}

/// Clients connect one after the other to one of many services, which has a pool of eight children.
/// A child's answer is processed together with the next client.
fn clients(times: usize) {
    let mut services = table(1_000, None);
    let of_pool = Arc::make_mut(&mut services[500]);
    of_pool.max = 8;
    of_pool.extra.get_or_insert_default().pool = Pool {
        max_idle: 8,
        ..Pool::ordered()
    };
    let mut simulated = SimulatedMaster::new(0, None);
    simulated.reload(&services);
    let service = ServiceId::from_index(500);
    let (_, pid, _) = simulated.children[0];
    for _ in 0..times {
        let clients = 1;
        simulated.step(NOW, Event::Connection { service, clients });
        simulated.settle(NOW);
        for report in [Report::Busy, Report::Idle] {
            simulated.step(NOW, Event::PoolReport { pid, report });
        }
    }
    assert_eq!(simulated.table.state_of(pid), Some(State::Idle));
}

/// A child for each connection.
fn children(times: usize) {
    let mut simulated = SimulatedMaster::new(1_000, None);
    let service = ServiceId::from_index(500);
    for _ in 0..times {
        let (pid, _) = simulated.spawn(service);
        simulated.end(pid);
        simulated.settle(NOW);
        simulated.children.clear();
    }
}

/// All services have wake-ups, which come due again and again.
fn deadlines(services: usize, times: usize) {
    let every = Duration::from_secs(60);
    let wakeup = Wakeup {
        every,
        conditional: false,
    };
    let mut simulated = SimulatedMaster::new(services, Some(wakeup));
    for n in 1..=times {
        let now = NOW + every * n as u32;
        simulated.step(now, Event::Deadline);
        simulated.settle(now);
    }
}

/// Many busy children end in one turn.
fn ends(children: usize, times: usize) {
    let mut simulated = SimulatedMaster::new(10, None);
    for _ in 0..times {
        for n in 0..children {
            simulated.spawn(ServiceId::from_index(n % 10));
        }
        for (_, pid, _) in std::mem::take(&mut simulated.children) {
            simulated.end(pid);
        }
        simulated.settle(NOW);
    }
}

/// A service with many children is removed; the children are told to end, and end.
fn removal(children: usize, times: usize) {
    let mut simulated = SimulatedMaster::new(2, None);
    let (all, one) = (table(2, None), table(1, None));
    for _ in 0..times {
        for _ in 0..children {
            simulated.spawn(ServiceId::from_index(1));
        }
        simulated.reload(&one);
        for (_, pid, _) in std::mem::take(&mut simulated.children) {
            simulated.end(pid);
        }
        simulated.settle(NOW);
        simulated.reload(&all);
    }
}

/// A reload without changes.
fn reloads(services: usize, times: usize) {
    let mut simulated = SimulatedMaster::new(services, None);
    let same = table(services, None);
    for _ in 0..times {
        simulated.reload(&same);
    }
}

/// A resolver without names.
struct Nameless;

impl Resolver for Nameless {
    fn check_trust(&self, _: &Path) -> Result<(), String> {
        Ok(())
    }

    fn hostname(&self) -> String {
        "host.test".into()
    }

    fn host(&self, _: &str) -> Result<Vec<IpAddr>, String> {
        Err("no names here".into())
    }

    fn tcp_service(&self, _: &str) -> Option<u16> {
        None
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        vec![Ipv4Addr::LOCALHOST.into()]
    }

    fn has_address(&self, _: IpAddr) -> bool {
        true
    }

    fn user(&self, _: &str) -> Option<User> {
        Some(User { uid: 105, gid: 112 })
    }

    fn user_name(&self, _: u32) -> Option<String> {
        Some("postfix".into())
    }

    fn groups(&self, _: &str, gid: u32) -> Vec<u32> {
        vec![gid]
    }

    fn group(&self, _: &str) -> Option<u32> {
        None
    }

    fn real_path(&self, path: &Path) -> Result<PathBuf, String> {
        Ok(path.to_owned())
    }

    fn needed_files(&self, _: &Path) -> Vec<PathBuf> {
        Vec::new()
    }

    fn landlock_version(&self) -> u32 {
        0
    }

    fn has_family(&self, _: Family) -> bool {
        true
    }

    fn process_id(&self) -> u32 {
        4711
    }

    fn check_log_file(&self, _: &Path, _: bool) -> Result<(), String> {
        Ok(())
    }
}

fn parse(main_cf: &str, master_cf: &str) {
    let source = |name: &str, text: &str| Source {
        path: name.into(),
        text: text.into(),
    };
    let sources = Sources {
        directory: "/etc/postfix".into(),
        base: Base::Postfix(source("/etc/postfix/main.cf", main_cf)),
        master_cf: source("/etc/postfix/master.cf", master_cf),
        more_tables: Vec::new(),
        master_toml: None,
        if_others_may_write: None,
        more_toml: Vec::new(),
        has_drop_ins: true,
    };
    let config = Config::parse(&sources, &Nameless);
    black_box(config.expect("a configuration without errors"));
}

/// The number of lines in each file.
const LINES: usize = 1_000;

fn master_cf(thousands: usize) {
    let line = |n| match n % 2 {
        0 => format!("s{n} unix - - n 60? 10 smtp -o a=b -o {{ c = d e }}\n"),
        _ => format!("127.0.0.1:{n} inet n - y - - smtpd -o smtpd_tls_wrappermode=yes\n"),
    };
    let text: String = (1..=thousands * LINES).map(line).collect();
    parse("compatibility_level = 3.6\n", &text);
}

fn main_cf(thousands: usize) {
    let line = |n| format!("p{n} = a value of some length, with $p{} in it\n", n - 1);
    let text: String = (1..=thousands * LINES).map(line).collect();
    parse(&text, "a unix - - n - - a\n");
}

fn expansions(thousands: usize) {
    let names = "${a?{b}:{c}}".repeat(thousands * LINES);
    parse(
        &format!("a = 1\nsyslog_name = {names}\n"),
        "a unix - - n - - a\n",
    );
}
