//! One processor for all, for a while. Where there are several, it is the scheduler's luck which of
//! them client, child and master meet on, and worth more than anything a master does.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// This thread, and the threads and processes that it starts, have one processor until this is
/// dropped; those that were started meanwhile keep to it.
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
        // It was allowed before.
        let _ = sched_setaffinity(Pid::this(), &self.before);
    }
}
