//! The socket through which the children of one template become known. It has no name: a process can
//! connect if it has the handle, which the template inherits, or may trace a process that has it.
//! Connections say which process has made them, and messages which one has sent them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::{SockType, setsockopt, sockopt};

use super::channel::{Channel, refuse_descriptors};
use super::listen::{bind_path, start_listening};
use super::local::accept;

/// Connections that can wait: one is expected.
const BACKLOG: u32 = 8;

/// The master's end.
#[derive(Debug)]
pub struct TemplateSocket {
    listener: OwnedFd,
    refuses: bool,
}

impl TemplateSocket {
    /// Makes one, by way of a path that is there for a moment, and the handle that a process needs to
    /// connect. Only the master may have write access to its directory.
    ///
    /// # Errors
    /// The path cannot be used (`EACCES`, `ENOSPC`, `EROFS`, `ENAMETOOLONG`), or descriptors have run out:
    /// the template is not started.
    pub fn open(path: &Path) -> io::Result<(Self, File)> {
        let listener = bind_path(path, SockType::Stream)?;
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(path);
        fs::remove_file(path)?;
        let handle = handle?;
        // The template may have another user, or get one.
        let mode = Permissions::from_mode(0o666);
        fs::set_permissions(Self::path(handle.as_raw_fd()), mode)?;
        setsockopt(&listener, sockopt::PassCred, &true)?;
        // Connections inherit both.
        let refuses = refuse_descriptors(&listener);
        start_listening(&listener, BACKLOG)?;
        Ok((Self::resume(listener, refuses), handle))
    }

    /// The end that a former program had, of which it knew this.
    pub fn resume(listener: OwnedFd, refuses: bool) -> Self {
        Self { listener, refuses }
    }

    /// Whether the kernel refuses descriptors that are sent to its connections.
    pub fn refuses(&self) -> bool {
        self.refuses
    }

    /// Where a process connects that has the handle as this descriptor.
    pub fn path(handle: i32) -> PathBuf {
        format!("/proc/self/fd/{handle}").into()
    }

    /// The next connection, if one waits.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`: there is no room for its descriptor.
    pub fn accept(&self) -> io::Result<Option<Channel>> {
        let connection = accept(&self.listener)?;
        Ok(connection.map(|fd| Channel::new(fd, self.refuses)))
    }
}

impl AsFd for TemplateSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::Found;
    use super::*;
    use nix::errno::Errno;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_has_no_name_and_tells_which_process_connects_and_which_one_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (socket, handle) = TemplateSocket::open(&path).unwrap();
        assert!(!path.exists());
        assert!(socket.accept().unwrap().is_none());
        let client = UnixStream::connect(TemplateSocket::path(handle.as_raw_fd())).unwrap();
        let channel = socket.accept().unwrap().expect("a connection");
        let pid = std::process::id() as i32;
        assert_eq!(channel.peer().unwrap().pid(), pid);
        let mut bytes = [0; 6];
        assert_eq!(channel.read_from(&mut bytes), (Found::Nothing, 0));
        nix::unistd::write(&client, b"hello\nready\n").unwrap();
        assert_eq!(channel.read_from(&mut bytes), (Found::Bytes(6), pid));
        assert_eq!(&bytes, b"hello\n");
        channel.forget_writers().unwrap();
        assert_eq!(channel.read(&mut bytes), Found::Bytes(6));
        drop(client);
        assert_eq!(channel.read(&mut bytes), Found::End);
    }

    #[test]
    fn descriptors_that_are_sent_through_it_are_not_taken() {
        use super::super::testing::send_descriptor;
        let directory = tempfile::tempdir().unwrap();
        let (socket, handle) = TemplateSocket::open(&directory.path().join("socket")).unwrap();
        let client = UnixStream::connect(TemplateSocket::path(handle.as_raw_fd())).unwrap();
        let channel = socket.accept().unwrap().expect("a connection");
        let null = File::open("/dev/null").unwrap();
        match send_descriptor(&client, &null, b"hello\n") {
            // Before Linux 6.16.
            Ok(_) => assert_eq!(channel.read_from(&mut [0; 6]).0, Found::Descriptors),
            Err(errno) => assert_eq!(errno, Errno::EPERM),
        }
    }
}
