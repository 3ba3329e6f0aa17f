//! The lock files that keep two masters from one directory.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// A lock file that this process holds until the value is dropped or the process ends.
#[derive(Debug)]
pub struct LockFile(Flock<File>);

/// Why a file could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it: the one that the file names, when it names one.
    Held(Option<i32>),
    /// The file cannot be opened or created.
    Open(io::Error),
    /// The file is not a regular file with one name, so that writing to it could change another file.
    Unsafe,
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(Some(pid)) => write!(f, "locked by process {pid}"),
            Self::Held(None) => f.write_str("locked by another process"),
            Self::Open(_) => f.write_str("cannot open it"),
            Self::Unsafe => f.write_str("not a regular file with one link; remove it"),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error) => Some(error),
            Self::Held(_) | Self::Unsafe => None,
        }
    }
}

impl LockFile {
    /// Opens or creates the file (mode 0600, never through a symbolic link) and locks it with
    /// flock(2), as Postfix does, so that its master and ours exclude each other.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(LockError::Open)?;
        let metadata = file.metadata().map_err(LockError::Open)?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(LockError::Unsafe);
        }
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(LockError::Held(read_pid(&mut file)))
            }
            Err((_, errno)) => Err(LockError::Open(errno.into())),
        }
    }

    /// Writes the process ID in the form that Postfix's scripts read.
    ///
    /// # Errors
    /// The system's, such as a full disk.
    pub fn write_pid(&mut self, pid: u32) -> io::Result<()> {
        let line = format!("{pid:>32}\n");
        self.0.write_all(line.as_bytes())?;
        self.0.set_len(line.len() as u64)
    }
}

fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.pid");
        let mut lock = LockFile::acquire(&path).unwrap();
        lock.write_pid(4711).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{:>32}\n", 4711)
        );
        assert!(matches!(
            LockFile::acquire(&path),
            Err(LockError::Held(Some(4711)))
        ));
        drop(lock);
        assert!(LockFile::acquire(&path).is_ok());
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        let soft = dir.path().join("soft");
        std::os::unix::fs::symlink(&target, &soft).unwrap();
        assert!(matches!(LockFile::acquire(&soft), Err(LockError::Open(_))));
        let hard = dir.path().join("hard");
        std::fs::hard_link(&target, &hard).unwrap();
        assert!(matches!(LockFile::acquire(&hard), Err(LockError::Unsafe)));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    }
}
