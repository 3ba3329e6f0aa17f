//! Closes sockets in another process, because what the kernel does then can wait, and the master must
//! not.
//!
//! A socket that may have received other sockets which linger (`SO_LINGER`): the kernel closes those
//! in the time of the process that does the last close; but it does not let a process linger that is
//! about to end. So another process has the sockets, too, and ends after the master has closed them.
//!
//! A listener that children have: a child can hold its lock for as long as it likes, with a system
//! call that reads a page of memory which never comes (userfaultfd, FUSE). Closing a duplicate does
//! not need the lock, shutdown(2) does.

use std::fs::File;
use std::io::Read;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{ForkResult, pipe2};

use super::{detached, poll, process};

/// Closes these sockets. Where the system makes no other process they stay open: the master must
/// not wait, and the limit on descriptors is a limit for these, too.
pub fn close(sockets: Vec<OwnedFd>) {
    close_with(sockets, |_| {});
}

/// Shuts listeners down, so that clients are refused and do not wait in their queues, and closes
/// them. Waits for so long at the most until all are shut down.
pub fn shut_down(listeners: Vec<OwnedFd>, limit: Duration) {
    let Ok((all_done, done)) = pipe2(OFlag::O_CLOEXEC) else {
        return close(listeners);
    };
    let mut done = Some(done);
    close_with(listeners, |listeners| {
        let done = done.take();
        for listener in listeners.iter().map(AsRawFd::as_raw_fd) {
            // Each in a process of its own: one that waits keeps no other.
            match process::fork() {
                Ok(ForkResult::Parent { .. }) => {}
                Ok(ForkResult::Child) => {
                    let done = done.as_ref().map_or(listener, AsRawFd::as_raw_fd);
                    // SAFETY: this copy leaves here.
                    unsafe { process::keep_only([listener, done]) };
                    let _ = shutdown(listener, Shutdown::Read);
                    process::leave(0)
                }
                Err(_) => drop(shutdown(listener, Shutdown::Read)),
            }
        }
    });
    drop(done);
    poll::wait_until_readable(all_done.as_fd(), limit);
}

/// Closes these sockets after another process, which has them too, has begun to `act` on them.
fn close_with(sockets: Vec<OwnedFd>, act: impl FnOnce(&[OwnedFd])) {
    let Ok((end, closed)) = pipe2(OFlag::O_CLOEXEC) else {
        return mem::forget(sockets);
    };
    let mut closed = Some(closed);
    let copied = detached::run(|| {
        closed = None;
        act(&sockets);
        // It comes when the first process has closed the sockets.
        let _ = File::from(end).read_to_end(&mut Vec::new());
    });
    match copied {
        Ok(()) => drop((sockets, closed)),
        Err(_) => mem::forget(sockets),
    }
}
