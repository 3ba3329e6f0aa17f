//! A copy of this process that is not its child, so that it need not be reaped.

use std::io;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;

use super::process;

/// The two processes after [`copy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Original,
    /// It must end with [`process::leave`].
    Copy,
}

/// Makes a copy of this process, which must have a single thread.
///
/// # Errors
/// The system's: there is no room for another process.
pub(super) fn copy() -> io::Result<Side> {
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
                WaitStatus::Exited(_, 0) => Ok(Side::Original),
                _ => Err(Errno::EAGAIN.into()),
            }
        }
        ForkResult::Child => match process::fork() {
            Ok(ForkResult::Child) => Ok(Side::Copy),
            Ok(ForkResult::Parent { .. }) => process::leave(0),
            Err(_) => process::leave(1),
        },
    }
}
