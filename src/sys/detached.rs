//! A copy of this process that is not its child, so that it need not be reaped.

use std::io;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;

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
