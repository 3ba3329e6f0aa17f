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
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{ForkResult, pipe2};

use super::{detached, poll, process};

/// A listener that takes longer to be shut down is locked by a child: the others do not wait for it.
const LOCKED: Duration = Duration::from_millis(5);

/// Closes these sockets. Where the system makes no other process they stay open: the master must
/// not wait, and the limit on descriptors is a limit for these, too.
pub fn close(sockets: Vec<OwnedFd>) {
    close_with(sockets, |_, _| {});
}

/// Shuts listeners down, so that clients are refused and do not wait in their queues, and closes
/// them. Returns when all are shut down, at the latest after `limit`.
pub fn shut_down(listeners: Vec<OwnedFd>, limit: Duration) {
    let Ok((all_done, done)) = pipe2(OFlag::O_CLOEXEC) else {
        return close(listeners);
    };
    let mut done = Some(done);
    close_with(listeners, |listeners, end| {
        let done = done.take();
        let others = done.iter().chain([end]).map(AsRawFd::as_raw_fd);
        let kept: Vec<_> = listeners
            .iter()
            .map(AsRawFd::as_raw_fd)
            .chain(others)
            .collect();
        // SAFETY: this copy uses nothing else, and leaves.
        unsafe { process::keep_only(kept) };
        shut_down_all(listeners);
    });
    drop(done);
    poll::wait_until_readable(all_done.as_fd(), limit);
}

/// Shuts down one after the other in a process of its own, and leaves that behind at one that is
/// locked: another goes on with those that follow.
fn shut_down_all(mut listeners: &[OwnedFd]) {
    while !listeners.is_empty() {
        let Ok((progress, step)) = pipe2(OFlag::O_CLOEXEC) else {
            return;
        };
        match process::fork() {
            Ok(ForkResult::Parent { .. }) => drop(step),
            Ok(ForkResult::Child) => {
                drop(progress);
                shut_down_until_locked(listeners, &step);
                process::leave(0)
            }
            Err(_) => return,
        }
        let progress = File::from(progress);
        let mut done = 0;
        while poll::wait_until_readable(progress.as_fd(), LOCKED) {
            match (&progress).read(&mut [0; 256]) {
                // It has ended: one took long, or all are done.
                Ok(0) | Err(_) => break,
                Ok(some) => done += some,
            }
        }
        listeners = listeners.get(done + 1..).unwrap_or_default();
    }
}

/// Writes a byte for each that is done. Returns after a listener that took [`LOCKED`] or longer: the
/// caller has begun another process for those that follow.
fn shut_down_until_locked(listeners: &[OwnedFd], step: &OwnedFd) {
    for listener in listeners {
        let begin = Instant::now();
        let _ = shutdown(listener.as_raw_fd(), Shutdown::Read);
        if begin.elapsed() >= LOCKED || nix::unistd::write(step, &[0]).is_err() {
            return;
        }
    }
}

/// Closes these sockets after another process, which has them too, has begun to `act` on them. That
/// process needs the descriptor that `act` is given.
fn close_with(sockets: Vec<OwnedFd>, act: impl FnOnce(&[OwnedFd], &OwnedFd)) {
    let Ok((end, closed)) = pipe2(OFlag::O_CLOEXEC) else {
        return mem::forget(sockets);
    };
    let mut closed = Some(closed);
    let copied = detached::run(|| {
        closed = None;
        act(&sockets, &end);
        // It comes when the first process has closed the sockets.
        let _ = File::from(end).read_to_end(&mut Vec::new());
    });
    match copied {
        Ok(()) => drop((sockets, closed)),
        Err(_) => mem::forget(sockets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{SOON, in_own_process};
    use nix::sys::socket::{getsockopt, sockopt};
    use std::net::TcpListener;

    #[test]
    fn hundreds_of_listeners_are_shut_down_in_a_moment() {
        let name = "sys::closer::tests::hundreds_of_listeners_are_shut_down_in_a_moment";
        if !in_own_process(name) {
            return;
        }
        let listen = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        let childs: Vec<TcpListener> = (0..400).map(listen).collect();
        let own = childs.iter().map(|l| l.try_clone().unwrap().into());
        let own: Vec<OwnedFd> = own.collect();
        let begin = Instant::now();
        shut_down(own, SOON);
        assert!(begin.elapsed() < SOON);
        for child in childs {
            assert_eq!(getsockopt(&child, sockopt::AcceptConn), Ok(false));
        }
    }
}
