//! Linux's epoll(7). A wait is one system call here, where a library for all systems makes four,
//! for a timer and for waking itself up: as much as everything else that a busy master does.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::Interest;

pub(super) struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poller {
    pub(super) fn new(turn: NonZeroUsize) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); turn.get()],
        })
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, key: usize, to: Interest) -> io::Result<()> {
        Ok(self.epoll.add(fd, event(key, to))?)
    }

    pub(super) fn modify(&self, fd: BorrowedFd<'_>, key: usize, to: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut event(key, to))?)
    }

    pub(super) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// The kernel forgets what is closed.
    pub(super) fn close(&self, fd: impl AsFd) {
        drop(fd);
    }

    pub(super) fn wait(&mut self, timeout: Duration, keys: &mut Vec<usize>) -> io::Result<()> {
        let count = self.epoll.wait(&mut self.events, rounded_up(timeout))?;
        keys.extend(self.events[..count].iter().map(|e| e.data() as usize));
        Ok(())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.epoll.fmt(f)
    }
}

fn event(key: usize, interest: Interest) -> EpollEvent {
    let flags = match interest {
        Interest::Nothing => EpollFlags::empty(),
        Interest::Readable => EpollFlags::EPOLLIN,
        Interest::ReadableOnce => EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT,
        Interest::Arrivals => EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
        Interest::Writable => EpollFlags::EPOLLOUT,
        Interest::Both => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
    };
    EpollEvent::new(flags, key as u64)
}

/// The kernel counts milliseconds. Who came too early would wait again, for the rest of one.
fn rounded_up(timeout: Duration) -> EpollTimeout {
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX)
}
