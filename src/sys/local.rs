//! Sockets at which local programs reach the master itself, and not a service.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, SockFlag, SockType, accept4, shutdown};

use super::channel::{Channel, refuse_descriptors};
use super::listen::{FileId, bind_path, start_listening};

/// Connections that can wait for the master's next turn.
const BACKLOG: u32 = 64;

/// A listener with a path, which is removed with it.
#[derive(Debug)]
pub struct LocalListener {
    fd: OwnedFd,
    kind: SockType,
    refuses: bool,
    path: PathBuf,
    file: Option<FileId>,
}

impl LocalListener {
    /// Listens at a path, for programs of the owner, and of a group if one is named. Of a stream, the
    /// master reads nothing. A socket that a former master left behind there is replaced. Only the
    /// master may have write access to the directory.
    ///
    /// # Errors
    /// The path cannot be used (`EACCES`, `ENAMETOOLONG`, `EROFS`, its directory is missing), or
    /// descriptors have run out.
    pub fn open(path: &Path, kind: SockType, group: Option<u32>) -> io::Result<Self> {
        let fd = bind_path(path, kind)?;
        let listener = Self {
            // Connections inherit this.
            refuses: refuse_descriptors(&fd),
            fd,
            kind,
            path: path.to_owned(),
            file: FileId::of(path),
        };
        let mut mode = 0o600;
        if group.is_some() {
            lchown(path, None, group)?;
            mode = 0o660;
        }
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        // No connection can be made before this.
        start_listening(&listener.fd, BACKLOG)?;
        Ok(listener)
    }

    /// The socket of a former program, which knew this of it.
    pub fn resume(
        fd: OwnedFd,
        path: &Path,
        kind: SockType,
        refuses: bool,
        file: Option<(u64, u64)>,
    ) -> Self {
        Self {
            fd,
            kind,
            refuses,
            path: path.to_owned(),
            file: file.map(FileId::from),
        }
    }

    /// What [`Self::resume`] needs beside the descriptor and the kind of socket.
    pub fn known(&self) -> (bool, Option<(u64, u64)>) {
        (self.refuses, self.file.map(Into::into))
    }

    /// The next connection, if one waits.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`: there is no room for its descriptor.
    pub fn accept(&self) -> io::Result<Option<Channel>> {
        let Some(fd) = accept(&self.fd)? else {
            return Ok(None);
        };
        if self.kind == SockType::Stream {
            // What the other side sends has no place to pile up. If it has gone already, it cannot
            // send either.
            let _ = shutdown(fd.as_raw_fd(), Shutdown::Read);
        }
        Ok(Some(Channel::new(fd, self.refuses)))
    }
}

/// The next connection in a listener's queue, if one waits. Neither it nor the call waits.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`: there is no room for its descriptor.
pub(super) fn accept(listener: &OwnedFd) -> nix::Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    match accept4(listener.as_raw_fd(), flags) {
        // SAFETY: the descriptor is new, and owned here only.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
        Err(errno) => Err(errno),
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

#[cfg(test)]
mod tests {
    use super::super::channel::Found;
    use super::*;
    use nix::sys::socket::{AddressFamily, UnixAddr, socket};
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_a_killed_master_left_is_replaced_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = LocalListener::open(&path, SockType::Stream, None).unwrap();
        let second = LocalListener::open(&path, SockType::Stream, None).unwrap();
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
        let _listener = LocalListener::open(&path, SockType::Stream, group).unwrap();
        assert_eq!(mode(&path), 0o660);
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let error = LocalListener::open(directory.path(), SockType::Stream, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn what_finds_no_room_is_not_sent_and_the_master_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = LocalListener::open(&path, SockType::Stream, None).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let mut client = UnixStream::connect(&path).unwrap();
        let connection = listener.accept().unwrap().expect("a client");
        let peer = connection.peer().unwrap();
        assert_eq!(peer.pid(), std::process::id() as i32);
        let said = std::io::Write::write(&mut client, b"x");
        assert_eq!(said.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let bytes = vec![7; 1 << 20];
        let mut sent = 0;
        loop {
            match connection.send(&bytes).unwrap() {
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
        let listener = LocalListener::open(&path, SockType::SeqPacket, None).unwrap();
        let flags = SockFlag::SOCK_CLOEXEC;
        let client = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        let address = UnixAddr::new(&path).unwrap();
        nix::sys::socket::connect(client.as_raw_fd(), &address).unwrap();
        let connection = listener.accept().unwrap().expect("a client");
        let mut buffer = [0; 4];
        assert_eq!(connection.read(&mut buffer), Found::Nothing);
        nix::unistd::write(&client, b"123456").unwrap();
        nix::unistd::write(&client, b"78").unwrap();
        drop(client);
        assert_eq!(connection.read(&mut buffer), Found::Bytes(4));
        assert_eq!(connection.read(&mut buffer), Found::Bytes(2));
        assert_eq!(connection.read(&mut buffer), Found::End);
    }
}
