//! Sockets whose path does not fit into an address.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The path of a socket to connect to, in a form that fits into an address: unix(7) allows at most
/// 107 bytes. A longer path is reached through its directory, which stays open.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    _directory: Option<File>,
}

impl SocketPath {
    const MAX: usize = 107;

    /// # Errors
    /// The directory of a long path cannot be opened.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= Self::MAX {
            return Ok(Self {
                path: path.to_owned(),
                _directory: None,
            });
        }
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(path.parent().unwrap_or(Path::new("/")))?;
        let mut short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        short.extend(path.file_name());
        Ok(Self {
            path: short,
            _directory: Some(directory),
        })
    }

    /// The path, which is valid as long as `self`.
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_socket_is_reached_whatever_the_length_of_its_path() {
        let root = tempfile::tempdir().unwrap();
        for length in [10, 200] {
            let directory = root.path().join("d".repeat(length));
            fs::create_dir(&directory).unwrap();
            let path = directory.join("socket");
            let short = SocketPath::new(&path).unwrap();
            let error = UnixStream::connect(short.as_path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            let _listener = UnixListener::bind(short.as_path()).unwrap();
            UnixStream::connect(short.as_path()).unwrap();
        }
        let nowhere = root.path().join("x".repeat(200)).join("socket");
        let error = SocketPath::new(&nowhere).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
