//! What a daemon does to its own process, and the reaping of others.
//!
//! The master's process has a single thread: [`is_single_threaded`] is checked at its start, and no
//! code of the master makes another one. Functions that need this say so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, getsid, pipe2, setsid};

/// Whether this process has no other thread, as far as proc(5) can be read.
pub fn is_single_threaded() -> bool {
    fs::read_dir("/proc/self/task").map_or(true, |threads| threads.count() == 1)
}

/// Sets the file mode mask: only their owner may use the master's files unless their mode is set.
pub fn set_umask(mask: u32) {
    umask(Mode::from_bits_truncate(mask));
}

/// Closes the descriptors from `first` to `last`, as far as there are any.
///
/// # Safety
/// No value of this process, such as an `OwnedFd`, owns a descriptor in this range, unless the process
/// never uses or drops that value any more.
pub(super) unsafe fn close_range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: the caller guarantees that nothing in this range is in use.
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

/// Makes the process the leader of a session and process group of its own, unless it is one already.
///
/// # Errors
/// The system's.
pub fn new_session() -> io::Result<()> {
    match setsid() {
        Err(_) if getsid(None) == Ok(getpid()) => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

/// Lifts the limit on the size of files, and raises the one on descriptors as far as it goes; children
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
        // The monitor may be gone.
        let _ = File::from(self.0).write_all(&[0]);
    }
}

/// Forks: the daemon goes on, and the process that was started waits for its report, at most for
/// `limit`, so that a script sees by an exit status whether the daemon is up.
///
/// # Errors
/// The system's.
pub fn fork_monitor(limit: Duration) -> io::Result<Monitor> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the master's process has a single thread, so that the copy finds no lock held.
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
            // It has closed the pipe, and may still be writing why to standard error.
            let _ = waitpid(child, None);
            Outcome::Ended
        }
    }
}

/// Makes the environment of this process just these variables. What no process can be given by name
/// is left out: a name that is empty or has `=` in it, and a null byte anywhere.
pub fn set_environment(variables: &BTreeMap<OsString, OsString>) {
    // SAFETY: the master's process has a single thread, so that the environment is not read
    // meanwhile. (All of it goes at once: an entry that begins with "=", which execve(2) allows,
    // cannot be removed by its name.)
    unsafe { libc::clearenv() };
    for (name, value) in variables {
        if is_variable(name.as_bytes(), value.as_bytes()) {
            // SAFETY: as above.
            unsafe { std::env::set_var(name, value) };
        }
    }
    // The time zone may be another.
    // SAFETY: as above: no other thread reads the environment or the time zone.
    unsafe { tzset() };
}

/// Whether std::env takes this variable; it panics otherwise.
fn is_variable(name: &[u8], value: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'=') && ![name, value].concat().contains(&0)
}

unsafe extern "C" {
    /// POSIX; the libc crate leaves it out for Linux.
    fn tzset();
}

/// Reserves the descriptor numbers from `first` up to, but not including, `end`.
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
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor of an open one, which is owned here only. (The
    // one that open() chose may have a number that is reserved, and is closed.)
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

/// Gives free memory between what is in use back to the system.
pub fn trim_memory() {
    // SAFETY: it touches no memory that is in use. The result says whether any was given back.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_a_name_without_an_equals_sign_and_no_null_byte() {
        assert!(is_variable(b"A", b"=b"));
        assert!(is_variable(b"A", b""));
        for (name, value) in [
            ("", "b"),
            ("=A", "b"),
            ("A=", "b"),
            ("A\0", "b"),
            ("A", "\0"),
        ] {
            assert!(!is_variable(name.as_bytes(), value.as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn another_thread_is_noticed() {
        let other = std::thread::spawn(is_single_threaded);
        assert!(!other.join().unwrap());
    }
}
