//! Watches our masters during tests, if the environment requests it.

use std::path::PathBuf;
use std::sync::MutexGuard;

use crate::canary::{self, Canary};
use crate::process::Process;
use crate::trace::{self, Trace};

/// Both ways to watch a master; each may be disabled.
#[derive(Default)]
pub struct Watch {
    canary: Option<Canary>,
    trace: Option<Trace>,
}

impl Watch {
    /// Starts to watch a serving master, by its canary's socket and its log.
    #[track_caller]
    pub fn begin(
        master: Process,
        socket: PathBuf,
        log: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self {
            canary: canary::is_on().then(|| Canary::watch(socket, master, log)),
            trace: trace::is_on().then(|| Trace::attach(master)),
        }
    }

    /// Keeps the canary away while the guard is held, so that the master has no descriptors or
    /// children of it.
    #[track_caller]
    pub fn pause(&self) -> Option<MutexGuard<'_, ()>> {
        self.canary.as_ref().map(Canary::pause)
    }

    /// Ends while the master still runs, and returns the complaints.
    pub fn end(&mut self) -> Complaints {
        let canary = self.canary.take().and_then(Canary::finish);
        let trace = self.trace.take().and_then(Trace::finish);
        Complaints(canary.into_iter().chain(trace).collect())
    }
}

/// Complaints about a master.
#[must_use]
pub struct Complaints(Vec<String>);

impl Complaints {
    /// Fails the test if there are complaints, after everything it has started has ended. A test
    /// that already fails does not report them.
    #[track_caller]
    pub fn expect_none(self) {
        let all_well = self.0.is_empty() || std::thread::panicking();
        assert!(all_well, "{}", self.0.join("\n"));
    }
}
