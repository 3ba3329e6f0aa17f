//! The kernel's statistics of a process.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// A process, by its ID.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub i32);

/// Memory in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Private dirty memory: what the process has written and shares with no other process.
    pub private: u64,
    /// Proportional set size: shared memory is divided by the number of processes that share it.
    pub pss: u64,
}

impl Process {
    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    fn text(self, name: &str) -> Result<String> {
        let file = self.file(name);
        fs::read_to_string(&file).with_context(|| file.display().to_string())
    }

    /// The processor time of all threads, including those that have ended. It is exact while they
    /// sleep.
    pub fn cpu(self) -> Result<Duration> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.0))?;
        Ok(clock_gettime(clock)?.into())
    }

    /// The same, plus the time of children that run the same program (such as the one that resolves
    /// names). Children that serve clients run other programs.
    pub fn cpu_with_helpers(self) -> Result<Duration> {
        let own = fs::read_link(self.file("exe"))?;
        let children = self.child_pids()?.into_iter().map(Process);
        let helpers = children
            .filter(|child| fs::read_link(child.file("exe")).is_ok_and(|program| program == own));
        // A process that has ended in the meantime has no statistics.
        let spent: Duration = helpers.filter_map(|helper| helper.cpu().ok()).sum();
        Ok(self.cpu()? + spent)
    }

    /// Whether the process has not ended.
    pub fn runs(self) -> bool {
        let state = self.text("stat").ok().and_then(|text| {
            let (_, rest) = text.rsplit_once(')')?;
            rest.trim_start().chars().next()
        });
        !matches!(state, None | Some('Z' | 'X'))
    }

    /// Whether the process waits for events.
    pub fn is_idle(self) -> bool {
        self.text("wchan")
            .is_ok_and(|place| place.contains("epoll"))
    }

    /// Whether the process waits for events or orders, by any system call.
    pub fn waits(self) -> bool {
        let waits = |place: &str| {
            ["poll", "select", "unix_stream"]
                .iter()
                .any(|w| place.contains(w))
        };
        self.text("wchan").is_ok_and(|place| waits(&place))
    }

    pub fn memory(self) -> Result<Memory> {
        let text = self.text("smaps_rollup")?;
        let line = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.with_context(|| format!("no {name}"))?.parse()?)
        };
        Ok(Memory {
            private: line("Anonymous:")?,
            pss: line("Pss:")?,
        })
    }

    /// The number of its children, including those that have ended and were not reaped.
    pub fn children(self) -> Result<usize> {
        Ok(self.child_pids()?.len())
    }

    pub fn child_pids(self) -> Result<Vec<i32>> {
        let text = self.text(&format!("task/{}/children", self.0))?;
        text.split_whitespace()
            .map(|pid| Ok(pid.parse()?))
            .collect()
    }
}
