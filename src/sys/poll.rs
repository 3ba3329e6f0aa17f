//! Which descriptors are ready: the `polling` library, as far as the master needs it.
//!
//! Interest is level-triggered: what was not read is reported again. A descriptor must be removed
//! before it is closed: children have duplicates, and the kernel would go on to report those.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use polling::{Event, Events, PollMode, Poller};

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Only that both directions have ended: the kernel always reports that.
    Hangup,
    Readable,
    /// Readable, and not reported again until the interest is set anew.
    ReadableOnce,
    Writable,
    ReadableOrWritable,
}

impl Interest {
    fn of(self, key: usize) -> (Event, PollMode) {
        match self {
            Self::Hangup => (Event::none(key), PollMode::Level),
            Self::Readable => (Event::readable(key), PollMode::Level),
            Self::ReadableOnce => (Event::readable(key), PollMode::Oneshot),
            Self::Writable => (Event::writable(key), PollMode::Level),
            Self::ReadableOrWritable => (Event::all(key), PollMode::Level),
        }
    }
}

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub key: usize,
    /// Both directions have ended, or there is an error. A listener in this state does not listen: a
    /// child may have made a connection of it.
    pub hung_up: bool,
}

/// Whether a write would not wait.
pub fn can_write(fd: BorrowedFd<'_>) -> bool {
    wait_for(fd, PollFlags::POLLOUT, Duration::ZERO)
}

/// Waits until a descriptor is readable, for `timeout` at the most. Whether it is. A signal ends the
/// wait, too.
pub fn wait_until_readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    wait_for(fd, PollFlags::POLLIN, timeout)
}

/// Waits until one of these is closed on its other side, for `timeout` at the most. A signal ends the
/// wait, too.
pub fn wait_for_hangup(fds: [BorrowedFd<'_>; 2], timeout: Duration) {
    // The kernel reports that unasked. An error of the wait ends it as a signal does.
    let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::empty()));
    let _ = ppoll(&mut fds, Some(timeout.into()), None);
}

fn wait_for(fd: BorrowedFd<'_>, events: PollFlags, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(fd, events)];
    matches!(ppoll(&mut fds, Some(timeout.into()), None), Ok(1..))
}

/// A set of descriptors, each with a key.
#[derive(Debug)]
pub struct Poll {
    poller: Poller,
    events: Events,
    size: Cell<usize>,
}

impl Poll {
    /// Room for events that every set has.
    const EVENTS_MIN: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

    /// An empty set.
    ///
    /// # Errors
    /// The system's, when descriptors have run out: a set takes three.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            events: Events::with_capacity(Self::EVENTS_MIN),
            size: Cell::new(0),
        })
    }

    /// Adds a descriptor, which must be removed before it is closed. `usize::MAX` is no key.
    ///
    /// # Errors
    /// `ENOSPC`: the user has used up `fs.epoll.max_user_watches`; `ENOMEM`: the kernel has no memory.
    /// The descriptor is not in the set then, and nothing is reported of it: the caller looks at it again
    /// later, or does without it.
    pub fn add(&self, fd: impl AsFd, key: usize, interest: Interest) -> io::Result<()> {
        let (event, mode) = interest.of(key);
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: the descriptor is open. On Linux the library keeps no more of it than the number,
        // in the kernel: one that is closed too early costs an event with its key, which all users
        // of keys bear.
        unsafe { self.poller.add_with_mode(fd, event, mode)? };
        self.size.set(self.size.get() + 1);
        Ok(())
    }

    /// Changes what a descriptor in the set is waited for.
    ///
    /// # Errors
    /// `ENOENT`: the descriptor is not in the set; `ENOMEM`: the kernel has no memory. The interest is the
    /// former one then.
    pub fn modify(&self, fd: impl AsFd, key: usize, interest: Interest) -> io::Result<()> {
        let (event, mode) = interest.of(key);
        self.poller.modify_with_mode(fd, event, mode)
    }

    /// Takes a descriptor out of the set.
    ///
    /// # Errors
    /// The system's: it was not in the set.
    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        self.poller.delete(fd)?;
        self.size.set(self.size.get().saturating_sub(1));
        Ok(())
    }

    /// Descriptors in the set.
    pub fn len(&self) -> usize {
        self.size.get()
    }

    /// Waits until a descriptor is ready or `timeout` has passed, and puts all that are ready into
    /// `found`: 5,000 children that end at once do not keep a listener out of it.
    ///
    /// # Errors
    /// Only for a set that is broken (`EBADF`, `EINVAL`): no event can be read any more, and the master
    /// ends.
    pub fn wait(&mut self, timeout: Duration, found: &mut Vec<Ready>) -> io::Result<()> {
        found.clear();
        self.events.clear();
        if self.events.capacity().get() <= self.size.get() {
            let room = (self.size.get() + 1).next_power_of_two();
            self.events =
                Events::with_capacity(NonZeroUsize::new(room).unwrap_or(Self::EVENTS_MIN));
        }
        self.poller.wait(&mut self.events, Some(timeout))?;
        found.extend(self.events.iter().map(|event| Ready {
            key: event.key,
            hung_up: event.is_interrupt() || event.is_err() == Some(true),
        }));
        Ok(())
    }
}

/// A set is itself readable while one of its descriptors is ready.
impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}
