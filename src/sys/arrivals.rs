//! Clients that come to listeners, and how many wait in them. The kernel does not count arrivals;
//! epoll(7) in its edge-triggered mode tells that there were some.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Listeners that are reported at a time: a service has no more.
const EVENTS: usize = 256;

/// Notices clients that come to some listeners.
#[derive(Debug)]
pub struct Arrivals(Epoll);

impl Arrivals {
    /// # Errors
    /// `EMFILE`, `ENFILE`: descriptors have run out; `ENOSPC`: `fs.epoll.max_user_watches` is used up.
    /// What
    /// a child has done with its client stays unknown then.
    pub fn new(listeners: impl Iterator<Item = impl AsFd>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for listener in listeners {
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
            epoll.add(listener, event)?;
        }
        let arrivals = Self(epoll);
        // Those that wait already are reported once.
        arrivals.take()?;
        Ok(arrivals)
    }

    /// Whether a client has come since this was asked last, and clients wait now.
    ///
    /// # Errors
    /// The system's.
    pub fn take(&self) -> io::Result<bool> {
        // Those that find no room are reported the next time.
        let mut events = [EpollEvent::empty(); EVENTS];
        Ok(self.0.wait(&mut events, EpollTimeout::ZERO)? > 0)
    }
}

/// Whether a client waits in a listener.
pub fn waits(listener: &impl AsFd) -> bool {
    which_wait(&[listener.as_fd()]) == [true]
}

/// In which of the listeners clients wait, by one call for all.
pub fn which_wait(listeners: &[BorrowedFd<'_>]) -> Vec<bool> {
    let each = listeners.iter();
    let mut each: Vec<_> = each.map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    // Should the system refuse it, nothing is found.
    let _ = poll(&mut each, PollTimeout::ZERO);
    let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|e| e.contains(PollFlags::POLLIN));
    each.iter().map(is_ready).collect()
}

/// The length of the first datagram that waits. Not for a FIFO, of which a child can hold the lock
/// that this waits for.
///
/// # Errors
/// The system's.
pub fn first_length(listener: &impl AsFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one integer, for which there is room.
    let done = unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    nix::errno::Errno::result(done)?;
    Ok(u32::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    #[test]
    fn clients_that_come_are_noticed_and_those_that_wait_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(!waits(&listener));
        let _first = UnixStream::connect(&path).unwrap();
        let arrivals = Arrivals::new([&listener].into_iter()).unwrap();
        assert!(waits(&listener));
        assert!(!arrivals.take().unwrap());
        let _others = [(); 2].map(|()| UnixStream::connect(&path).unwrap());
        assert!(arrivals.take().unwrap());
        assert!(!arrivals.take().unwrap());
        let _taken = listener.accept().unwrap();
        assert!(!arrivals.take().unwrap(), "one was taken");
    }

    #[test]
    fn the_first_datagram_has_a_length() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        assert_eq!(first_length(&ours).unwrap(), 0);
        for text in ["hello", "you"] {
            theirs.send(text.as_bytes()).unwrap();
        }
        assert_eq!(first_length(&ours).unwrap(), 5);
        ours.recv(&mut [0; 8]).unwrap();
        assert_eq!(first_length(&ours).unwrap(), 3);
    }
}
