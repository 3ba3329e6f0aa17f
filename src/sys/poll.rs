//! Which descriptors are ready.
//!
//! Interest is level-triggered: what was not read is reported again. A descriptor must be removed
//! before it is closed: its children share the description that the kernel's table refers to.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use polling::{Event, Events, PollMode, Poller};

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Readable,
    Writable,
    Both,
}

impl Interest {
    fn event(self, key: usize) -> Event {
        match self {
            Self::Readable => Event::readable(key),
            Self::Writable => Event::writable(key),
            Self::Both => Event::all(key),
        }
    }
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
pub struct Poll {
    poller: Poller,
    events: EventBuffer,
}

/// The library's buffer, which has no Debug.
struct EventBuffer(Events);

impl std::fmt::Debug for EventBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventBuffer")
    }
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
            poller: Poller::new()?,
            events: EventBuffer(Events::with_capacity(Self::TURN)),
        })
    }

    /// Adds a descriptor, which the caller removes before it closes it.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, fd: BorrowedFd<'_>, key: usize, interest: Interest) -> io::Result<()> {
        let event = interest.event(key);
        // SAFETY: the descriptor is open, and who calls removes it before closing it; one that
        // was forgotten would cost a spurious event, not memory safety, as the number is all
        // that is kept.
        let added = unsafe {
            self.poller
                .add_with_mode(fd.as_raw_fd(), event, PollMode::Level)
        };
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
        let event = interest.event(key);
        self.poller.modify_with_mode(fd, event, PollMode::Level)
    }

    /// Takes a descriptor out of the set.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        self.poller.delete(fd.as_fd())
    }

    /// Waits until a descriptor is ready or `timeout` has passed, and puts the keys of those that
    /// are ready into `keys`.
    ///
    /// # Errors
    /// The system's; an interrupted wait is none and gives no keys.
    pub fn wait(&mut self, timeout: Duration, keys: &mut Vec<usize>) -> io::Result<()> {
        let Self { poller, events } = self;
        let events = &mut events.0;
        events.clear();
        keys.clear();
        match poller.wait(events, Some(timeout)) {
            Ok(_) => keys.extend(events.iter().map(|event| event.key)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
