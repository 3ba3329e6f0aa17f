//! The lock files that keep two masters from one directory.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A lock file that this process holds until the value is dropped or the process ends.
#[derive(Debug)]
pub(super) struct LockFile(Flock<File>);

impl LockFile {
    /// Opens or creates the file (mode 0600, never through a symbolic link) and locks it with
    /// flock(2), as Postfix does, so that its master and ours exclude each other.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceBusy`], in words: another process has it, the one that the file names,
    /// when it names one. Also in words: the file is not a regular file with one name, so that
    /// writing to it could change another file. Or the system's: it cannot be opened or created.
    pub(super) fn acquire(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            let words = "not a regular file with one link; remove it";
            return Err(io::Error::other(words));
        }
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let holder = read_pid(&mut file);
                let holder =
                    holder.map_or("another process".into(), |pid| format!("process {pid}"));
                let words = format!("locked by {holder}");
                Err(io::Error::new(ErrorKind::ResourceBusy, words))
            }
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// Writes the process ID in the form that Postfix's scripts read.
    ///
    /// # Errors
    /// The system's, such as a full disk.
    pub(super) fn write_pid(&mut self, pid: u32) -> io::Result<()> {
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
        let error = LockFile::acquire(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        assert_eq!(error.to_string(), "locked by process 4711");
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
        let error = LockFile::acquire(&soft).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        let hard = dir.path().join("hard");
        std::fs::hard_link(&target, &hard).unwrap();
        let error = LockFile::acquire(&hard).unwrap_err();
        assert!(error.to_string().contains("one link"), "{error}");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    }
}
