//! Sockets at which local programs come to the master itself, and not to a service.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, accept4, bind,
    getsockopt, listen, recv, send, shutdown, socket, sockopt,
};

use super::listen::Name;

/// How much can wait for the master to come round its loop.
const BACKLOG: i32 = 64;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    Stream,
    /// Messages that keep their boundaries.
    Messages,
}

/// Who may connect: the owner, and a group if one is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub group: Option<u32>,
}

/// A listener with a name in the file system, which goes with it.
#[derive(Debug)]
pub struct Door {
    fd: OwnedFd,
    carries: Carries,
    path: PathBuf,
    name: Option<Name>,
}

impl Door {
    /// Listens at a path. A socket that a master left behind there is replaced. The directory must
    /// be one in which nobody else can put things.
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
        let door = Self {
            fd,
            carries,
            path: path.to_owned(),
            name: Name::of(path),
        };
        if access.group.is_some() {
            lchown(path, None, access.group)?;
        }
        let mode = if access.group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        // Those who come inherit this.
        refuse_descriptors(&door.fd);
        // Nobody can have come before this.
        listen(&door.fd, Backlog::new(BACKLOG)?)?;
        Ok(door)
    }

    /// The next who waits, if anybody does; the connection does not block. A stream is for writing
    /// only: what its other end would send finds no place to pile up.
    ///
    /// # Errors
    /// The system's: descriptors have run out, say.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        match accept4(self.fd.as_raw_fd(), flags) {
            Ok(fd) => {
                if self.carries == Carries::Stream {
                    // Nobody reads it. Who has gone already cannot write either.
                    let _ = shutdown(fd, Shutdown::Read);
                }
                // SAFETY: the descriptor is new and nobody else's.
                Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.name.is_some() && self.name == Name::of(&self.path) {
            // A name that stays behind is replaced by the next master.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub pid: i32,
}

impl Peer {
    /// Whom the kernel has seen connecting.
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

/// Sends what finds room; nothing when there is none.
///
/// # Errors
/// The system's: the other end is gone.
pub fn send_some(connection: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match send(connection.as_raw_fd(), bytes, flags) {
        Ok(sent) => Ok(sent),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// The next message, cut to the buffer, and its true length, which is 0 at the end; nothing when
/// none waits.
///
/// # Errors
/// The system's.
pub fn receive(connection: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    match recv(connection.as_raw_fd(), buffer, flags) {
        Ok(length) => Ok(Some(length)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Has the kernel refuse descriptors that a child would send along. Without that it throws them
/// away when the record is read, in the master's time, and closing somebody's socket can take as
/// long as its owner wished (`SO_LINGER`). Linux knows this since 6.16; older kernels say so.
pub(super) fn refuse_descriptors(ours: &OwnedFd) {
    const SO_PASSRIGHTS: i32 = 83;
    let no: i32 = 0;
    // SAFETY: the option's value is one int, which outlives the call.
    unsafe {
        libc::setsockopt(
            ours.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const no).cast(),
            size_of::<i32>() as u32,
        );
    }
}

#[cfg(test)]
mod tests {
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
        let path = directory.path().join("door");
        let first = Door::open(&path, Carries::Stream, OWN).unwrap();
        let second = Door::open(&path, Carries::Stream, OWN).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(first);
        assert!(path.exists(), "another's name is left alone");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_group_may_come_in_if_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let group = Some(super::super::privilege::user().1);
        let _door = Door::open(&path, Carries::Stream, Access { group }).unwrap();
        assert_eq!(mode(&path), 0o660);
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let error = Door::open(directory.path(), Carries::Stream, OWN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn what_finds_no_room_is_not_sent_and_the_master_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let door = Door::open(&path, Carries::Stream, OWN).unwrap();
        assert!(door.accept().unwrap().is_none());
        let mut client = UnixStream::connect(&path).unwrap();
        let connection = door.accept().unwrap().expect("a client");
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
    fn messages_keep_their_boundaries_and_tell_their_length() {
        let (ours, theirs) = nix::sys::socket::socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let mut buffer = [0; 4];
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap(), None);
        send_some(theirs.as_fd(), b"123456").unwrap();
        send_some(theirs.as_fd(), b"78").unwrap();
        drop(theirs);
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap(), Some(6));
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap(), Some(2));
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap(), Some(0));
    }
}
