//! The poller for systems without epoll(7).

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use polling::{Event, Events, PollMode};

use super::Interest;

pub(super) struct Poller {
    poller: polling::Poller,
    events: Events,
}

impl Poller {
    pub(super) fn new(turn: NonZeroUsize) -> io::Result<Self> {
        Ok(Self {
            poller: polling::Poller::new()?,
            events: Events::with_capacity(turn),
        })
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, key: usize, to: Interest) -> io::Result<()> {
        let (fd, event, mode) = (fd.as_raw_fd(), event(key, to), mode(to));
        // SAFETY: the descriptor is open, and who calls removes it before closing it; one that
        // was forgotten would cost a spurious event, not memory safety, as the number is all
        // that is kept.
        unsafe { self.poller.add_with_mode(fd, event, mode) }
    }

    pub(super) fn modify(&self, fd: BorrowedFd<'_>, key: usize, to: Interest) -> io::Result<()> {
        let event = event(key, to);
        self.poller.modify_with_mode(fd, event, mode(to))
    }

    pub(super) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poller.delete(fd)
    }

    pub(super) fn close(&self, fd: impl AsFd) {
        // What is not in the set need not be taken out.
        let _ = self.remove(fd.as_fd());
    }

    pub(super) fn wait(&mut self, timeout: Duration, keys: &mut Vec<usize>) -> io::Result<()> {
        self.events.clear();
        self.poller.wait(&mut self.events, Some(timeout))?;
        keys.extend(self.events.iter().map(|event| event.key));
        Ok(())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.poller.fmt(f)
    }
}

fn event(key: usize, interest: Interest) -> Event {
    match interest {
        Interest::Nothing => Event::none(key),
        Interest::Readable | Interest::ReadableOnce | Interest::Arrivals => Event::readable(key),
        Interest::Writable => Event::writable(key),
        Interest::Both => Event::all(key),
    }
}

fn mode(interest: Interest) -> PollMode {
    match interest {
        Interest::ReadableOnce => PollMode::Oneshot,
        Interest::Arrivals => PollMode::Edge,
        _ => PollMode::Level,
    }
}
