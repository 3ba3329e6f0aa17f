//! Waking a service up by being its client for a moment (Postfix, `inet_trigger.c`,
//! `unix_trigger.c`, `pass_trigger.c`, `fifo_trigger.c`). Nothing here waits: what cannot go on
//! yet is asked again when its descriptor is ready.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockType, SockaddrLike, SockaddrStorage,
    UnixAddr, connect, getsockopt, send, sendmsg, shutdown, sockopt,
};
use nix::unistd::{pipe2, write};

use super::detached;
use super::listen::new_socket;
use super::poll::{self, Interest};
use crate::protocol::WAKEUP;

/// What a service reads: Postfix's triggers send a zero byte, too.
const REQUEST: [u8; 2] = [WAKEUP, 0];
/// Bytes of another process's error that are read.
const ERROR_MAX: u64 = 500;

/// Puts an error into words.
type Describe = fn(&(dyn std::error::Error + 'static)) -> String;

/// A wake-up on its way.
#[derive(Debug)]
pub enum Trigger {
    /// It stays open until the service closes it.
    Connection(Connection),
    /// Another process does it all: others share what it writes to, and can hold its lock, with a
    /// system call that reads a page of memory which never comes. This is what it says of an error.
    Process(File),
}

/// A connection on which the service is being woken up.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// Until it is there, that it can be written to; then its end.
    waits_for: Interest,
}

impl Trigger {
    /// Connects to a TCP service.
    ///
    /// # Errors
    /// The system's, when that fails at once.
    pub fn inet(address: SocketAddr) -> io::Result<Self> {
        Connection::start(&SockaddrStorage::from(address)).map(Self::Connection)
    }

    /// Connects to a service of type unix.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when the service's queue is full, so that it needs no waking.
    pub fn unix(path: &Path) -> io::Result<Self> {
        Connection::start(&UnixAddr::new(path)?).map(Self::Connection)
    }

    /// Passes one end of a pipe to a service of type pass, and the request through the pipe. The
    /// service may take `timeout` to close the connection. `describe` puts an error of the other
    /// process into words, for [`Self::ready`].
    ///
    /// # Errors
    /// The system's: there is no room for another process.
    pub fn pass(path: &Path, timeout: Duration, describe: Describe) -> io::Result<Self> {
        Self::in_process(|end| pass_pipe(path, timeout, end), describe)
    }

    /// Writes the request into a fifo. `describe` as with [`Self::pass`].
    ///
    /// # Errors
    /// The system's: there is no room for another process.
    pub fn fifo(path: &Path, describe: Describe) -> io::Result<Self> {
        Self::in_process(|_| write_to_fifo(path), describe)
    }

    fn in_process(
        act: impl FnOnce(&File) -> io::Result<()>,
        describe: Describe,
    ) -> io::Result<Self> {
        let process = detached::start(None, |mut end| {
            if let Err(error) = act(&end) {
                // The master has it in time, or has ended.
                let _ = end.write_all(describe(&error).as_bytes());
            }
        });
        process.map(Self::Process)
    }

    /// A wake-up that a former program has begun, by a connection that it waits for in this way, or else
    /// in another process.
    pub fn resume(fd: OwnedFd, connection: Option<Interest>) -> Self {
        match connection {
            Some(waits_for) => Self::Connection(Connection {
                socket: fd,
                waits_for,
            }),
            None => Self::Process(fd.into()),
        }
    }

    /// What the descriptor is to be waited for, before [`Self::ready`] is called.
    pub fn interest(&self) -> Interest {
        match self {
            Self::Connection(connection) => connection.waits_for,
            Self::Process(_) => Interest::Readable,
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
            Self::Process(file) => {
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
    fn start(to: &dyn SockaddrLike) -> io::Result<Self> {
        let is_local = to.family() == Some(AddressFamily::Unix);
        let socket = if is_local {
            local_socket(to)?
        } else {
            new_socket(to, SockType::Stream)?
        };
        let waits_for = match connect(socket.as_raw_fd(), to) {
            Ok(()) if is_local => Interest::Hangup,
            Ok(()) => Interest::Readable,
            Err(Errno::EINPROGRESS) => Interest::Writable,
            Err(errno) => return Err(errno.into()),
        };
        let trigger = Self { socket, waits_for };
        if waits_for != Interest::Writable {
            trigger.send()?;
        }
        Ok(trigger)
    }

    fn ready(&mut self) -> io::Result<bool> {
        if self.waits_for != Interest::Writable {
            return Ok(false);
        }
        match getsockopt(&self.socket, sockopt::SocketError)? {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        // Connections to local sockets are made at once.
        self.waits_for = Interest::Readable;
        self.send()?;
        Ok(true)
    }

    fn send(&self) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &REQUEST, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }
}

impl AsFd for Trigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Connection(connection) => connection.socket.as_fd(),
            Self::Process(file) => file.as_fd(),
        }
    }
}

/// A socket for a connection to a local service. The service's answer has no place to pile up, and
/// descriptors that it sends are refused on any kernel. The end of the connection is a hang-up then.
fn local_socket(to: &dyn SockaddrLike) -> io::Result<OwnedFd> {
    let socket = new_socket(to, SockType::Stream)?;
    shutdown(socket.as_raw_fd(), Shutdown::Read)?;
    Ok(socket)
}

/// Both ends of the pipe stay open until the service has closed the connection, `timeout` has passed,
/// or the master has closed its side of `end`.
fn pass_pipe(path: &Path, timeout: Duration, end: &File) -> io::Result<()> {
    let address = UnixAddr::new(path)?;
    let socket = local_socket(&address)?;
    connect(socket.as_raw_fd(), &address)?;
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    write(&writer, &REQUEST)?;
    let rights = [reader.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&rights)];
    let iov = [IoSlice::new(&[0])];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &iov, &control, flags, None)?;
    poll::wait_for_hangup([socket.as_fd(), end.as_fd()], timeout);
    Ok(())
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
