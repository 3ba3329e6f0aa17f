//! A copy of this process that is not its child, so that it need not be reaped.

use std::io;

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

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
    // SAFETY: the process has a single thread, as the caller sees to, so that the copy finds no
    // lock held.
    match unsafe { fork()? } {
        ForkResult::Parent { child } => {
            // It ends at once, when it has made the copy that stays.
            let _ = waitpid(child, None);
            Ok(Side::Original)
        }
        // SAFETY: as above.
        ForkResult::Child => match unsafe { fork() } {
            Ok(ForkResult::Child) => Ok(Side::Copy),
            _ => process::leave(),
        },
    }
}
