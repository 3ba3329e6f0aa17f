//! `-w`: the process that was started waits until the daemon is up, so that a script sees by an
//! exit status whether it is.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

use crate::sys::process;
use crate::sys::signal::Signals;

/// The two sides of [`fork_monitor`].
pub(super) enum Monitor {
    /// This is the daemon: say here whether it got up.
    Daemon(Reporter),
    /// This is the process that waited for it: what it was told.
    Waited(Outcome),
}

/// What the monitor learned of the daemon's start.
pub(super) enum Outcome {
    Started,
    /// The daemon ended before it was up; it has said why where both still write to.
    Ended,
    /// The daemon took too long, and was killed.
    TimedOut,
}

/// The daemon's end of the connection to its monitor.
pub(super) struct Reporter(UnixStream);

impl Reporter {
    /// Tells the monitor that the daemon is up.
    pub(super) fn started(mut self) {
        // The monitor may be gone.
        let _ = self.0.write(&[0]);
    }
}

/// Forks: the daemon goes on, and the process that was started waits for its report, at most for
/// `limit`. Signals to that process are for the daemon.
///
/// # Errors
/// The system's.
pub(super) fn fork_monitor(limit: Duration) -> io::Result<Monitor> {
    let (ours, theirs) = UnixStream::pair()?;
    let signals = Signals::open()?;
    match process::fork()? {
        ForkResult::Child => Ok(Monitor::Daemon(Reporter(theirs))),
        ForkResult::Parent { child } => {
            drop(theirs);
            Ok(Monitor::Waited(wait_for_report(
                ours, &signals, child, limit,
            )))
        }
    }
}

fn wait_for_report(
    mut ours: UnixStream,
    signals: &Signals,
    child: Pid,
    limit: Duration,
) -> Outcome {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let reported = signals.wait(ours.as_fd(), left);
        for number in signals.take().unwrap_or_default() {
            let signal = Signal::try_from(number).ok();
            let _gone = kill(child, signal.filter(|signal| *signal != Signal::SIGCHLD));
        }
        if reported {
            break;
        }
        if left.is_zero() {
            let _gone = kill(child, Signal::SIGKILL);
            return Outcome::TimedOut;
        }
    }
    match ours.read(&mut [0]) {
        Ok(1) => Outcome::Started,
        _ => {
            // It has closed the connection, and may still be writing why to standard error.
            let _ = waitpid(child, None);
            Outcome::Ended
        }
    }
}
