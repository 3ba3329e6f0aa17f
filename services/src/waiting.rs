//! How an idle child waits.
//!
//! All idle children of a service wait on the same listeners. For each connection the kernel wakes
//! up only one of them (`EPOLLEXCLUSIVE`), so that many idle children cost nothing and need no
//! lock. Each child makes its own epoll instance after exec: children that share an instance would
//! count as one waiter.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::status::Status;

/// The key of the status channel. The key of a listener is its index.
const STATUS: u64 = u64::MAX;

/// The result of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The listener with this index is ready, unless another child is faster.
    Listener(usize),
    /// The master has ended, or tells the child to leave.
    ToldToLeave,
    /// The time is over.
    Idle,
}

/// The listeners and the status channel of a child.
#[derive(Debug)]
pub(crate) struct Waiting {
    epoll: Epoll,
}

impl Waiting {
    /// Watches the descriptors. The caller keeps them open while this value exists.
    ///
    /// # Errors
    /// A system call's error.
    pub(crate) fn new(status: &Status, listeners: &[OwnedFd]) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(status, EpollEvent::new(EpollFlags::EPOLLIN, STATUS))?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        for (index, listener) in (0..).zip(listeners) {
            epoll.add(listener, EpollEvent::new(flags, index))?;
        }
        Ok(Self { epoll })
    }

    /// Waits for one of the descriptors, at most until `deadline`.
    ///
    /// # Errors
    /// A system call's error.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<Woken> {
        // Take one event at a time: the kernel moves a reported descriptor to the end of its list,
        // so that no listener starves.
        let mut events = [EpollEvent::empty()];
        loop {
            match self.epoll.wait(&mut events, timeout(deadline)) {
                Ok(0) if deadline.is_some_and(|at| at <= Instant::now()) => {
                    return Ok(Woken::Idle);
                }
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) if events[0].data() == STATUS => return Ok(Woken::ToldToLeave),
                // The key is an index, so it fits.
                Ok(_) => return Ok(Woken::Listener(events[0].data() as usize)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The time until `deadline` for epoll, rounded up so that the wait never ends early.
pub(crate) fn timeout(deadline: Option<Instant>) -> EpollTimeout {
    let Some(deadline) = deadline else {
        return EpollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let left = left + Duration::from_nanos(999_999);
    // A time beyond the kernel's maximum is waited for in several steps.
    EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn channel() -> (Status, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Status::new(ours.into(), 1), theirs)
    }

    #[test]
    fn the_wait_ends_with_the_deadline() {
        let (status, _master) = channel();
        let waiting = Waiting::new(&status, &[]).unwrap();
        let deadline = Instant::now() + Duration::from_millis(5);
        assert_eq!(waiting.wait(Some(deadline)).unwrap(), Woken::Idle);
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn the_wait_ends_when_the_master_is_gone_and_does_so_again() {
        let (status, master) = channel();
        let waiting = Waiting::new(&status, &[]).unwrap();
        drop(master);
        assert_eq!(waiting.wait(None).unwrap(), Woken::ToldToLeave);
        assert_eq!(waiting.wait(None).unwrap(), Woken::ToldToLeave);
    }

    #[test]
    fn busy_listeners_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let (status, _master) = channel();
        let listen = |name: &str| UnixListener::bind(dir.path().join(name)).unwrap();
        let listeners = [listen("a").into(), listen("b").into()];
        let waiting = Waiting::new(&status, &listeners).unwrap();
        let connect = |name: &str| UnixStream::connect(dir.path().join(name)).unwrap();
        let _clients = [connect("a"), connect("b")];
        let first = waiting.wait(None).unwrap();
        let second = waiting.wait(None).unwrap();
        assert_ne!(first, second);
        assert_eq!(waiting.wait(None).unwrap(), first);
    }
}
