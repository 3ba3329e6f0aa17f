//! A copy of this process that is not its child, so that it need not be reaped.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, pipe2};

use super::process;

/// Makes a copy of this process, which must have a single thread, and which goes on meanwhile. The
/// copy acts, and ends.
///
/// # Errors
/// The system's: there is no room for another process.
pub(super) fn run(act: impl FnOnce()) -> io::Result<()> {
    match process::fork()? {
        ForkResult::Parent { child } => {
            // It ends at once, when it has made the copy that stays, or could not.
            let end = loop {
                match waitpid(child, None) {
                    Err(Errno::EINTR) => {}
                    end => break end?,
                }
            };
            match end {
                WaitStatus::Exited(_, 0) => Ok(()),
                _ => Err(Errno::EAGAIN.into()),
            }
        }
        ForkResult::Child => match process::fork() {
            Ok(ForkResult::Child) => {
                act();
                process::leave(0)
            }
            Ok(ForkResult::Parent { .. }) => process::leave(0),
            Err(_) => process::leave(1),
        },
    }
}

/// Has a copy of this process act that has nothing but the standard descriptors, the write end of a
/// pipe, and `fd`: the copy may have to wait for a child or a local user, longer than the rest of the
/// master lives. The read end, which is readable when the copy has written or ended.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`, `EMFILE`, `ENFILE`: there is no room for another process, or for the pipe.
pub fn start(fd: Option<BorrowedFd<'_>>, act: impl FnOnce(File)) -> io::Result<File> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    run(|| {
        let end = theirs.as_raw_fd();
        // SAFETY: this copy leaves after `act`, which uses what it was given here.
        unsafe { process::keep_only([end, fd.map_or(end, |fd| fd.as_raw_fd())]) };
        act(File::from(theirs));
    })?;
    Ok(File::from(ours))
}
