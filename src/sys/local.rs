//! Sockets at which local programs reach the master itself, and not a service.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, accept4, bind,
    getsockopt, listen, send, shutdown, socket, sockopt,
};

use super::channel::{Channel, refuse_descriptors};
use super::listen::FileId;

/// Connections that can wait for the master's next turn.
const BACKLOG: i32 = 64;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// A stream from the master, which reads nothing.
    Stream,
    /// Messages that keep their boundaries.
    Messages,
}

/// The programs that may connect: those of the owner, and of a group if one is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub group: Option<u32>,
}

/// A listener with a path, which is removed with it.
#[derive(Debug)]
pub struct LocalListener {
    fd: OwnedFd,
    carries: Carries,
    refuses: bool,
    path: PathBuf,
    file: Option<FileId>,
}

impl LocalListener {
    /// Listens at a path. A socket that a former master left behind there is replaced. Only the
    /// master may have write access to the directory.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, carries: Carries, access: Access) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let kind = match carries {
            Carries::Stream => SockType::Stream,
            Carries::Messages => SockType::SeqPacket,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, kind, flags, None)?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        let listener = Self {
            // Connections inherit this.
            refuses: refuse_descriptors(fd.as_fd()),
            fd,
            carries,
            path: path.to_owned(),
            file: FileId::of(path),
        };
        if access.group.is_some() {
            lchown(path, None, access.group)?;
        }
        let mode = if access.group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        // No connection can be made before this.
        listen(&listener.fd, Backlog::new(BACKLOG)?)?;
        Ok(listener)
    }

    /// The next connection, if one waits.
    ///
    /// # Errors
    /// The system's: descriptors have run out, say.
    pub fn accept(&self) -> io::Result<Option<Channel>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        match accept4(self.fd.as_raw_fd(), flags) {
            Ok(fd) => {
                if self.carries == Carries::Stream {
                    // What the other side sends has no place to pile up. If it has gone already, it
                    // cannot send either.
                    let _ = shutdown(fd, Shutdown::Read);
                }
                // SAFETY: the descriptor is new, and owned here only.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                Ok(Some(Channel::new(fd, self.refuses)))
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for LocalListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        if self.file.is_some() && self.file == FileId::of(&self.path) {
            // A name that stays behind is replaced by the next master.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub pid: i32,
}

impl Peer {
    /// The process that has connected, as the kernel knows it.
    ///
    /// # Errors
    /// The system's.
    pub fn of(connection: BorrowedFd<'_>) -> io::Result<Self> {
        let credentials = getsockopt(&connection, sockopt::PeerCredentials)?;
        Ok(Self {
            uid: credentials.uid(),
            pid: credentials.pid(),
        })
    }
}

/// Sends as much as there is room for. The number of bytes sent.
///
/// # Errors
/// The system's: the other end is closed.
pub fn send_some(connection: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match send(connection.as_raw_fd(), bytes, flags) {
        Ok(sent) => Ok(sent),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::Found;
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    const OWN: Access = Access { group: None };

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_a_killed_master_left_is_replaced_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = LocalListener::open(&path, Carries::Stream, OWN).unwrap();
        let second = LocalListener::open(&path, Carries::Stream, OWN).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(first);
        assert!(path.exists(), "the name is another's");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_group_may_connect_if_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let group = Some(super::super::privilege::user().1);
        let _listener = LocalListener::open(&path, Carries::Stream, Access { group }).unwrap();
        assert_eq!(mode(&path), 0o660);
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let error = LocalListener::open(directory.path(), Carries::Stream, OWN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn what_finds_no_room_is_not_sent_and_the_master_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = LocalListener::open(&path, Carries::Stream, OWN).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let mut client = UnixStream::connect(&path).unwrap();
        let connection = listener.accept().unwrap().expect("a client");
        let peer = Peer::of(connection.as_fd()).unwrap();
        assert_eq!(peer.pid, std::process::id() as i32);
        let said = std::io::Write::write(&mut client, b"x");
        assert_eq!(said.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let bytes = vec![7; 1 << 20];
        let mut sent = 0;
        loop {
            match send_some(connection.as_fd(), &bytes).unwrap() {
                0 => break,
                some => sent += some,
            }
        }
        drop(connection);
        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), sent);
    }

    #[test]
    fn messages_keep_their_boundaries_and_are_cut_to_the_buffer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = LocalListener::open(&path, Carries::Messages, OWN).unwrap();
        let flags = SockFlag::SOCK_CLOEXEC;
        let client = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        let address = UnixAddr::new(&path).unwrap();
        nix::sys::socket::connect(client.as_raw_fd(), &address).unwrap();
        let connection = listener.accept().unwrap().expect("a client");
        let mut buffer = [0; 4];
        assert_eq!(connection.read(&mut buffer), Found::Nothing);
        send_some(client.as_fd(), b"123456").unwrap();
        send_some(client.as_fd(), b"78").unwrap();
        drop(client);
        assert_eq!(connection.read(&mut buffer), Found::Bytes(4));
        assert_eq!(connection.read(&mut buffer), Found::Bytes(2));
        assert_eq!(connection.read(&mut buffer), Found::End);
    }
}
