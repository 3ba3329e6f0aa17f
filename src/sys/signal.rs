//! Signals as descriptor events, and what children find of them.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
pub use nix::sys::signal::Signal;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, killpg, raise, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, alarm};

/// Signals that the master takes as events, beside SIGCHLD.
const HANDLED: [Signal; 5] = [
    Signal::SIGHUP,
    Signal::SIGUSR2,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
];

/// Those that end it.
const STOP: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// Signals that are taken at a time: more than there are kinds.
const SIGNALS_MAX: usize = 8;

/// The only signal that has a handler here.
const CAUGHT: libc::c_int = libc::SIGALRM;
/// The signals that mean to a child what they mean to any program: it must not run the handler, see
/// `spawn`.
pub(super) const OWN: [libc::c_int; 2] = [CAUGHT, libc::SIGXFSZ];

/// Has the signals that the master takes as events wait until it does so: during its start they
/// would end it, or as process 1 be lost.
///
/// # Errors
/// The system's, which cannot happen for signals that exist.
pub fn hold() -> io::Result<()> {
    Ok(Signals::set(true).thread_block()?)
}

/// Gives every signal its default meaning, whatever the parent process had set, except SIGPIPE,
/// which is ignored here and in all children, and SIGXFSZ: a log file that is as large as a file may
/// be is no reason to end.
///
/// # Errors
/// The system's, which cannot happen for signals that exist.
pub fn reset() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: the default runs no code of ours. It cannot be set, and need not be, for SIGKILL,
        // SIGSTOP and what the C library has for itself.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    set(Signal::SIGXFSZ, SigHandler::SigIgn)?;
    set(Signal::SIGPIPE, SigHandler::SigIgn)
}

/// Lets every signal through that is not [held](hold).
///
/// # Errors
/// The system's, which cannot happen for signals that exist.
pub fn release() -> io::Result<()> {
    Ok(Signals::set(true).thread_set_mask()?)
}

fn set(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: default and ignore run no code of ours, and the one handler there is, below, is
    // safe in a signal's context.
    unsafe { sigaction(signal, &action)? };
    Ok(())
}

/// The signals that the master takes as events.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals and opens the descriptor through which they come. A blocked signal also
    /// reaches process 1, which the kernel otherwise spares.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub fn open() -> io::Result<Self> {
        hold()?;
        Self::of(&Self::set(true))
    }

    fn of(set: &SigSet) -> io::Result<Self> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(set, flags)?))
    }

    fn set(sigchld: bool) -> SigSet {
        let sigchld = sigchld.then_some(Signal::SIGCHLD);
        HANDLED.into_iter().chain(sigchld).collect()
    }

    /// Has SIGCHLD come as an event, or wait.
    ///
    /// # Errors
    /// The system's, which cannot happen for a descriptor of this kind.
    pub fn take_sigchld(&mut self, taken: bool) -> io::Result<()> {
        Ok(self.0.set_mask(&Self::set(taken))?)
    }

    /// The numbers of the signals that have come.
    ///
    /// # Errors
    /// The system's.
    pub fn take(&self) -> io::Result<Vec<i32>> {
        let signals = iter::from_fn(|| self.0.read_signal().transpose());
        let numbers = signals.map(|info| Ok(info?.ssi_signo as i32));
        numbers.take(SIGNALS_MAX).collect()
    }

    /// Waits until a descriptor is readable or a signal has come, for `timeout` at the most. Whether
    /// the descriptor is readable.
    pub fn wait(&self, fd: BorrowedFd<'_>, timeout: Duration) -> bool {
        let mut fds = [fd, self.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let found = ppoll(&mut fds, Some(timeout.into()), None);
        found.is_ok() && fds[0].any() == Some(true)
    }
}

/// A signal came during the start that ends the master.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted(pub i32);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "terminating on signal {}", self.0)
    }
}

impl Error for Interrupted {}

/// Waits until a descriptor is readable, for `timeout` at the most. For the start, which takes no
/// other signals meanwhile.
///
/// # Errors
/// [`Interrupted`]; or the system's, when descriptors have run out.
pub fn wait_until_readable(fd: BorrowedFd<'_>, timeout: Duration) -> anyhow::Result<()> {
    let signals = Signals::of(&STOP.into_iter().collect())?;
    if !signals.wait(fd, timeout) {
        if let Some(&number) = signals.take()?.first() {
            return Err(Interrupted(number).into());
        }
    }
    Ok(())
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends SIGTERM to the whole process group, this process left out.
///
/// # Errors
/// The system's.
pub fn terminate_group() -> io::Result<()> {
    set(Signal::SIGTERM, SigHandler::SigIgn)?;
    Ok(killpg(nix::unistd::getpgrp(), Signal::SIGTERM)?)
}

/// Sends SIGTERM to the process group that a child leads.
pub fn terminate_group_of(child: i32) {
    // A child that has not made its group yet, or has ended, gets the signal by itself.
    let _ = killpg(Pid::from_raw(child), Signal::SIGTERM);
}

/// Ends this process by the signal, so that its parent sees why it ended.
pub fn die_by(number: i32) -> ! {
    if let Ok(signal) = Signal::try_from(number) {
        // Whatever keeps the signal from working, the exit below ends the process all the same.
        let _ = set(signal, SigHandler::SigDfl);
        let _ = raise(signal);
        let _ = SigSet::from(signal).thread_unblock();
    }
    std::process::exit(1)
}

/// The number of steps in the time of the watchdog: one alarm that came late, because the
/// process was stopped or frozen for a while, does not mean that it hangs (Postfix, `watchdog.c`).
const WATCHDOG_STEPS: u32 = 3;

/// Steps since the process last said that it does not hang.
static STEPS: AtomicU32 = AtomicU32::new(0);
/// Seconds in a step.
static STEP: AtomicU32 = AtomicU32::new(0);
/// Where the handler writes its one line.
static LAST_WORDS: AtomicI32 = AtomicI32::new(libc::STDERR_FILENO);

/// Ends the process when this is not called again within this number of seconds. The handler then
/// writes a line to `last_words`.
///
/// # Errors
/// The system's, which cannot happen for a signal that exists.
pub fn watchdog(seconds: u32, last_words: RawFd) -> io::Result<()> {
    let step = seconds.div_ceil(WATCHDOG_STEPS);
    LAST_WORDS.store(last_words, Ordering::Relaxed);
    STEPS.store(0, Ordering::Relaxed);
    if STEP.swap(step, Ordering::Relaxed) == 0 {
        set(Signal::SIGALRM, SigHandler::Handler(watchdog_step))?;
    }
    alarm::set(step);
    Ok(())
}

/// Runs as a signal handler: atomics and system calls only.
extern "C" fn watchdog_step(_: i32) {
    if STEPS.fetch_add(1, Ordering::Relaxed) + 1 < WATCHDOG_STEPS {
        alarm::set(STEP.load(Ordering::Relaxed));
        return;
    }
    let line = b"master: fatal: watchdog timeout\n";
    // SAFETY: write() and _exit() may be called in a handler, and the bytes are static.
    unsafe {
        libc::write(
            LAST_WORDS.load(Ordering::Relaxed),
            line.as_ptr().cast(),
            line.len(),
        );
        libc::_exit(1)
    }
}

/// Has the kernel end the process after this number of seconds, if it has not ended by then.
pub fn die_within(seconds: u32) {
    // Without it the process would end all the same, in nearly all cases.
    let _ = set(Signal::SIGALRM, SigHandler::SigDfl);
    alarm::set(seconds);
}

/// Whether this process leads its process group, so that it may signal the group.
pub fn leads_group() -> bool {
    nix::unistd::getpgrp() == nix::unistd::getpid()
}

/// Whether this process is the system's first.
pub fn is_init() -> bool {
    nix::unistd::getpid().as_raw() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{in_own_process, is_own_process, own_process};
    use std::process::Stdio;

    #[test]
    fn a_process_that_does_not_come_round_is_ended_with_a_word() {
        let name = "sys::signal::tests::a_process_that_does_not_come_round_is_ended_with_a_word";
        if is_own_process() {
            watchdog(3, libc::STDERR_FILENO).unwrap();
            loop {
                nix::unistd::pause();
            }
        }
        let output = own_process(name).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("fatal: watchdog timeout"), "{said}");
    }

    #[test]
    fn alarms_that_come_late_are_forgiven_to_a_process_that_comes_round() {
        if in_own_process(
            "sys::signal::tests::alarms_that_come_late_are_forgiven_to_a_process_that_comes_round",
        ) {
            for _ in 0..10 {
                watchdog(1000, libc::STDERR_FILENO).unwrap();
                // What a process finds that was frozen for longer than a step.
                raise(Signal::SIGALRM).unwrap();
                raise(Signal::SIGALRM).unwrap();
            }
        }
    }

    #[test]
    fn a_blocked_signal_is_taken_as_an_event() {
        if in_own_process("sys::signal::tests::a_blocked_signal_is_taken_as_an_event") {
            let signals = Signals::open().unwrap();
            let taken = || signals.take().unwrap();
            assert_eq!(taken(), [0_i32; 0]);
            for signal in [Signal::SIGHUP, Signal::SIGCHLD, Signal::SIGTERM] {
                // To this thread: the test program has others, which block nothing.
                raise(signal).unwrap();
                assert_eq!(taken(), [signal as i32]);
            }
            let all = HANDLED.into_iter().chain([Signal::SIGCHLD]);
            all.for_each(|signal| raise(signal).unwrap());
            assert_eq!(taken().len(), HANDLED.len() + 1, "all at once");
            assert_eq!(taken(), [0_i32; 0]);
        }
    }
}
