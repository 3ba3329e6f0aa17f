//! The life of the master's own process: its signals, its watchdog, what the service manager is
//! told, and why it ends.

use std::mem;
use std::time::Duration;

use anyhow::Context;

use crate::log::Log;
use crate::policy::Time;
use crate::sys::signal::{self, Signals};
use crate::sys::supervisor::Supervisor;

/// The master ends itself when a turn takes longer (Postfix, `MASTER_WATCHDOG_TIME`).
const WATCHDOG: Duration = Duration::from_secs(1000);
/// The watchdog is reset no more often than this: that is a system call.
const WATCHDOG_RESET: Duration = Duration::from_secs(100);
/// A turn is taken at least this often, so that the watchdog is reset in time.
const TURN_MAX: Duration = Duration::from_secs(500);
/// How long no SIGCHLD is taken after one.
const SIGCHLD_REST: Duration = Duration::from_secs(1);

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The time of `-e` has come.
    ExitTime,
    /// A signal asked for it.
    Signal(i32),
}

#[derive(Debug)]
pub(super) struct Lifecycle {
    /// Readable when a signal has come.
    pub(super) signals: Signals,
    pub(super) supervisor: Supervisor,
    /// When to end by itself.
    exit_at: Option<Time>,
    /// Why the loop ends, if it does.
    pub(super) ending: Option<Ending>,
    watchdog_at: Option<Time>,
    /// When the supervisor was last told that the master lives.
    alive_at: Time,
    /// A signal may wait to be read.
    pub(super) signalled: bool,
    /// When SIGCHLD is taken again.
    sigchld_at: Option<Time>,
}

impl Lifecycle {
    /// # Errors
    /// The system's: there are no signals to be had as events.
    pub(super) fn new(supervisor: Supervisor, exit_at: Option<Time>) -> anyhow::Result<Self> {
        let signals = Signals::open().context("cannot take signals")?;
        Ok(Self {
            signals,
            supervisor,
            exit_at,
            ending: None,
            watchdog_at: None,
            alive_at: Time::ZERO,
            signalled: false,
            sigchld_at: None,
        })
    }

    /// What is due before each wait: the watchdog is reset, and the supervisor is told that the
    /// master lives, twice in the time that it accepts silence.
    ///
    /// # Errors
    /// The system's, for the watchdog.
    pub(super) fn tick(&mut self, now: Time, log: &Log) -> anyhow::Result<()> {
        if self.alive_due().is_some_and(|at| at <= now) {
            self.alive_at = now;
            self.supervisor.alive();
        }
        if self.sigchld_at.take_if(|at| *at <= now).is_some() {
            self.signals.take_sigchld(true)?;
        }
        let recent = |at: Time| now.saturating_sub(at) < WATCHDOG_RESET;
        if self.watchdog_at.is_some_and(recent) {
            return Ok(());
        }
        self.watchdog_at = Some(now);
        let seconds = (WATCHDOG + WATCHDOG_RESET).as_secs() as u32;
        signal::watchdog(seconds, log.emergency_fd()).context("cannot set the watchdog")
    }

    /// The log has another descriptor for the watchdog's line.
    pub(super) fn log_changed(&mut self) {
        self.watchdog_at = None;
    }

    fn alive_due(&self) -> Option<Time> {
        let interval = self.supervisor.watchdog()? / 2;
        Some(self.alive_at + interval)
    }

    pub(super) fn next_deadline(&self, now: Time) -> Time {
        let deadlines = [
            self.alive_due(),
            self.exit_at,
            self.sigchld_at,
            Some(now + TURN_MAX),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(now)
    }

    /// The numbers of the signals that have come.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn take_signals(&mut self) -> anyhow::Result<Vec<i32>> {
        if !mem::take(&mut self.signalled) {
            return Ok(Vec::new());
        }
        self.signals.take().context("cannot read signals")
    }

    /// Whether a signal has come since that ends the master.
    pub(super) fn is_told_again(&self) -> bool {
        let other = [libc::SIGHUP, libc::SIGUSR2, libc::SIGCHLD];
        let signals = self.signals.take().unwrap_or_default();
        signals.iter().any(|signal| !other.contains(signal))
    }

    /// Takes no SIGCHLD for a while: each child's end sends one, and only those of other processes
    /// are of interest.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn rest_from_sigchld(&mut self, now: Time) -> anyhow::Result<()> {
        self.sigchld_at = Some(now + SIGCHLD_REST);
        Ok(self.signals.take_sigchld(false)?)
    }

    /// Ends the loop, unless it ends already.
    pub(super) fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    pub(super) fn pass_exit_time(&mut self, now: Time) {
        if self.exit_at.is_some_and(|at| at <= now) {
            self.end(Ending::ExitTime);
        }
    }
}
