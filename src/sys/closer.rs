//! Closes sockets that may have received other sockets which linger (`SO_LINGER`), without waiting.
//!
//! The kernel closes received sockets together with the socket that has received them, in the time
//! of the process that does the last close; but it does not let a process linger that is about to
//! end. So another process has the sockets, too, and ends after the master has closed them.

use std::fs::File;
use std::io::Read;
use std::mem;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::detached;

/// Closes these sockets. Where the system makes no other process they stay open: the master must
/// not wait, and the limit on descriptors is a limit for these, too.
pub fn close(sockets: Vec<OwnedFd>) {
    let Ok((end, closed)) = pipe2(OFlag::O_CLOEXEC) else {
        return mem::forget(sockets);
    };
    let mut closed = Some(closed);
    let copied = detached::run(|| {
        closed = None;
        // It comes when this process has closed the sockets.
        let _ = File::from(end).read_to_end(&mut Vec::new());
    });
    match copied {
        Ok(()) => drop((sockets, closed)),
        Err(_) => mem::forget(sockets),
    }
}
