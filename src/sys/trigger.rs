//! Waking a service up by being its client for a moment (Postfix, `inet_trigger.c`,
//! `unix_trigger.c`, `pass_trigger.c`, `fifo_trigger.c`). Nothing here waits: what cannot go on
//! yet is asked again when its descriptor is ready.

use std::fs::OpenOptions;
use std::io::{self, IoSlice, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockType, SockaddrLike, SockaddrStorage,
    UnixAddr, connect, getsockopt, send, sendmsg, shutdown, sockopt,
};
use nix::unistd::pipe2;

use super::listen::new_socket;
use super::poll::Interest;
use crate::protocol::WAKEUP;

/// A connection on which the service is being woken up; it stays open until the service closes it.
#[derive(Debug)]
pub struct Trigger {
    socket: OwnedFd,
    is_local: bool,
    connecting: bool,
    /// Set for type pass: the service gets the read end, and the request comes through it.
    pass: bool,
    pipe: Option<(OwnedFd, OwnedFd)>,
}

impl Trigger {
    /// Connects to a TCP service.
    ///
    /// # Errors
    /// The system's, when that fails at once.
    pub fn inet(address: SocketAddr) -> io::Result<Self> {
        Self::start(&SockaddrStorage::from(address), false)
    }

    /// Connects to a service of type unix or, with `pass`, of type pass.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when the service's queue is full, so that it needs no waking.
    pub fn unix(path: &Path, pass: bool) -> io::Result<Self> {
        Self::start(&UnixAddr::new(path)?, pass)
    }

    fn start(to: &dyn SockaddrLike, pass: bool) -> io::Result<Self> {
        let socket = new_socket(to, SockType::Stream)?;
        let is_local = to.family() == Some(AddressFamily::Unix);
        if is_local {
            // The service's answer has no place to pile up, and descriptors that it sends are
            // refused on any kernel. The end of the connection is a hang-up then.
            shutdown(socket.as_raw_fd(), Shutdown::Read)?;
        }
        let connecting = match connect(socket.as_raw_fd(), to) {
            Ok(()) => false,
            Err(Errno::EINPROGRESS) => true,
            Err(errno) => return Err(errno.into()),
        };
        let mut trigger = Self {
            socket,
            is_local,
            connecting,
            pass,
            pipe: None,
        };
        if !connecting {
            trigger.send()?;
        }
        Ok(trigger)
    }

    /// What the descriptor is to be waited for, before [`Self::ready`] is called.
    pub fn interest(&self) -> Interest {
        if self.connecting {
            Interest::Writable
        } else if self.is_local {
            Interest::Hangup
        } else {
            Interest::Readable
        }
    }

    /// Goes on after the descriptor became ready. Whether there is something to wait for again: if
    /// not, the service has closed the connection.
    ///
    /// # Errors
    /// The system's, when the connection came to nothing.
    pub fn ready(&mut self) -> io::Result<bool> {
        if !self.connecting {
            return Ok(false);
        }
        match getsockopt(&self.socket, sockopt::SocketError)? {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        self.connecting = false;
        self.send()?;
        Ok(true)
    }

    /// Sends the request and a zero byte, as Postfix's triggers do.
    fn send(&mut self) -> io::Result<()> {
        let request = [WAKEUP, 0];
        if !self.pass {
            send(self.socket.as_raw_fd(), &request, MsgFlags::MSG_NOSIGNAL)?;
            return Ok(());
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let rights = [read.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&rights)];
        let iov = [IoSlice::new(&[0])];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &iov, &control, flags, None)?;
        nix::unistd::write(&write, &request)?;
        self.pipe = Some((read, write));
        Ok(())
    }
}

impl AsFd for Trigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Writes the request into a fifo: as its owner and not through a link, so that who takes over
/// that account cannot have root write elsewhere.
///
/// # Errors
/// The system's; `ENXIO` when nobody reads.
pub fn fifo(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_fifo() || metadata.nlink() != 1 {
        return Err(io::Error::other("not a fifo with one link"));
    }
    file.write_all(&[WAKEUP])
}
