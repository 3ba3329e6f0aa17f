//! A master that root runs, with a service `hello` whose clients are measured.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use testkit::client::Client;
use testkit::instance::SOON;
use testkit::noise;
use testkit::operator;
use testkit::poll::{until, within};
use testkit::process::Process;
use testkit::programs::example;
use testkit::standalone::Standalone;

/// A longer wait for the first byte counts as a delay.
pub const NOTICED: Duration = Duration::from_millis(250);

/// On an overloaded machine, only a longer wait proves that the master was frozen.
const FROZEN: Duration = Duration::from_secs(1);

/// Interval between measured clients.
const PERIOD: Duration = Duration::from_millis(10);

/// The throttle time of services whose children cannot be started.
pub const THROTTLE: &str = "2s";

/// Maximum time for the master to end, see `postfix stop`.
pub const STOP: Duration = Duration::from_secs(5);

pub struct Stage {
    pub standalone: Standalone,
    master: Option<Process>,
    services: Vec<String>,
}

impl Stage {
    /// An unstarted master with the service `hello`.
    pub fn new() -> Self {
        let mut stage = Self::on(Standalone::new());
        let hello = stage.hello();
        stage.configure("").service("hello unix n", "100", &hello);
        stage
    }

    /// The same with an existing directory.
    pub fn on(standalone: Standalone) -> Self {
        Self {
            standalone,
            master: None,
            services: Vec::new(),
        }
    }

    /// The program `hello`.
    pub fn hello(&self) -> String {
        let program = self.standalone.install(&example("hello"));
        program.display().to_string()
    }

    /// Writes `master.toml`: the directories of the test, and these lines.
    pub fn configure(&mut self, lines: &str) -> &mut Self {
        let (queue, data) = (self.standalone.queue(), self.standalone.path().join("data"));
        self.standalone.write_toml(&format!(
            "queue_directory = \"{}\"\ndata_directory = \"{}\"\n\
             service_throttle_time = \"{THROTTLE}\"\n{lines}",
            queue.display(),
            data.display()
        ));
        self
    }

    /// Adds a line to the table: name, type and the private column; process limit; command. The
    /// service has no wake-ups.
    pub fn service(&mut self, columns: &str, limit: &str, command: &str) -> &mut Self {
        self.line(&format!("{columns} n n - {limit} {command}"))
    }

    /// Adds a line to the table, or replaces the one with the same name.
    pub fn line(&mut self, line: &str) -> &mut Self {
        self.remove(line.split_whitespace().next().expect("a name"));
        self.services.push(line.to_owned());
        self.write_table()
    }

    /// Removes a service from the table.
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
        self.standalone.write_table(&table);
        self
    }

    // ---- the master

    #[track_caller]
    pub fn start(&mut self) -> &mut Self {
        let mut master = self.standalone.master(&["-d"]);
        self.start_as(&mut master)
    }

    /// Starts the master by a command that executes it.
    #[track_caller]
    pub fn start_as(&mut self, command: &mut Command) -> &mut Self {
        self.run(command);
        self.standalone.wait_for_line("daemon started -- version");
        self
    }

    /// Starts the master and does not wait until it serves.
    pub fn run(&mut self, command: &mut Command) {
        self.standalone.run(command.process_group(0));
        self.master = Some(self.standalone.process());
    }

    /// A command that executes the master through another program with these arguments.
    pub fn by(&self, program: &str, arguments: &[&str]) -> Command {
        let master = self.standalone.master(&["-d"]);
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
        self.standalone.running().has_ended()
    }

    /// The master's children that run a program of this name, or are about to.
    pub fn children(&self) -> Vec<Process> {
        self.master().children()
    }

    /// Sends SIGHUP and waits for the line with the result.
    #[track_caller]
    pub fn reload_within(&mut self, limit: Duration) -> String {
        let mark = self.standalone.said().len();
        self.master().signal(Signal::SIGHUP);
        until(limit, "the end of a reload", || {
            let news = self.standalone.said().split_off(mark);
            let over = news.contains("reload done") || news.contains("reload failed");
            over.then_some(news)
        })
    }

    /// Stops the master as an operator does, and checks that it ends in time.
    #[track_caller]
    pub fn stop(&mut self) {
        self.master().signal(Signal::SIGTERM);
        until(STOP, "the master's end after SIGTERM", || self.has_ended());
    }

    /// Waits for the first line with all of these texts.
    #[track_caller]
    pub fn wait_for_line(&mut self, texts: &[&str]) -> String {
        until(SOON, format!("a line with {texts:?}"), || {
            let said = self.standalone.said();
            let mut lines = said.lines();
            let all = |line: &&str| texts.iter().all(|text| line.contains(text));
            lines.find(all).map(str::to_owned)
        })
    }

    /// The status of a service in the status document.
    #[track_caller]
    pub fn status(&self, name: &str) -> master::status::Service {
        operator::service(&self.standalone, name)
    }

    // ---- its clients

    /// The path of a service's socket in `public`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.standalone.queue().join("public").join(name)
    }

    pub fn address(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Asserts that a new client of `hello` gets its first byte within `limit`.
    #[track_caller]
    pub fn expect_first_byte(&self, limit: Duration) {
        let waited = first_byte(&self.address("hello"), limit);
        assert!(waited <= limit, "no first byte within {limit:?}");
    }

    /// Measures clients of `hello` for at least `period`, while `meanwhile` runs, and asserts that
    /// none is delayed.
    #[track_caller]
    pub fn expect_unnoticed(&self, period: Duration, meanwhile: impl FnOnce() + Send) {
        let longest = longest_first_byte(&self.address("hello"), period, meanwhile);
        // On a busy machine every process waits for others; a frozen master is still slower.
        let limit = if longest.is_busy() { FROZEN } else { NOTICED };
        let (time, late) = (longest.time, longest.late());
        let own = time.saturating_sub(late);
        assert!(
            own <= limit,
            "a client of another service waited {time:?}, a program of no master {late:?}"
        );
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let Some(master) = self.master else { return };
        // Here and not in `Standalone`, which expects that the master ends on request. The whole
        // process group is killed, because a child may have lost its master.
        let group = Pid::from_raw(master.0);
        master.signal(Signal::SIGCONT);
        master.signal(Signal::SIGTERM);
        if within(STOP, || self.has_ended()).is_none() {
            let _ = killpg(group, Signal::SIGKILL);
            within(SOON, || self.has_ended());
        }
        let _ = killpg(group, Signal::SIGKILL);
        if thread::panicking() {
            eprintln!("---- the master said\n{}\n----", self.standalone.said());
        }
    }
}

/// A client's wait for the first byte. After `limit`, it gives up.
pub fn first_byte(address: &str, limit: Duration) -> Duration {
    let begun = Instant::now();
    // The queue of a stopped master can be full, so connect(2) may have to be repeated.
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

/// The wait of a client.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    begun: Instant,
    pub time: Duration,
    /// How long some process of the machine waited for a processor in this time.
    starved: Duration,
}

impl Wait {
    fn of(address: &str) -> Self {
        let (begun, before) = (Instant::now(), starved());
        let time = first_byte(address, STOP);
        let starved = starved().saturating_sub(before);
        Self {
            begun,
            time,
            starved,
        }
    }

    /// Whether processors were short for half of the time.
    fn is_busy(self) -> bool {
        self.starved >= self.time / 2
    }

    /// How long a program was late at this time that no master starts: a kernel that is itself
    /// delayed reports no shortage.
    fn late(self) -> Duration {
        noise::within(self.begun, self.begun + self.time)
    }
}

/// How long some process has waited for a processor since the boot; zero if the kernel does not
/// report it.
fn starved() -> Duration {
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = text.lines().find(|line| line.starts_with("some "));
    let total = some.and_then(|line| line.split_once("total="));
    let microseconds = total.and_then(|(_, number)| number.parse().ok());
    Duration::from_micros(microseconds.unwrap_or(0))
}

/// The longest wait for the first byte among all clients while `meanwhile` runs, and for at least
/// `period`.
pub fn longest_first_byte(
    address: &str,
    period: Duration,
    meanwhile: impl FnOnce() + Send,
) -> Wait {
    noise::watch();
    thread::scope(|scope| {
        let working = scope.spawn(meanwhile);
        let begun = Instant::now();
        let mut longest = Wait::of(address);
        // Ends after a time that is long enough to distinguish a freeze from a delay.
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
