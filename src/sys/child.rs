//! Processes that this one has started, by pidfd: what is signalled or waited for is that process
//! and no other, at a cost that does not depend on how many there are.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use syscalls::{Sysno, raw_syscall};

use super::poll::wait_until_readable;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
}

/// A child process. Its descriptor is readable once it has ended.
#[derive(Debug)]
pub struct ChildProcess {
    pid: i32,
    pidfd: OwnedFd,
}

/// A descriptor for a process, whatever becomes of its number.
///
/// # Errors
/// `ESRCH`: there is no such process. `EMFILE`, `ENFILE`: descriptors have run out.
pub(super) fn open_pidfd(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two numbers, and returns a new descriptor, owned here only.
    unsafe {
        let pidfd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(pidfd as RawFd))
    }
}

impl ChildProcess {
    /// A process that clone(2) has made with `CLONE_PIDFD`, perhaps for a former program.
    pub fn new(pid: i32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd }
    }

    /// A process by its pid, which may be another's by now.
    ///
    /// # Errors
    /// The system's: there is no such process.
    pub fn open(pid: i32) -> io::Result<Self> {
        let pidfd = open_pidfd(pid)?;
        Ok(Self { pid, pidfd })
    }

    /// Whether it is a child of this process, which may have ended.
    pub fn is_own(&self) -> bool {
        let (which, id) = (libc::P_PIDFD, self.pidfd.as_raw_fd() as libc::id_t);
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: the call takes numbers, and no structure where it is null.
        unsafe { libc::waitid(which, id, ptr::null_mut(), flags) == 0 }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        wait_until_readable(self.as_fd(), Duration::ZERO)
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal. A process that has ended takes none, which is no error.
    pub fn send(&self, signal: Signal) {
        let (pidfd, signal) = (self.pidfd.as_raw_fd(), signal as libc::c_int);
        // SAFETY: the descriptor is open, and there is no structure to read.
        unsafe { raw_syscall!(Sysno::pidfd_send_signal, pidfd, signal, 0, 0) };
    }

    /// Reaps the process, if it has ended. After that its pid can be another's.
    pub fn reap(&self) -> Option<End> {
        let pidfd = self.pidfd.as_raw_fd() as libc::id_t;
        wait(libc::P_PIDFD, pidfd, 0).map(|(_, end)| end)
    }
}

impl AsFd for ChildProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A child that has ended and was not reaped yet, also one that process 1 or a subreaper has
/// inherited. It is not reaped.
pub fn look_for_ended() -> Option<i32> {
    wait(libc::P_ALL, 0, libc::WNOWAIT).map(|(pid, _)| pid)
}

/// Reaps a child by its pid, if it has ended.
pub fn reap_by_pid(pid: i32) {
    wait(libc::P_PID, pid as libc::id_t, 0);
}

/// waitid(2), which does not wait with these flags. (A wrapper that knows signals by name would lose
/// a child that a real-time signal ended.)
fn wait(which: libc::idtype_t, id: libc::id_t, flags: libc::c_int) -> Option<(i32, End)> {
    let flags = flags | libc::WEXITED | libc::WNOHANG;
    // SAFETY: the call fills the structure in or leaves the zeroes, which are a value of it. The
    // fields are those of a child's end, and zero otherwise.
    let (info, pid, status) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(which, id, &raw mut info, flags);
        (info, info.si_pid(), info.si_status())
    };
    let end = if info.si_code == libc::CLD_EXITED {
        End::Code(status)
    } else {
        End::Signal(status)
    };
    (pid != 0).then_some((pid, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn start(program: &str) -> ChildProcess {
        let child = Command::new("/bin/sh").args(["-c", program]).spawn();
        ChildProcess::open(child.unwrap().id() as i32).unwrap()
    }

    fn end(process: &ChildProcess) -> End {
        assert!(wait_until_readable(
            process.as_fd(),
            Duration::from_secs(10)
        ));
        process.reap().expect("it has ended")
    }

    #[test]
    fn a_process_is_reaped_once_with_its_status() {
        let process = start("exit 7");
        assert_eq!(end(&process), End::Code(7));
        assert_eq!(process.reap(), None);
        process.send(Signal::SIGTERM);
    }

    #[test]
    fn a_process_that_lives_is_not_reaped_and_can_be_signalled() {
        let process = start("read -r line < /dev/zero");
        assert_eq!(process.reap(), None);
        process.send(Signal::SIGKILL);
        assert_eq!(end(&process), End::Signal(libc::SIGKILL));
    }

    #[test]
    fn a_child_is_own_until_it_is_reaped_and_others_are_not() {
        let process = start("exit 0");
        assert!(process.is_own());
        end(&process);
        assert!(process.has_ended());
        assert!(!process.is_own());
        assert!(
            !ChildProcess::open(std::process::id() as i32)
                .unwrap()
                .is_own()
        );
        assert!(!ChildProcess::open(1).unwrap().is_own());
        assert!(ChildProcess::open(i32::MAX).is_err());
    }

    #[test]
    fn a_real_time_signal_is_an_end_like_others() {
        let process = start("kill -34 $$; sleep 10");
        assert_eq!(end(&process), End::Signal(34));
    }
}
