//! Local sockets that listen, and that a child has shut down for reading. The `polling` library does
//! not report that: it is epoll(7)'s `EPOLLRDHUP`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Events of one look. The next one has the others.
const EVENTS: usize = 16;

/// A set of listeners, each with a key. It is readable while one of them is shut down.
#[derive(Debug)]
pub struct Hangups(Epoll);

impl Hangups {
    /// # Errors
    /// The system's, when descriptors have run out.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Adds a listener, which must be removed before it is closed.
    ///
    /// # Errors
    /// `ENOSPC`: `fs.epoll.max_user_watches` is used up; `ENOMEM`. A shutdown of the listener is not
    /// noticed then.
    pub fn add(&self, listener: &impl AsFd, key: usize) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLRDHUP, key as u64);
        Ok(self.0.add(listener, event)?)
    }

    /// # Errors
    /// The system's: it was not in the set.
    pub fn remove(&self, listener: &impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(listener)?)
    }

    /// The keys of listeners that are shut down.
    ///
    /// # Errors
    /// The system's.
    pub fn take(&self) -> io::Result<Vec<usize>> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = self.0.wait(&mut events, EpollTimeout::ZERO)?;
        Ok(events[..count].iter().map(|e| e.data() as usize).collect())
    }
}

impl AsFd for Hangups {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// Whether a local listener is shut down, or has an error.
///
/// # Errors
/// The system's, when descriptors have run out.
pub fn is_hung_up(listener: &impl AsFd) -> io::Result<bool> {
    let alone = Hangups::new()?;
    alone.add(listener, 0)?;
    Ok(!alone.take()?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{Shutdown, shutdown};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_local_listener_is_found_once_it_is_shut_down_and_not_for_its_clients() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let hangups = Hangups::new().unwrap();
        hangups.add(&listener, 7).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        assert_eq!(hangups.take().unwrap(), [0; 0]);
        assert!(!is_hung_up(&listener).unwrap());
        shutdown(listener.as_raw_fd(), Shutdown::Read).unwrap();
        assert_eq!(hangups.take().unwrap(), [7]);
        assert!(is_hung_up(&listener).unwrap());
        hangups.remove(&listener).unwrap();
        assert_eq!(hangups.take().unwrap(), [0; 0]);
    }
}
