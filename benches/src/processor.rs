//! Restricts processes to one processor. With several processors, the placement of client, child
//! and master by the scheduler has more influence than the master itself.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// While this value exists, this thread, and all threads and processes that it starts, run on one
/// processor. Those that it has started keep this restriction.
pub struct OneProcessor {
    before: CpuSet,
}

impl OneProcessor {
    pub fn take() -> Result<Self> {
        let before = sched_getaffinity(Pid::this())?;
        let first = (0..CpuSet::count()).find(|&cpu| before.is_set(cpu) == Ok(true));
        let mut one = CpuSet::new();
        one.set(first.context("no processor")?)?;
        sched_setaffinity(Pid::this(), &one)?;
        Ok(Self { before })
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        // This cannot fail: the former setting was valid.
        let _ = sched_setaffinity(Pid::this(), &self.before);
    }
}
