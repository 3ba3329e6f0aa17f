//! The lock files that keep two masters from one directory.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{major, minor};

use crate::sys::process;

/// A lock file that this process holds until the value is dropped or the process ends.
#[derive(Debug)]
pub(super) struct LockFile(Flock<File>);

impl LockFile {
    /// Opens or creates the file (mode 0600, never through a symbolic link) and locks it with
    /// flock(2), as Postfix does, so that its master and ours exclude each other.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceBusy`], in words: another process has it, as the kernel knows.
    /// [`ErrorKind::WouldBlock`], in words: a lease keeps it from being opened. Also in words: the file
    /// is not a regular file with one name, so that writing to it could change another file. Or the
    /// system's: it cannot be opened or created.
    pub(super) fn acquire(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        let file = match file {
            // A process that has locked the file has it open, and then the kernel gives no lease.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let words = "a process that is no master has a lease on it (fcntl(2))";
                return Err(io::Error::new(ErrorKind::WouldBlock, words));
            }
            opened => opened?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            let words = "not a regular file with one link; remove it";
            return Err(io::Error::other(words));
        }
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, Errno::EWOULDBLOCK)) => {
                let holder = holder(&metadata).map_or("another process".into(), |pid| {
                    let name = process::name(pid);
                    let name =
                        name.unwrap_or_else(|| "which has ended, and left it to another".into());
                    format!("process {pid} ({name})")
                });
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

/// The process that has locked a file. What the file says may be of any process.
pub(super) fn holder(metadata: &Metadata) -> Option<i32> {
    find_holder(
        &fs::read_to_string("/proc/locks").ok()?,
        metadata.dev(),
        metadata.ino(),
    )
}

/// Finds a lock of flock(2) in lines like `1: FLOCK  ADVISORY  WRITE 4711 08:01:262 0 EOF`. The
/// device there is another one on some file systems: then the inode alone decides.
fn find_holder(locks: &str, device: u64, inode: u64) -> Option<i32> {
    let device = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let inode = format!(":{inode}");
    let fields = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        // What is blocked has an arrow in this place.
        let pid = words.nth(2)?.parse().ok()?;
        let file = words.next()?.to_owned();
        (kind == "FLOCK").then_some((pid, file))
    };
    let held: Vec<(i32, String)> = locks.lines().filter_map(fields).collect();
    let same = held.iter().find(|(_, file)| *file == device);
    let holder = same.or_else(|| held.iter().find(|(_, file)| file.ends_with(&inode)));
    holder.map(|(pid, _)| *pid)
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
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
        let own = std::process::id();
        let words = error.to_string();
        assert!(
            words.starts_with(&format!("locked by process {own} (")),
            "{words}"
        );
        drop(lock);
        assert!(LockFile::acquire(&path).is_ok());
    }

    #[test]
    fn the_holder_of_a_lock_is_found_by_the_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:01:262 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 08:02:262 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 15 08:01:262 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 08:01:262 0 EOF\n\
                     nonsense\n";
        let device = nix::sys::stat::makedev(8, 1);
        assert_eq!(find_holder(locks, device, 262), Some(13));
        assert_eq!(
            find_holder(locks, nix::sys::stat::makedev(0, 40), 262),
            Some(12)
        );
        assert_eq!(find_holder(locks, device, 62), None);
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
