//! A copy of this process that is not its child, so that it need not be reaped.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, pipe2};

use super::process;
use crate::errors::describe_error;

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

/// A text for a file of the kernel.
#[derive(Debug)]
pub struct Write {
    pub file: PathBuf,
    pub text: String,
    /// How the line begins that tells of a failure; none if a failure does not matter.
    pub fault: Option<String>,
}

/// Writes into files, one after the other, in a copy of this process: a write can wait for what others
/// do. The copy sends a line for each failure that matters: the descriptor never blocks, and is at its
/// end when all is written.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`, `EMFILE`, `ENFILE`: there is no room for another process, or for the pipe.
pub fn write_files(writes: Vec<Write>) -> io::Result<File> {
    let faults = start(None, |mut pipe| {
        for Write { file, text, fault } in writes {
            if let (Err(error), Some(fault)) = (fs::write(file, text), fault) {
                // It fails when the master has ended.
                let _ = writeln!(pipe, "{fault}: {}", describe_error(&error));
            }
        }
    })?;
    process::set_nonblocking(&faults)?;
    Ok(faults)
}

/// Has a copy of this process act that has nothing but the standard descriptors, the write end of a
/// pipe, and `fd`: the copy may have to wait for a child or a local user, longer than the rest of the
/// master lives. The read end, which is readable when the copy has written or ended.
///
/// # Errors
/// The system's: there is no room for another process, or for the pipe.
pub(super) fn start(fd: Option<BorrowedFd<'_>>, act: impl FnOnce(File)) -> io::Result<File> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    run(|| {
        let end = theirs.as_raw_fd();
        // SAFETY: this copy leaves after `act`, which uses what it was given here.
        unsafe { process::keep_only([end, fd.map_or(end, |fd| fd.as_raw_fd())]) };
        act(File::from(theirs));
    })?;
    Ok(File::from(ours))
}
