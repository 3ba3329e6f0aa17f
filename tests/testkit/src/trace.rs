//! Traces the master's system calls: except for its wait for events, none may take long, because
//! the master serves no client during a call.
//!
//! `MASTER_TEST_STRACE=1` enables it: strace(1) traces each of our masters from the time it serves,
//! without its children. A test that traces the master itself, or slows its calls down, calls
//! [`Instance::unwatched`].
//!
//! [`Instance::unwatched`]: crate::instance::Instance::unwatched

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::instance::SOON;
use crate::noise;
use crate::poll::until;
use crate::process::Process;
use crate::run::Running;

/// Maximum duration of a call.
const LIMIT: Duration = Duration::from_millis(50);
/// Calls that wait for events, or that do not return.
const WAITS: [&str; 5] = [
    "epoll_wait(",
    "epoll_pwait(",
    "epoll_pwait2(",
    "restart_syscall(",
    "exit_group(",
];

pub fn is_on() -> bool {
    std::env::var_os("MASTER_TEST_STRACE").is_some()
}

/// Interval at which the processor waiting times of master and strace are recorded.
const PERIOD: Duration = Duration::from_millis(5);

/// A point in time, and how long two processes have waited for a processor until then.
type ReadyTime = (Instant, Duration);

/// A trace of a master's calls.
pub struct Trace {
    strace: Option<Running>,
    /// Records how long the machine makes master and strace wait.
    machine: Option<JoinHandle<Vec<ReadyTime>>>,
    stop: Arc<AtomicBool>,
    /// Not in a directory that a test can fill up.
    directory: TempDir,
    /// Both clocks at the same moment, because strace prints the time of day.
    began: (Instant, SystemTime),
}

impl Trace {
    #[track_caller]
    pub fn attach(master: Process) -> Self {
        let began = (Instant::now(), SystemTime::now());
        let directory = tempfile::tempdir().expect("a directory");
        let mut strace = Command::new("strace");
        strace
            .args(["-ttt", "-T", "-e", "trace=all", "-o"])
            .arg(directory.path().join("calls"))
            .args(["-p", &master.0.to_string()]);
        let strace = Running::start(&mut strace);
        until(SOON, "strace to look on", || {
            master.is_traced() || !master.runs()
        });
        let stop = Arc::default();
        let (stopped, both) = (Arc::clone(&stop), [master, Process(strace.pid())]);
        Self {
            strace: Some(strace),
            machine: Some(thread::spawn(move || note_ready_time(both, &stopped))),
            stop,
            directory,
            began,
        }
    }

    /// Ends the trace, and returns a complaint if a call took too long.
    pub fn finish(mut self) -> Option<String> {
        let machine = self.detach();
        let calls = fs::read(self.directory.path().join("calls")).unwrap_or_default();
        let calls = String::from_utf8_lossy(&calls);
        let slow: Vec<&str> = calls
            .lines()
            .filter(|line| self.is_slow(line, &machine))
            .collect();
        let name = thread::current().name().unwrap_or("test").to_owned();
        eprintln!("{name}: {} system calls traced", calls.lines().count());
        (!slow.is_empty()).then(|| format!("slow system calls:\n{}", slow.join("\n")))
    }

    /// Whether a line of strace shows a call that took too long, and the machine was not
    /// responsible for it: `1764267432.123456 read(3, "", 1) = 0 <0.000012>`.
    fn is_slow(&self, line: &str, machine: &[ReadyTime]) -> bool {
        let Some((start, call)) = line.split_once(' ') else {
            return false;
        };
        let took = call.rsplit_once('<').and_then(|(_, took)| {
            let seconds = took.strip_suffix('>')?.parse().ok()?;
            Duration::try_from_secs_f64(seconds).ok()
        });
        let start = start.parse().ok().and_then(|seconds| {
            let day = SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(seconds).ok()?;
            Some(self.began.0 + day.duration_since(self.began.1).ok()?)
        });
        let (Some(took), Some(start)) = (took, start) else {
            return false;
        };
        if took <= LIMIT || WAITS.iter().any(|wait| call.starts_with(wait)) {
            return false;
        }
        let end = start + took;
        let late = noise::within(start, end).max(between(machine, start, end));
        took.saturating_sub(late) > LIMIT
    }

    fn detach(&mut self) -> Vec<ReadyTime> {
        self.stop.store(true, Ordering::Relaxed);
        let machine = self.machine.take().map(JoinHandle::join);
        if let Some(strace) = self.strace.take() {
            Process(strace.pid()).signal(Signal::SIGINT);
            strace.finish(SOON);
        }
        machine.map_or_else(Vec::new, |noted| noted.expect("no panic"))
    }
}

fn note_ready_time(both: [Process; 2], stop: &AtomicBool) -> Vec<ReadyTime> {
    let mut noted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let ready = both.map(Process::waited_to_run).into_iter().sum();
        // Only changes are recorded; in between, the value is constant.
        if noted.last().is_none_or(|&(_, last)| last != ready) {
            noted.push((Instant::now(), ready));
        }
        sleep(PERIOD);
    }
    noted
}

/// The increase of the waiting time from the last record before `begin` to the first one after
/// `end`.
fn between(noted: &[ReadyTime], begin: Instant, end: Instant) -> Duration {
    let before = noted.iter().rev().find(|(at, _)| *at <= begin);
    let after = noted.iter().find(|(at, _)| *at >= end).or(noted.last());
    match (before.or(noted.first()), after) {
        (Some((_, before)), Some((_, after))) => after.saturating_sub(*before),
        _ => Duration::ZERO,
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.detach();
    }
}
