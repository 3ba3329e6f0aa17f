//! What is watched of a master of ours while a test runs it, if the environment asks for it.

use std::path::PathBuf;
use std::sync::MutexGuard;

use crate::canary::{self, Canary};
use crate::process::Process;
use crate::trace::{self, Trace};

/// Both ways to watch a master; each may be off.
#[derive(Default)]
pub struct Watch {
    canary: Option<Canary>,
    trace: Option<Trace>,
}

impl Watch {
    /// Begins to watch a master that serves: by a socket of its own, and by what it logs.
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

    /// Keeps the canary away while this is held: what the master has then is what the test gave it.
    #[track_caller]
    pub fn pause(&self) -> Option<MutexGuard<'_, ()>> {
        self.canary.as_ref().map(Canary::pause)
    }

    /// Ends while the master still runs, and returns what was wrong with it.
    pub fn end(&mut self) -> Complaints {
        let canary = self.canary.take().and_then(Canary::finish);
        let trace = self.trace.take().and_then(Trace::finish);
        Complaints(canary.into_iter().chain(trace).collect())
    }
}

/// What was wrong with a master.
#[must_use]
pub struct Complaints(Vec<String>);

impl Complaints {
    /// Fails the test if there are any, once what it has started is gone. A test that fails for
    /// its own reason has enough to say.
    #[track_caller]
    pub fn expect_none(self) {
        let all_well = self.0.is_empty() || std::thread::panicking();
        assert!(all_well, "{}", self.0.join("\n"));
    }
}
