//! The master's system calls: none but its wait for events may take long, for in such a call it
//! serves no client.
//!
//! `MASTER_TEST_STRACE=1` turns it on: strace(1) looks at each master of ours from when it serves,
//! and at no process that it starts. A test that traces the master itself, or makes its calls slow,
//! says [`Instance::unwatched`].
//!
//! [`Instance::unwatched`]: crate::instance::Instance::unwatched

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::instance::SOON;
use crate::noise;
use crate::poll::until;
use crate::process::Process;
use crate::run::Running;

/// No call takes longer.
const LIMIT: Duration = Duration::from_millis(50);
/// Those that wait for events, and those that do not return.
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

/// A look at a master's calls.
pub struct Trace {
    strace: Option<Running>,
    /// Not where a test can fill the disk up.
    directory: TempDir,
    /// Both clocks at one moment: strace tells the time of day.
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
        Self {
            strace: Some(strace),
            directory,
            began,
        }
    }

    /// Ends, and returns a complaint if a call took too long.
    pub fn finish(mut self) -> Option<String> {
        self.detach();
        let calls = fs::read(self.directory.path().join("calls")).unwrap_or_default();
        let calls = String::from_utf8_lossy(&calls);
        let slow: Vec<&str> = calls.lines().filter(|line| self.is_slow(line)).collect();
        let name = thread::current().name().unwrap_or("test").to_owned();
        eprintln!("{name}: {} system calls traced", calls.lines().count());
        (!slow.is_empty()).then(|| format!("slow system calls:\n{}", slow.join("\n")))
    }

    /// Whether a line of strace tells of a call that took too long, and not for the machine's sake:
    /// `1764267432.123456 read(3, "", 1) = 0 <0.000012>`.
    fn is_slow(&self, line: &str) -> bool {
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
        let waits = WAITS.iter().any(|wait| call.starts_with(wait));
        !waits && took > LIMIT && took.saturating_sub(noise::within(start, start + took)) > LIMIT
    }

    fn detach(&mut self) {
        if let Some(strace) = self.strace.take() {
            Process(strace.pid()).signal(Signal::SIGINT);
            strace.finish(SOON);
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.detach();
    }
}
