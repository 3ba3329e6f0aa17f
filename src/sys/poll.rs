//! Which descriptors are ready.
//!
//! Interest is level-triggered: what was not read is reported again, unless once is enough or only
//! more of it is news. A descriptor must be removed before it is closed: its children share the
//! description that the kernel's table refers to.
//!
//! Linux has a poller of its own; other systems have the `polling` library's. One set of tests is
//! for both.

#[cfg(target_os = "linux")]
mod epoll;
#[cfg(any(test, not(target_os = "linux")))]
mod portable;

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

#[cfg(target_os = "linux")]
use epoll::Poller;
#[cfg(not(target_os = "linux"))]
use portable::Poller;

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// For nothing but its peer's end, which some systems report all the same.
    Nothing,
    Readable,
    /// Readable, and nothing once that was reported, until it is changed.
    ReadableOnce,
    /// Readable, and reported again only when there is more, whether what was there was taken or
    /// not.
    Arrivals,
    Writable,
    Both,
}

/// Whether a line can be written without waiting for who reads it.
pub fn can_write(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    matches!(nix::poll::poll(&mut fds, PollTimeout::ZERO), Ok(1..))
}

/// Waits until a descriptor is readable, or for so long.
pub fn wait_for(fd: BorrowedFd<'_>, timeout: Duration) {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    // Whoever waits looks for itself what has come of it.
    let _ = nix::poll::poll(&mut fds, timeout);
}

/// A set of descriptors, each with a key of the caller's.
#[derive(Debug)]
pub struct Poll(Poller);

impl Poll {
    /// Events taken in one turn; the others wait for the next.
    pub const TURN: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

    /// An empty set.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub fn new() -> io::Result<Self> {
        Self::taking(Self::TURN)
    }

    /// An empty set of which no more events are taken in one turn.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub fn taking(turn: NonZeroUsize) -> io::Result<Self> {
        Ok(Self(Poller::new(turn)?))
    }

    /// Adds a descriptor, which the caller removes before it closes it.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, fd: BorrowedFd<'_>, key: usize, interest: Interest) -> io::Result<()> {
        let added = self.0.add(fd, key, interest);
        added.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSPC) => io::Error::other(
                "the kernel watches no more descriptors: raise fs.epoll.max_user_watches",
            ),
            _ => error,
        })
    }

    /// Changes what a descriptor in the set is waited for.
    ///
    /// # Errors
    /// The system's.
    pub fn modify(&self, fd: BorrowedFd<'_>, key: usize, interest: Interest) -> io::Result<()> {
        self.0.modify(fd, key, interest)
    }

    /// Takes a descriptor out of the set.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        self.0.remove(fd.as_fd())
    }

    /// Takes a descriptor that nobody else has out of the set, and closes it.
    pub fn close(&self, fd: impl AsFd) {
        self.0.close(fd);
    }

    /// Waits until a descriptor is ready or `timeout` has passed, and puts the keys of those that
    /// are ready into `keys`.
    ///
    /// # Errors
    /// The system's; an interrupted wait is none and gives no keys.
    pub fn wait(&mut self, timeout: Duration, keys: &mut Vec<usize>) -> io::Result<()> {
        keys.clear();
        match self.0.wait(timeout, keys) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }
}

/// A set is itself readable while one of its descriptors is ready.
impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests;
