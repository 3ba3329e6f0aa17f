//! The policy with arbitrary events: true, outdated and invented ones.
//!
//! The input is a list of letters, each with an operand of one byte, so that `+1 c0 s0 b0 a0 x0`
//! can be written by hand: a service, a client, a child that serves it and leaves. An operand
//! selects an existing object, modulo the number of objects. Other bytes are ignored.
//!
//! | | |
//! |---|---|
//! | `+` `-` | a reload with these lines; with none, and this many seconds to leave |
//! | `c` `w` `q` `g` | for this service: a connection, a failed watch, a failed channel, garbage |
//! | `s` `f` | a requested spawn succeeds, or fails |
//! | `S` `F` | for this service, not requested: a child, whose pid follows, or a failure |
//! | `b` `a` | a child reports that it is taken, or available |
//! | `i` `u` `h` `y` `n` | a child of an ordered pool is idle or busy, closes its channel, sends
//! garbage, or cannot be written to |
//! | `o` `H` | a child sends descriptors, or hangs in exec |
//! | `R` | for this service, a report with errors that follow |
//! | `x` `k` `K` | a child ends with status 0, with another status, or by this signal |
//! | `X` | a process with this pid ends |
//! | `t` `T` | time passes, a little or a lot |
//! | `p` `r` `e` `W` | for this service, an operator's request: pause, resume, replace children,
//! wake up |
//! | `v` | an operator sets the log level |
//! | `d` `D` | a deadline event, now or when it is due |
//! | `!` | the end, by this signal |
//! | `(` `)` | no operand: the events between them are in one turn |

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use master::policy::{
    Action, Errno, Event, ExitStatus, OrderFailure, Pid, Progress, ServiceId, Signal, Table,
};
use master::protocol::{StatusReport, pool::Report};

use super::testing::{FakeSystem, sources};
use super::{Config, Service, Source};

/// Maximum number of letters, because no input may take long.
const LETTERS_MAX: usize = 2000;

/// All letters with an operand.
const LETTERS: &[u8] = b"+-cwqgsfSFbaiuhynoHRxkKXtTpreWvdD!";

/// The lines that a reload selects from. Some services have several lines.
const LINES: [&str; 8] = [
    "25 inet n - - - 2 a",
    "a unix - - - 30 1 a",
    "b unix - - - 60? 0 b",
    "c pass - - - - 3 c",
    "smtp inet n - - 10 3 b",
    "25 inet n - - 10? 1 a",
    "a unix - - - - - c",
    "d fifo n - - 1 1 d",
];

/// An ordered pool, a pool with idle children, a service that a reload turns into a pool or back,
/// and services with child limits.
const TABLES: [(&str, &str); 5] = [
    (
        LINES[0],
        "[service.\"25/inet\"]\nthrottle_time = \"1s..8s\"\ncrash_percent = 50\n\
         request_timeout = 30\nstop_timeout = 20\nmax_uses = 2\nmax_age = 60\n",
    ),
    (
        LINES[3],
        "[service.\"c/pass\"]\ncrash_percent = 1\nrequest_timeout = 3\nstart_limit = \"3/10s\"\n",
    ),
    (LINES[1], "[service.\"a/unix\"]\nmin_idle = 1\n"),
    (LINES[2], "[service.\"b/unix\"]\nmin_idle = 2\n"),
    (
        LINES[4],
        "[service.\"smtp/inet\"]\naccept = \"ordered\"\nmin_idle = 1\nmax_idle = 2\n\
         stop_timeout = 5\nrequest_timeout = 60\n",
    ),
];

static SERVICES: LazyLock<Vec<Arc<Service>>> = LazyLock::new(|| {
    let main_cf = "compatibility_level = 3.6\nservice_throttle_time = 5s\n";
    let one = |line: &&str| {
        let mut sources = sources(main_cf, *line);
        let table = TABLES.iter().find(|(of, _)| of == line);
        sources.master_toml = table.map(|(_, text)| Source {
            path: "master.toml".into(),
            text: (*text).into(),
        });
        let config = Config::parse(&sources, &FakeSystem::default());
        config.expect("a good line").services.remove(0)
    };
    LINES.iter().map(one).collect()
});

/// The services of the lines whose bits are set. Of several lines for a service, the last one
/// counts.
pub fn configured(lines: u8) -> Vec<Arc<Service>> {
    let mut services: Vec<Arc<Service>> = Vec::new();
    for (bit, service) in SERVICES.iter().enumerate() {
        if (lines >> bit) & 1 == 1 {
            services.retain(|other| other.identity() != service.identity());
            services.push(service.clone());
        }
    }
    services
}

pub fn run(input: &[u8]) {
    let mut driver = Driver::new();
    let mut bytes = input.iter().copied();
    for _ in 0..LETTERS_MAX {
        let Some(letter) = bytes.next() else {
            break;
        };
        driver.letter(letter, &mut bytes);
    }
    driver.end_turn();
}

/// The table, its history and its requests.
struct Driver {
    table: Table,
    now: Duration,
    /// Whether several events precede the next `settle`.
    in_turn: bool,
    watched: BTreeSet<ServiceId>,
    spawning: Vec<(ServiceId, u32)>,
    children: Vec<(ServiceId, u32, Pid)>,
    last_pid: Pid,
}

impl Driver {
    fn new() -> Self {
        Self {
            table: Table::new(Duration::from_secs(10), true),
            now: Duration::from_secs(1),
            in_turn: false,
            watched: BTreeSet::new(),
            spawning: Vec::new(),
            children: Vec::new(),
            last_pid: 100,
        }
    }

    fn letter(&mut self, letter: u8, bytes: &mut impl Iterator<Item = u8>) {
        match letter {
            b'(' => self.in_turn = true,
            b')' => self.end_turn(),
            letter if LETTERS.contains(&letter) => {
                let operand = bytes.next().unwrap_or(b'0');
                if let Some(event) = self.event(letter, operand, bytes) {
                    self.step(event);
                }
            }
            _ => {}
        }
    }

    /// The event that a letter stands for; `None` if it is impossible, or if only time passes.
    fn event(&mut self, letter: u8, n: u8, bytes: &mut impl Iterator<Item = u8>) -> Option<Event> {
        let service = ServiceId::from_index(usize::from(n % 16));
        let error = Errno(n.into());
        let event = match letter {
            b'+' => self.reload(n, 10),
            b'-' => self.reload(0, n % 8),
            b'c' => Event::Connection {
                service,
                clients: 1,
            },
            b'w' => Event::WatchFailed { service, error },
            b'g' => garbage(service, n),
            b's' => self.spawned(n)?,
            b'f' => {
                let (service, _) = remove(&mut self.spawning, n)?;
                Event::SpawnFailed { service, error }
            }
            b'S' => self.adopted(service, bytes.next()),
            b'F' => Event::SpawnFailed { service, error },
            b'b' => self.report(n, 0)?,
            b'a' => self.report(n, 1)?,
            b'i' | b'u' | b'h' | b'y' | b'n' | b'o' | b'H' => self.member(letter, n)?,
            b'R' => self.nonsense(service, bytes.next()),
            b'x' => self.exit(n, ExitStatus::Code(0))?,
            b'k' => self.exit(n, ExitStatus::Code(1))?,
            b'K' => self.exit(n, ExitStatus::Signal(n.into()))?,
            b'X' => {
                let (pid, status) = (n.into(), ExitStatus::Code(n.into()));
                let progress = Progress::Unknown;
                Event::Exited {
                    pid,
                    status,
                    progress,
                }
            }
            b'p' => Event::Pause { service },
            b'r' => Event::Resume { service },
            b'e' => Event::Replace { service },
            b'W' => Event::Wake { service },
            b'v' => Event::Verbose(n % 2 == 1),
            b'!' => Event::Stop { signal: n.into() },
            _ => return self.pass(letter, n),
        };
        Some(event)
    }

    /// Lets time pass.
    fn pass(&mut self, letter: u8, n: u8) -> Option<Event> {
        match letter {
            b't' => self.now += Duration::from_millis(u64::from(n).pow(2)),
            b'T' => self.now += Duration::from_secs(u64::from(n) * 8),
            b'D' => self.now = self.table.next_deadline()?.max(self.now),
            _ => {}
        }
        b"dD".contains(&letter).then_some(Event::Deadline)
    }

    fn reload(&self, lines: u8, kill_time: u8) -> Event {
        let kill_time = Duration::from_secs(kill_time.into());
        Event::Reload(self.table.plan(&configured(lines), kill_time))
    }

    /// A requested spawn has succeeded.
    fn spawned(&mut self, nth: u8) -> Option<Event> {
        let (service, generation) = remove(&mut self.spawning, nth)?;
        self.last_pid += 1;
        let pid = self.last_pid;
        self.children.push((service, generation, pid));
        Some(Event::Spawned {
            service,
            generation,
            pid,
        })
    }

    /// An unrequested child, perhaps with a pid that is in use.
    fn adopted(&mut self, service: ServiceId, pid: Option<u8>) -> Event {
        let pid = pid.unwrap_or(0).into();
        self.children.push((service, 0, pid));
        Event::Spawned {
            service,
            generation: 0,
            pid,
        }
    }

    fn report(&self, nth: u8, available: i32) -> Option<Event> {
        let nth = usize::from(nth).checked_rem(self.children.len())?;
        let (service, generation, pid) = self.children[nth];
        let report = StatusReport {
            pid,
            generation,
            available,
        };
        Some(Event::Report {
            service,
            writer: pid,
            report: Ok(report),
        })
    }

    /// An event for a child, which may be one without a channel.
    fn member(&self, letter: u8, nth: u8) -> Option<Event> {
        let nth = usize::from(nth).checked_rem(self.children.len())?;
        let (_, _, pid) = self.children[nth];
        Some(match letter {
            b'i' | b'u' => {
                let report = if letter == b'i' {
                    Report::Idle
                } else {
                    Report::Busy
                };
                Event::PoolReport { pid, report }
            }
            b'h' => Event::ChannelClosed { pid },
            b'y' => Event::PoolGarbage { pid, letter },
            b'o' => Event::SentDescriptors { pid },
            b'H' => Event::ExecHangs { pid },
            _ => Event::OrderFailed {
                pid,
                failure: OrderFailure::NotRead,
            },
        })
    }

    /// A report with one or several errors.
    fn nonsense(&self, service: ServiceId, how: Option<u8>) -> Event {
        let how = how.unwrap_or(0);
        let nth = usize::from(how).checked_rem(self.children.len());
        let (_, generation, pid) = nth.map_or((service, 0, 0), |nth| self.children[nth]);
        let report = StatusReport {
            pid,
            generation: generation.wrapping_sub(((how >> 4) & 1).into()),
            available: (how >> 5).into(),
        };
        let writer = pid.wrapping_add(((how >> 3) & 1).into());
        Event::Report {
            service,
            writer,
            report: Ok(report),
        }
    }

    /// One of the children ends; the policy may have forgotten it already.
    fn exit(&mut self, nth: u8, status: ExitStatus) -> Option<Event> {
        let (_, _, pid) = remove(&mut self.children, nth)?;
        let progress = [Progress::None, Progress::Made, Progress::Unknown];
        Some(Event::Exited {
            pid,
            status,
            progress: progress[usize::from(nth) % 3],
        })
    }

    fn step(&mut self, event: Event) {
        let stop = matches!(event, Event::Stop { .. });
        let mut actions = Vec::new();
        self.table.step(self.now, event, &mut actions);
        for action in &actions {
            self.carry_out(action, stop);
        }
        if !self.in_turn {
            self.end_turn();
        }
    }

    fn end_turn(&mut self) {
        self.in_turn = false;
        let mut actions = Vec::new();
        self.table.settle(self.now, &mut actions);
        for action in &actions {
            self.carry_out(action, false);
        }
        self.table.check().expect("the invariants hold");
        for (id, service) in self.table.services() {
            assert_eq!(service.listening(), self.watched.contains(&id), "{id:?}");
        }
    }

    /// Checks that the request is valid, and executes it.
    fn carry_out(&mut self, action: &Action, stop: bool) {
        let possible = match *action {
            Action::Watch(id) => self.is_open(id) && self.watched.insert(id),
            Action::Unwatch(id) => self.watched.remove(&id),
            Action::Spawn {
                service,
                generation,
                ..
            } => {
                self.spawning.push((service, generation));
                self.may_spawn(service)
            }
            Action::Signal { pid, signal } => {
                signal == Signal::Term || self.table.service_of(pid).is_some()
            }
            Action::Order { pid, .. } => self.table.service_of(pid).is_some(),
            Action::CloseChannel { pid } | Action::Measure { pid } => {
                self.table.service_of(pid).is_some()
            }
            Action::Wake(id) => self.is_open(id),
            Action::Close(id) => {
                self.watched.remove(&id);
                !self.is_open(id)
            }
            Action::Terminate { .. } => stop,
            Action::Log(ref record) => !record.to_string().is_empty(),
        };
        assert!(possible, "{action:?}");
    }

    fn is_open(&self, id: ServiceId) -> bool {
        self.table
            .service(id)
            .is_some_and(|service| !service.removed())
    }

    fn may_spawn(&self, id: ServiceId) -> bool {
        let service = self.table.service(id);
        service.is_some_and(|service| {
            let max = service.config().max;
            let free = !service.throttled() && !service.paused();
            self.is_open(id) && free && (max == 0 || service.total() < max)
        })
    }
}

fn garbage(service: ServiceId, n: u8) -> Event {
    let (writer, length) = (n.into(), n.into());
    Event::Report {
        service,
        writer,
        report: Err(length),
    }
}

fn remove<T>(list: &mut Vec<T>, nth: u8) -> Option<T> {
    let nth = usize::from(nth).checked_rem(list.len())?;
    Some(list.swap_remove(nth))
}
