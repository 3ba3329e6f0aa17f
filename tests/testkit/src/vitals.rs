//! Checks that a fault leaves nothing behind, and that the master is idle during it.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::instance::{Instance, SOON};
use crate::poll::until;
use crate::process::Process;

/// A smaller increase of memory, in KiB, is not a leak but buffers that were not needed before.
const MEMORY_SLACK: u64 = 1024;

/// The number of descriptors of each kind.
fn kinds(process: Process) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for descriptor in process.descriptors().values() {
        let kind = format!("{}, flags {:o}", descriptor.kind, descriptor.flags);
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// The descriptors of an idle master.
pub fn kinds_at_rest(master: Process) -> BTreeMap<String, usize> {
    until(SOON, "the master to rest", || {
        let before = kinds(master);
        (master.is_idle() && before == kinds(master)).then_some(before)
    })
}

/// The resources of an idle master.
pub struct Vitals {
    master: Process,
    descriptors: BTreeMap<String, usize>,
    children: usize,
    memory: u64,
}

impl Vitals {
    #[track_caller]
    pub fn of(postfix: &Instance) -> Self {
        let _paused = postfix.pause_canary();
        let master = postfix.master_process();
        Self {
            master,
            descriptors: kinds_at_rest(master),
            children: postfix.children().len(),
            memory: master.memory(),
        }
    }

    /// Asserts that the same master has the same resources again.
    #[track_caller]
    pub fn expect_again(&self, postfix: &Instance) {
        until(SOON, "as many children as before", || {
            postfix.children().len() == self.children
        });
        let now = Self::of(postfix);
        assert_eq!(now.master, self.master, "the master");
        assert_eq!(now.descriptors, self.descriptors, "descriptors");
        let (before, after) = (self.memory, now.memory);
        let most = before + MEMORY_SLACK;
        assert!(after <= most, "memory: {before} KiB, then {after} KiB");
    }
}

/// Asserts that a master that can do nothing is idle: it runs, or is ready to run, for only a small
/// part of the period.
#[track_caller]
pub fn expect_rest(master: Process, period: Duration) {
    let (begin, before) = (Instant::now(), master.busy());
    sleep(period);
    let (passed, busy) = (begin.elapsed(), master.busy() - before);
    assert!(busy < passed / 4, "busy for {busy:?} of {passed:?}");
}
