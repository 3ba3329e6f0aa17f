//! Which descriptors are ready.
//!
//! Interest is level-triggered: what was not read is reported again. A descriptor must be removed
//! before it is closed: its children share the description that the kernel's table refers to.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Readable,
    Writable,
    Both,
}

impl Interest {
    fn event(self, key: usize) -> EpollEvent {
        let flags = match self {
            Self::Readable => EpollFlags::EPOLLIN,
            Self::Writable => EpollFlags::EPOLLOUT,
            Self::Both => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
        };
        EpollEvent::new(flags, key as u64)
    }
}

/// Whether a line can be written without waiting for who reads it.
pub fn can_write(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    matches!(nix::poll::poll(&mut fds, PollTimeout::ZERO), Ok(1..))
}

/// A set of descriptors, each with a key of the caller's.
#[derive(Debug)]
pub struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poll {
    /// Events taken in one turn; the others wait for the next.
    pub const TURN: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

    /// An empty set.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); Self::TURN.get()],
        })
    }

    /// Adds a descriptor, which the caller removes before it closes it.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, fd: BorrowedFd<'_>, key: usize, interest: Interest) -> io::Result<()> {
        let added = self.epoll.add(fd, interest.event(key));
        added.map_err(|errno| match errno {
            Errno::ENOSPC => io::Error::other(
                "the kernel watches no more descriptors: raise fs.epoll.max_user_watches",
            ),
            errno => errno.into(),
        })
    }

    /// Changes what a descriptor in the set is waited for.
    ///
    /// # Errors
    /// The system's.
    pub fn modify(&self, fd: BorrowedFd<'_>, key: usize, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut interest.event(key))?)
    }

    /// Takes a descriptor out of the set.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Waits until a descriptor is ready or `timeout` has passed, and puts the keys of those that
    /// are ready into `keys`.
    ///
    /// # Errors
    /// The system's; an interrupted wait is none and gives no keys.
    pub fn wait(&mut self, timeout: Duration, keys: &mut Vec<usize>) -> io::Result<()> {
        keys.clear();
        match self.epoll.wait(&mut self.events, milliseconds(timeout)) {
            Ok(ready) => {
                let ready = &self.events[..ready];
                keys.extend(ready.iter().map(|event| event.data() as usize));
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

/// Rounded up: who wakes up too early finds nothing to do, and asks again at once.
fn milliseconds(timeout: Duration) -> EpollTimeout {
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_too_short() {
        assert_eq!(milliseconds(Duration::ZERO), EpollTimeout::ZERO);
        for (nanoseconds, expected) in [(1, 1u8), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            let found = milliseconds(Duration::from_nanos(nanoseconds));
            assert_eq!(found, EpollTimeout::from(expected));
        }
        assert_eq!(milliseconds(Duration::MAX), EpollTimeout::MAX);
    }
}
