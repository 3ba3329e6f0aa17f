//! A client and its connection.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrStorage, getpeername, getsockopt, sockopt};

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A client in the network.
    Inet(SocketAddr),
    /// A local process, connected to a socket in the file system.
    Local {
        /// Its user ID.
        uid: u32,
        /// Its process ID; 0 if it is in another PID namespace.
        pid: i32,
    },
    /// The user who has started the process with `-S`.
    Standard,
    /// Unknown: the connection is already closed, or is not a socket.
    Unknown,
}

impl Peer {
    /// The peer of a descriptor.
    pub(crate) fn of(descriptor: BorrowedFd<'_>) -> Self {
        let Ok(address) = getpeername::<SockaddrStorage>(descriptor.as_raw_fd()) else {
            return Self::Unknown;
        };
        if let Some(address) = address.as_sockaddr_in() {
            return Self::Inet((address.ip(), address.port()).into());
        }
        if let Some(address) = address.as_sockaddr_in6() {
            return Self::Inet((address.ip(), address.port()).into());
        }
        match getsockopt(&descriptor, sockopt::PeerCredentials) {
            Ok(credentials) => Self::Local {
                uid: credentials.uid(),
                pid: credentials.pid(),
            },
            Err(_) => Self::Unknown,
        }
    }
}

/// The form for log lines.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Local { uid, pid } => write!(f, "local client (uid {uid}, pid {pid})"),
            Self::Standard => f.write_str("standard input"),
            Self::Unknown => f.write_str("unknown client"),
        }
    }
}

/// A blocking connection to one client. Reading and writing fail with
/// [`TimedOut`](ErrorKind::TimedOut) when no data has moved for `ipc_timeout` (default: 3600s).
///
/// `&Client` implements reading and writing, too, so that a [`BufReader`](std::io::BufReader) can
/// borrow the client while other code writes.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    peer: Peer,
    attributes: BTreeMap<String, String>,
    timeout: Duration,
}

#[derive(Debug)]
enum Stream {
    /// A socket in non-blocking mode.
    Socket(OwnedFd),
    /// Standard input and output in blocking mode, because other processes share them.
    Standard(io::Stdin, io::Stdout),
}

/// The number of bytes that standard output accepts without blocking once poll(2) reports it ready
/// (PIPE_BUF).
const STANDARD_WRITE_MAX: usize = 4096;

impl Client {
    pub(crate) fn new(
        socket: OwnedFd,
        attributes: BTreeMap<String, String>,
        timeout: Duration,
    ) -> io::Result<Self> {
        set_blocking(socket.as_fd(), false)?;
        Ok(Self {
            peer: Peer::of(socket.as_fd()),
            stream: Stream::Socket(socket),
            attributes,
            timeout,
        })
    }

    pub(crate) fn standard(timeout: Duration) -> Self {
        Self {
            stream: Stream::Standard(io::stdin(), io::stdout()),
            peer: Peer::Standard,
            attributes: BTreeMap::new(),
            timeout,
        }
    }

    /// The client's identity.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Attributes from the process that passed the connection, such as `client_address`. Empty
    /// unless the service's type is `pass`.
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        &self.attributes
    }

    /// Sets the timeout for reading and writing from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Closes the sending direction: the client reads end of file, and can still send.
    ///
    /// # Errors
    /// The system's error when the client has disconnected.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Socket(socket) => {
                let socket = std::net::TcpStream::from(socket.try_clone()?);
                socket.shutdown(Shutdown::Write)
            }
            Stream::Standard(..) => Ok(()),
        }
    }

    /// The connection as standard input and standard output of a command. The command needs it in
    /// blocking mode, so this program must not use it until the command ends.
    ///
    /// # Errors
    /// The system's error when no descriptors are left.
    pub fn stdio(&self) -> io::Result<(Stdio, Stdio)> {
        let copy = |descriptor: BorrowedFd<'_>| descriptor.try_clone_to_owned();
        match &self.stream {
            Stream::Socket(socket) => {
                set_blocking(socket.as_fd(), true)?;
                Ok((copy(socket.as_fd())?.into(), copy(socket.as_fd())?.into()))
            }
            Stream::Standard(input, output) => {
                Ok((copy(input.as_fd())?.into(), copy(output.as_fd())?.into()))
            }
        }
    }

    /// Waits until the descriptor is ready.
    fn ready(&self, descriptor: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
        let timeout = PollTimeout::try_from(self.timeout).unwrap_or(PollTimeout::MAX);
        loop {
            match poll(&mut [PollFd::new(descriptor, events)], timeout) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Runs `act` on the socket, and waits for the socket while it is not ready.
    fn retry_when_ready(
        &self,
        socket: BorrowedFd<'_>,
        events: PollFlags,
        mut act: impl FnMut() -> nix::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match act() {
                Err(Errno::EAGAIN) => self.ready(socket, events)?,
                Err(Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

impl Read for &Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.stream {
            Stream::Socket(socket) => {
                self.retry_when_ready(socket.as_fd(), PollFlags::POLLIN, || {
                    nix::unistd::read(socket, buffer)
                })
            }
            Stream::Standard(input, _) => {
                self.ready(input.as_fd(), PollFlags::POLLIN)?;
                Ok(nix::unistd::read(input, buffer)?)
            }
        }
    }
}

impl Write for &Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.stream {
            Stream::Socket(socket) => {
                self.retry_when_ready(socket.as_fd(), PollFlags::POLLOUT, || {
                    nix::unistd::write(socket, bytes)
                })
            }
            Stream::Standard(_, output) => {
                self.ready(output.as_fd(), PollFlags::POLLOUT)?;
                let some = &bytes[..bytes.len().min(STANDARD_WRITE_MAX)];
                Ok(nix::unistd::write(output, some)?)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is buffered
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

/// The descriptor to wait for before reading.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Socket(socket) => socket.as_fd(),
            Stream::Standard(input, _) => input.as_fd(),
        }
    }
}

fn set_blocking(descriptor: BorrowedFd<'_>, blocking: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    let flags = if blocking {
        flags - OFlag::O_NONBLOCK
    } else {
        flags | OFlag::O_NONBLOCK
    };
    fcntl(descriptor, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Whether an error is normal for a network client: it has disconnected or has timed out.
pub(crate) fn is_normal_disconnect(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::NotConnected
            | ErrorKind::TimedOut
            | ErrorKind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn client(timeout: Duration) -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let client = Client::new(ours.into(), BTreeMap::new(), timeout);
        (client.unwrap(), theirs)
    }

    #[test]
    fn a_client_reads_the_end_and_can_go_on_writing() {
        let (mut client, mut theirs) = client(Duration::from_secs(10));
        theirs
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client.write_all(b"all").unwrap();
        client.shutdown_write().unwrap();
        let mut said = String::new();
        theirs.read_to_string(&mut said).unwrap();
        assert_eq!(said, "all");
        theirs.write_all(b"x").unwrap();
        assert_eq!(client.read(&mut [0; 10]).unwrap(), 1);
    }

    #[test]
    fn a_silent_client_is_not_waited_for_longer_than_the_limit() {
        let (mut client, _theirs) = client(Duration::from_millis(5));
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let error = client.write_all(&vec![0; 10_000_000]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "it does not read either");
    }
}
