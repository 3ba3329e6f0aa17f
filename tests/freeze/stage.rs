//! A master of root's with a service that nothing happens to, whose clients are measured.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator;
use testkit::poll::{until, within};
use testkit::process::Process;
use testkit::programs::example;
use testkit::standalone::Standalone;

/// A client that waits longer than this for its first byte notices something.
pub const NOTICED: Duration = Duration::from_millis(250);

/// On a machine with too few processors for what it runs, this cannot be anything else.
const FROZEN: Duration = Duration::from_secs(1);

/// The time from one measured client to the next.
const PERIOD: Duration = Duration::from_millis(10);

/// For how long a service without successful starts is throttled.
pub const THROTTLE: &str = "2s";

/// Time enough for a master that has to end, see `postfix stop`.
pub const STOP: Duration = Duration::from_secs(5);

/// Held for writing by a test that needs the whole machine, and for reading by all others.
static MACHINE: RwLock<()> = RwLock::new(());

/// Has no other test of this crate run meanwhile.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

pub struct Stage {
    pub world: Standalone,
    _machine: RwLockReadGuard<'static, ()>,
    master: Option<Process>,
    services: Vec<String>,
}

impl Stage {
    /// A master that is not started yet, with the service `hello`.
    pub fn new() -> Self {
        let mut stage = Self::on(Standalone::new());
        let hello = stage.hello();
        stage.configure("").service("hello unix n", "100", &hello);
        stage
    }

    /// The same in a world that is not configured yet.
    pub fn on(world: Standalone) -> Self {
        Self {
            world,
            _machine: MACHINE.read().unwrap_or_else(PoisonError::into_inner),
            master: None,
            services: Vec::new(),
        }
    }

    /// The program `hello`.
    pub fn hello(&self) -> String {
        let program = self.world.install(&example("hello"));
        program.display().to_string()
    }

    /// Writes `master.toml`: what keeps the master to itself, and these lines.
    pub fn configure(&mut self, lines: &str) -> &mut Self {
        let (queue, data) = (self.world.queue(), self.world.path().join("data"));
        self.world.write_toml(&format!(
            "queue_directory = \"{}\"\ndata_directory = \"{}\"\n\
             service_throttle_time = \"{THROTTLE}\"\n{lines}",
            queue.display(),
            data.display()
        ));
        self
    }

    /// Adds a line of the table: name, type and the private column; process limit; command. The
    /// service is not woken up.
    pub fn service(&mut self, columns: &str, limit: &str, command: &str) -> &mut Self {
        self.line(&format!("{columns} n n - {limit} {command}"))
    }

    /// Adds a line of the table, in place of the one with the same name.
    pub fn line(&mut self, line: &str) -> &mut Self {
        self.remove(line.split_whitespace().next().expect("a name"));
        self.services.push(line.to_owned());
        self.write_table()
    }

    /// Takes a service out of the table.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        let named = |line: &String| line.split_whitespace().next() == Some(name);
        self.services.retain(|line| !named(line));
        self.write_table()
    }

    fn write_table(&mut self) -> &mut Self {
        let mut table = String::new();
        for line in &self.services {
            writeln!(table, "{line}").expect("a string takes all");
        }
        self.world.write_table(&table);
        self
    }

    // ---- the master

    #[track_caller]
    pub fn start(&mut self) -> &mut Self {
        let mut master = self.world.master(&["-d"]);
        self.start_as(&mut master)
    }

    /// Starts it by a command that becomes the master.
    #[track_caller]
    pub fn start_as(&mut self, command: &mut Command) -> &mut Self {
        self.run(command);
        self.world.wait_for_line("daemon started -- version");
        self
    }

    /// Starts it, and does not wait until it serves.
    pub fn run(&mut self, command: &mut Command) {
        self.world.run(command.process_group(0));
        self.master = Some(self.world.process());
    }

    /// A command that becomes the master by way of another program, as told by its arguments.
    pub fn by(&self, program: &str, arguments: &[&str]) -> Command {
        let master = self.world.master(&["-d"]);
        let mut command = Command::new(program);
        command.args(arguments);
        command.arg(master.get_program()).args(master.get_args());
        command.env_clear().current_dir("/");
        for (name, value) in master.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }

    pub fn master(&self) -> Process {
        self.master.expect("a master that was started")
    }

    /// Whether the master has ended.
    pub fn has_ended(&mut self) -> bool {
        self.world.running().has_ended()
    }

    /// The master's children that run a program of this name, or are about to.
    pub fn children(&self) -> Vec<Process> {
        self.master().children()
    }

    /// Tells the master to read its configuration, and waits for a line that says what came of it.
    #[track_caller]
    pub fn reload_within(&mut self, limit: Duration) -> String {
        let mark = self.world.said().len();
        self.master().signal(Signal::SIGHUP);
        until(limit, "the end of a reload", || {
            let news = self.world.said().split_off(mark);
            let over = news.contains("reload done") || news.contains("reload failed");
            over.then_some(news)
        })
    }

    /// Stops it as an operator does, and has it end in time.
    #[track_caller]
    pub fn stop(&mut self) {
        self.master().signal(Signal::SIGTERM);
        until(STOP, "the master's end after SIGTERM", || self.has_ended());
    }

    /// The first line with all of these texts.
    #[track_caller]
    pub fn wait_for_line(&mut self, texts: &[&str]) -> String {
        until(SOON, format!("a line with {texts:?}"), || {
            let said = self.world.said();
            let mut lines = said.lines();
            let all = |line: &&str| texts.iter().all(|text| line.contains(text));
            lines.find(all).map(str::to_owned)
        })
    }

    /// What the status document says of a service.
    #[track_caller]
    pub fn status(&self, name: &str) -> master::status::Service {
        operator::service(&self.world, name)
    }

    // ---- its clients

    /// The socket of a service that has one in `public`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.world.queue().join("public").join(name)
    }

    pub fn address(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Has another client of `hello` measured, and its waiting time limited.
    #[track_caller]
    pub fn expect_first_byte(&self, limit: Duration) {
        let waited = first_byte(&self.address("hello"), limit);
        assert!(waited <= limit, "no first byte within {limit:?}");
    }

    /// Measures the clients of `hello` for a time, while something goes on, and asserts that none
    /// of them notices.
    #[track_caller]
    pub fn expect_unnoticed(&self, period: Duration, meanwhile: impl FnOnce() + Send) {
        let longest = longest_first_byte(&self.address("hello"), period, meanwhile);
        // On a busy machine every process waits for others; a master that is frozen waits longer.
        let limit = if longest.is_the_machines() {
            FROZEN
        } else {
            NOTICED
        };
        let time = longest.time;
        assert!(time <= limit, "a client of another service waited {time:?}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let Some(master) = self.master else { return };
        // Here, because the world expects a master that ends when it is told to; and to the whole
        // process group, because a child may have no master any more.
        let group = Pid::from_raw(master.0);
        master.signal(Signal::SIGCONT);
        master.signal(Signal::SIGTERM);
        if within(STOP, || self.has_ended()).is_none() {
            let _ = killpg(group, Signal::SIGKILL);
            within(SOON, || self.has_ended());
        }
        let _ = killpg(group, Signal::SIGKILL);
        if thread::panicking() {
            eprintln!("---- the master said\n{}\n----", self.world.said());
        }
    }
}

/// For how long a client waits for its first byte; for little more than the limit, if it is longer.
pub fn first_byte(address: &str, limit: Duration) -> Duration {
    let begun = Instant::now();
    // A master that stands still has a queue that fills up; to connect may have to wait, then.
    let connected = within(limit, || match Client::try_connect(address) {
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => None,
        client => Some(client),
    });
    if let Some(mut client) = connected.map(|client| client.expect("a listener")) {
        let rest = limit.saturating_sub(begun.elapsed());
        let line = client.line_within(rest + Duration::from_millis(1));
        if line.is_none() {
            return begun.elapsed().max(limit + Duration::from_millis(1));
        }
    }
    begun.elapsed()
}

/// How long a client had to wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    pub time: Duration,
    /// For how much of it some process of the machine waited for a processor.
    starved: Duration,
}

impl Wait {
    fn of(address: &str) -> Self {
        let before = starved();
        let time = first_byte(address, STOP);
        let starved = starved().saturating_sub(before);
        Self { time, starved }
    }

    /// Whether processors were short nearly all the time.
    fn is_the_machines(self) -> bool {
        self.starved >= self.time * 9 / 10
    }
}

/// For how long some process has waited for a processor since the start of the machine; zero where
/// the kernel does not tell.
fn starved() -> Duration {
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = text.lines().find(|line| line.starts_with("some "));
    let total = some.and_then(|line| line.split_once("total="));
    let microseconds = total.and_then(|(_, number)| number.parse().ok());
    Duration::from_micros(microseconds.unwrap_or(0))
}

/// The longest time that a client waits for its first byte, of all that come while something goes
/// on, and for a period at the least.
pub fn longest_first_byte(
    address: &str,
    period: Duration,
    meanwhile: impl FnOnce() + Send,
) -> Wait {
    thread::scope(|scope| {
        let working = scope.spawn(meanwhile);
        let begun = Instant::now();
        let mut longest = Wait::default();
        // No longer than it takes to tell a freeze from a delay.
        while longest.time < STOP && (begun.elapsed() < period || !working.is_finished()) {
            let next = Instant::now() + PERIOD;
            let wait = Wait::of(address);
            if wait.time > longest.time {
                longest = wait;
            }
            sleep(next.saturating_duration_since(Instant::now()));
        }
        if let Err(panic) = working.join() {
            std::panic::resume_unwind(panic);
        }
        longest
    })
}
