//! What a daemon does to its own process, and the reaping of others.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, getsid, pipe2, setsid};

/// Sets the file mode mask: what the master makes is nobody else's unless it says so.
pub fn set_umask(mask: u32) {
    umask(Mode::from_bits_truncate(mask));
}

/// Closes the descriptors from `first` to `last`, as far as there are any.
pub fn close_range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: called at start, before anything of ours is open in this range, or in a copy of this
    // process that uses nothing in it.
    if unsafe { libc::close_range(first as u32, last as u32, 0) } == 0 {
        return;
    }
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft.min(65_536));
    for fd in first..=last.min(limit as RawFd) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

/// Points a standard descriptor at /dev/null.
///
/// # Errors
/// The system's.
pub fn to_dev_null(fd: RawFd) -> io::Result<()> {
    let null = open_dev_null(3)?;
    // SAFETY: both are open, and nothing here owns the standard descriptors.
    if unsafe { libc::dup2(null.as_raw_fd(), fd) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Opens standard descriptors that are closed, so that no other file takes their numbers.
///
/// # Errors
/// The system's.
pub fn open_standard_descriptors() -> io::Result<()> {
    for fd in 0..3 {
        // SAFETY: F_GETFD takes any number.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            to_dev_null(fd)?;
        }
    }
    Ok(())
}

/// Makes the process the leader of a session and process group of its own, unless it is already.
///
/// # Errors
/// The system's.
pub fn new_session() -> io::Result<()> {
    match setsid() {
        Err(_) if getsid(None) == Ok(getpid()) => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

/// Lifts the limit on the size of files, and takes as many descriptors as are to be had; children
/// inherit both, as under Postfix.
///
/// # Errors
/// The system's.
pub fn raise_limits() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if soft != RLIM_INFINITY {
        // Only root may go beyond the hard limit.
        let lifted = setrlimit(Resource::RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY);
        lifted.or_else(|_| setrlimit(Resource::RLIMIT_FSIZE, hard, hard))?;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Ends this process, a copy of another, without anything that the other will do at its end.
pub fn leave() -> ! {
    // SAFETY: it touches no memory.
    unsafe { libc::_exit(0) }
}

/// A process that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dead {
    pub pid: i32,
    pub end: End,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
}

/// Reaps a child, if it is one and has ended. The kernel need not look for it.
pub fn reap(pid: i32) -> Option<Dead> {
    // Other numbers mean any child of some kind.
    (pid > 0).then(|| wait(pid)).flatten()
}

/// Reaps a child that has ended, if there is one. The kernel looks through all that live.
pub fn reap_any() -> Option<Dead> {
    wait(-1)
}

/// waitpid(2), without waiting.
fn wait(which: i32) -> Option<Dead> {
    loop {
        let mut status = 0;
        // SAFETY: the call writes one int to where it is told. (A wrapper that knows signals by
        // name would lose a child that a real-time signal killed.)
        let pid = unsafe { libc::waitpid(which, &mut status, libc::WNOHANG) };
        if pid > 0 && libc::WIFEXITED(status) {
            let end = End::Code(libc::WEXITSTATUS(status));
            return Some(Dead { pid, end });
        }
        if pid > 0 && libc::WIFSIGNALED(status) {
            let end = End::Signal(libc::WTERMSIG(status));
            return Some(Dead { pid, end });
        }
        // A child that a debugger stopped is alive; look further.
        if pid == 0 || (pid < 0 && Errno::last() != Errno::EINTR) {
            return None;
        }
    }
}

/// The two sides of [`fork_monitor`].
#[derive(Debug)]
pub enum Monitor {
    /// This is the daemon: say here whether it got up.
    Daemon(Reporter),
    /// This is the process that waited for it: what it was told.
    Waited(Outcome),
}

/// What the monitor learned of the daemon's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Started,
    /// The daemon ended before it was up; it has said why where both still write to.
    Ended,
    /// The daemon took too long, and was killed.
    TimedOut,
}

/// The daemon's end of the pipe to its monitor.
#[derive(Debug)]
pub struct Reporter(OwnedFd);

impl Reporter {
    /// Tells the monitor that the daemon is up.
    pub fn started(self) {
        // A monitor that is gone does not need to be told anything.
        let _ = File::from(self.0).write_all(&[0]);
    }
}

/// Forks: the daemon goes on, and the process that was started waits for it to report, for as long
/// as `limit`, so that a script sees by an exit status whether the daemon is up.
///
/// # Errors
/// The system's.
pub fn fork_monitor(limit: Duration) -> io::Result<Monitor> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the process has a single thread, so that the copy finds no lock held.
    match unsafe { fork()? } {
        ForkResult::Child => Ok(Monitor::Daemon(Reporter(theirs))),
        ForkResult::Parent { child } => {
            drop(theirs);
            Ok(Monitor::Waited(wait_for_report(ours, child, limit)))
        }
    }
}

fn wait_for_report(ours: OwnedFd, child: Pid, limit: Duration) -> Outcome {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    if !matches!(poll(&mut fds, timeout), Ok(1..)) {
        let _gone = kill(child, Signal::SIGKILL);
        return Outcome::TimedOut;
    }
    match File::from(ours).read(&mut [0]) {
        Ok(1) => Outcome::Started,
        _ => {
            // It is about to say why: only then it has ended.
            let _ = waitpid(child, None);
            Outcome::Ended
        }
    }
}

/// Makes the environment of this process just these variables.
pub fn set_environment(variables: &BTreeMap<OsString, OsString>) {
    let old: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    // SAFETY: the process has a single thread, so that nobody reads the environment meanwhile.
    unsafe {
        for name in &old {
            std::env::remove_var(name);
        }
        for (name, value) in variables {
            std::env::set_var(name, value);
        }
        // The time zone may be another.
        tzset();
    }
}

unsafe extern "C" {
    /// POSIX; the libc crate leaves it out for Linux.
    fn tzset();
}

/// Makes descriptor numbers from `first` up to `end` taken, so that nothing else gets them.
///
/// # Errors
/// The system's, when the numbers are beyond the limit or one of them is taken already.
pub fn reserve_descriptors(first: RawFd, end: RawFd) -> io::Result<OwnedFd> {
    let null = open_dev_null(end)?;
    for fd in first..end {
        place(null.as_raw_fd(), fd, libc::O_CLOEXEC)?;
    }
    Ok(null)
}

/// Opens /dev/null at a descriptor number from `first` on.
fn open_dev_null(first: RawFd) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor of an open one, which is owned here only;
    // the one that open() chose, perhaps a number that is wanted for something else, is closed.
    unsafe {
        let fd = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first);
        match fd {
            0.. => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Makes `to` another descriptor of the file behind `from`.
pub(super) fn place(from: RawFd, to: RawFd, flags: i32) -> io::Result<()> {
    loop {
        // SAFETY: `from` is open, and whatever `to` was is one of the reserved numbers, which
        // nothing owns.
        if unsafe { libc::dup3(from, to, flags) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Gives memory that was needed for a while, and has gaps of what stays, back to the system.
pub fn trim_memory() {
    // SAFETY: it touches no memory that is in use. The result says whether there was any to give.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The pipe that children use to slow each other down: both ends non-blocking and closed on exec.
///
/// # Errors
/// The system's.
pub fn flow_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?)
}
