//! What a daemon does to its own process.
//!
//! The master's process has a single thread: [`is_single_threaded`] is checked at its start, and no
//! code of the master makes another one. Functions that need this say so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, SysconfVar, getpid, getsid, setsid, sysconf};

/// Whether this process has no other thread, as far as proc(5) can be read.
pub fn is_single_threaded() -> bool {
    fs::read_dir("/proc/self/task").map_or(true, |threads| threads.count() == 1)
}

/// The name of a process that has not ended, as ps(1) shows it. Its command line is not asked for:
/// that is in its own memory, whose pages may never come.
pub fn name(pid: i32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
    Some(name.replace(char::is_control, "?"))
}

/// The resident memory of a process, in bytes: first the memory that it and the process from which it was
/// forked have for themselves; second pages of files and shared memory. The kernel reads counters for this, and no memory of the process.
///
/// # Errors
/// The process has ended, or proc(5) is not mounted or hides it (`hidepid`).
pub fn memory(pid: i32) -> io::Result<(u64, u64)> {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let mut pages = pages
        .split_ascii_whitespace()
        .skip(1)
        .map(str::parse::<u64>);
    let (Some(Ok(resident)), Some(Ok(shared))) = (pages.next(), pages.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| u64::try_from(size).ok());
    let page = page.unwrap_or(4096);
    Ok((resident.saturating_sub(shared) * page, shared * page))
}

/// A flag in proc(5) of a process that was forked and has not executed a program (linux/sched.h).
const FORKED: u64 = 0x40;

/// Whether a process has executed a program since it was forked, as far as proc(5) can be read.
pub(super) fn has_executed(pid: i32) -> bool {
    let text = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // The name can have any characters, and ends with the last parenthesis.
    let flags = text
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_ascii_whitespace().nth(6));
    flags
        .and_then(|flags| flags.parse::<u64>().ok())
        .is_none_or(|flags| flags & FORKED == 0)
}

/// The user for whom a process was started, as far as it has not changed that.
pub fn real_user(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_whitespace().next()?.parse().ok()
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
    // SAFETY: the caller guarantees that nothing in this range is in use. A range without numbers is
    // refused, which does no harm, and nothing else is.
    unsafe { libc::close_range(first as u32, last as u32, 0) };
}

/// Has a copy of this process keep the standard descriptors and these only: the copy can outlive what
/// the others are for.
///
/// # Safety
/// This process is a copy that never goes back to values which own other descriptors.
pub(super) unsafe fn keep_only(mut kept: impl AsMut<[RawFd]>) {
    let kept = kept.as_mut();
    kept.sort_unstable();
    let mut first = libc::STDERR_FILENO + 1;
    for &mut fd in kept {
        if first < fd {
            // SAFETY: the caller guarantees that nothing owns what is between those that are kept.
            unsafe { close_range(first, fd - 1) };
        }
        first = fd + 1;
    }
    // SAFETY: as above.
    unsafe { close_range(first, RawFd::MAX) };
}

/// Another descriptor of an open file, with a number from `first` on, which is closed on exec.
///
/// # Errors
/// The system's: `fd` is not open, or descriptors have run out.
pub fn duplicate(fd: RawFd, first: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes any numbers. What it returns is new, and owned here only.
    unsafe {
        let new = Errno::result(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, first))?;
        Ok(OwnedFd::from_raw_fd(new))
    }
}

/// Makes `to` another descriptor of the file behind `from`.
///
/// # Errors
/// The system's: the number is beyond the limit.
///
/// # Safety
/// No value of this process owns the descriptor `to`.
pub(super) unsafe fn place(from: &impl AsFd, to: RawFd, flags: OFlag) -> io::Result<()> {
    // SAFETY: `from` is open, and the caller guarantees that nothing is taken from an owner of `to`.
    let placed = unsafe { libc::dup3(from.as_fd().as_raw_fd(), to, flags.bits()) };
    Ok(Errno::result(placed).map(drop)?)
}

/// Has reads and writes fail that would wait, through all descriptors of the open file.
///
/// # Errors
/// The system's.
pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Opens /dev/null at a descriptor number from `first` on.
///
/// # Errors
/// The system's.
pub(super) fn open_dev_null(first: RawFd) -> io::Result<OwnedFd> {
    // The number that open(2) chooses may be one that is reserved, and is closed.
    let file = File::options().read(true).write(true).open("/dev/null")?;
    duplicate(file.as_raw_fd(), first)
}

/// Points a standard descriptor, of number 0, 1 or 2, at /dev/null.
///
/// # Errors
/// /dev/null cannot be opened: it is missing, or descriptors have run out. The descriptor is what it was.
pub fn to_dev_null(fd: RawFd) -> io::Result<()> {
    let null = open_dev_null(3)?;
    // SAFETY: no value owns a standard descriptor.
    unsafe { place(&null, fd, OFlag::empty()) }
}

/// Opens standard descriptors that are closed, so that no other file takes their numbers.
///
/// # Errors
/// /dev/null cannot be opened: the caller must not open other files then.
pub fn open_standard_descriptors() -> io::Result<()> {
    for fd in 0..3 {
        // SAFETY: F_GETFD takes any number.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            to_dev_null(fd)?;
        }
    }
    Ok(())
}

/// Makes this process the parent of descendants whose own parent ends, or no longer.
///
/// # Errors
/// `EINVAL`, on a kernel without it; what seccomp(2) forbids. Children of templates go to process 1
/// then, and are not taken for the master's own.
pub fn set_subreaper(is: bool) -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(is)?)
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

/// A soft and a hard limit of setrlimit(2).
pub type Limit = (rlim_t, rlim_t);

/// Lifts the limit on the size of files; children inherit that, as under Postfix.
///
/// # Errors
/// The system's.
pub fn lift_file_size_limit() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    // Only root may go beyond the hard limit.
    Ok(
        setrlimit(Resource::RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY)
            .or_else(|_| setrlimit(Resource::RLIMIT_FSIZE, hard, hard))?,
    )
}

/// Raises the limit on descriptors as far as it goes. Returned is the former one, if it was lower:
/// programs that use select(2), or close all descriptors that there could be, rely on a low one.
///
/// # Errors
/// `EPERM` cannot happen, because only the soft limit is raised; what seccomp(2) forbids can.
pub fn raise_descriptor_limit() -> io::Result<Option<Limit>> {
    let former @ (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft == hard {
        return Ok(None);
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        // The hard limit is of a time before fs.nr_open was lowered.
        Err(Errno::EPERM) => Ok(None),
        raised => Ok(raised.map(|()| Some(former))?),
    }
}

/// Makes a copy of this process.
///
/// # Errors
/// The system's: there is no room for another process.
pub fn fork() -> io::Result<ForkResult> {
    // SAFETY: the master's process has a single thread, so that the copy finds no lock held.
    Ok(unsafe { nix::unistd::fork()? })
}

/// Ends this process, a copy of another, without anything that the other will do at its end.
pub(super) fn leave(status: i32) -> ! {
    // SAFETY: it touches no memory.
    unsafe { libc::_exit(status) }
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

/// Gives free memory between what is in use back to the system.
pub fn trim_memory() {
    // SAFETY: it touches no memory that is in use. The result says whether any was given back.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
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
    fn a_process_has_a_name_and_a_user_until_it_has_ended() {
        let pid = std::process::id() as i32;
        assert!(name(pid).is_some_and(|name| !name.is_empty()));
        assert_eq!(real_user(pid), Some(nix::unistd::getuid().as_raw()));
        assert_eq!((name(i32::MAX), real_user(i32::MAX)), (None, None));
        let (own, shared) = memory(pid).unwrap();
        assert!(own > 0 && shared > 0, "{own} {shared}");
        assert!(memory(i32::MAX).is_err());
    }

    #[test]
    fn another_thread_is_noticed() {
        let other = std::thread::spawn(is_single_threaded);
        assert!(!other.join().unwrap());
    }
}
