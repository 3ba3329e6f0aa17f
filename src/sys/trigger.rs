//! Waking a service up by being its client for a moment (Postfix, `inet_trigger.c`,
//! `unix_trigger.c`, `pass_trigger.c`, `fifo_trigger.c`). Nothing here waits: what cannot go on
//! yet is asked again when its descriptor is ready.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
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
use super::{detached, process};
use crate::protocol::WAKEUP;

/// Bytes of a fifo's error that are read.
const ERROR_MAX: u64 = 500;

/// A wake-up on its way.
#[derive(Debug)]
pub enum Trigger {
    /// It stays open until the service closes it.
    Connection(Connection),
    /// Another process writes to a fifo; this is what it says of an error.
    Fifo(File),
}

/// A connection on which the service is being woken up.
#[derive(Debug)]
pub struct Connection {
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
        Connection::start(&SockaddrStorage::from(address), false).map(Self::Connection)
    }

    /// Connects to a service of type unix or, with `pass`, of type pass.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when the service's queue is full, so that it needs no waking.
    pub fn unix(path: &Path, pass: bool) -> io::Result<Self> {
        Connection::start(&UnixAddr::new(path)?, pass).map(Self::Connection)
    }

    /// Writes the request into a fifo, in another process: a user who may write to it can hold its
    /// lock with a write of a page of memory which never comes. [`Self::ready`] has that one's
    /// errors, as `describe` says.
    ///
    /// # Errors
    /// The system's.
    pub fn fifo(path: &Path, describe: impl FnOnce(&io::Error) -> String) -> io::Result<Self> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        detached::run(|| {
            // SAFETY: this copy leaves after that.
            unsafe { process::keep_only([theirs.as_raw_fd()]) };
            if let Err(error) = write_to_fifo(path) {
                // The master has it in time, or has ended.
                let _ = File::from(theirs).write_all(describe(&error).as_bytes());
            }
        })?;
        Ok(Self::Fifo(ours.into()))
    }

    /// What the descriptor is to be waited for, before [`Self::ready`] is called.
    pub fn interest(&self) -> Interest {
        match self {
            Self::Connection(connection) => connection.interest(),
            Self::Fifo(_) => Interest::Readable,
        }
    }

    /// Goes on after the descriptor became ready. Whether there is something to wait for again: if
    /// not, the service has closed the connection.
    ///
    /// # Errors
    /// The system's, when the wake-up came to nothing.
    pub fn ready(&mut self) -> io::Result<bool> {
        match self {
            Self::Connection(connection) => connection.ready(),
            Self::Fifo(file) => {
                let mut error = String::new();
                file.take(ERROR_MAX).read_to_string(&mut error)?;
                if error.is_empty() {
                    return Ok(false);
                }
                Err(io::Error::other(error))
            }
        }
    }
}

impl Connection {
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

    fn interest(&self) -> Interest {
        if self.connecting {
            Interest::Writable
        } else if self.is_local {
            Interest::Hangup
        } else {
            Interest::Readable
        }
    }

    fn ready(&mut self) -> io::Result<bool> {
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
        // Before others have it: they can hold its lock.
        nix::unistd::write(&write, &request)?;
        let rights = [read.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&rights)];
        let iov = [IoSlice::new(&[0])];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &iov, &control, flags, None)?;
        self.pipe = Some((read, write));
        Ok(())
    }
}

impl AsFd for Trigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Connection(connection) => connection.socket.as_fd(),
            Self::Fifo(file) => file.as_fd(),
        }
    }
}

/// Not through a link, so that the owner of the directory cannot have the master write elsewhere.
fn write_to_fifo(path: &Path) -> io::Result<()> {
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
