//! Reads a service table from a pipe of the shell: `master -c <(generate-table)`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::FILE_MAX;
use crate::sys::{file, process, signal};

/// The directories in which a process's descriptors have names (proc(5)).
const DESCRIPTORS: [&str; 2] = ["/dev/fd", "/proc/self/fd"];
/// Maximum time for reading the pipe to its end (our choice: enough for a generator that queries a
/// server, short for an operator who waits).
const PIPE_TIME: Duration = Duration::from_secs(10);

/// A table that was read from a descriptor.
#[derive(Debug)]
pub struct PipedTable {
    pub(super) path: PathBuf,
    pub(super) text: Vec<u8>,
}

impl PipedTable {
    /// Reads the table if the path names a descriptor of this process; a shell replaces `<(...)` by
    /// such a path. The start calls this before it closes descriptors. It may take 10 seconds.
    ///
    /// # Errors
    /// The descriptor is not open, is neither a pipe nor a regular file, does not end within 10
    /// seconds, or has more than 16 MiB.
    pub fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let Some(fd) = descriptor(path) else {
            return Ok(None);
        };
        let text =
            read(fd).with_context(|| format!("read the service table from {}", path.display()))?;
        Ok(Some(Self {
            path: path.to_owned(),
            text,
        }))
    }
}

/// Reads the pipe or regular file that is open as descriptor `fd` to its end.
fn read(fd: RawFd) -> anyhow::Result<Vec<u8>> {
    let deadline = Instant::now() + PIPE_TIME;
    let mut file = File::from(process::duplicate(fd, 3)?);
    let file_type = file.metadata()?.file_type();
    ensure!(
        file_type.is_fifo() || file_type.is_file(),
        "it is {}, expected a pipe or a regular file",
        file::kind(file_type)
    );
    // Another process with this end could take what was there when it was looked at.
    process::set_nonblocking(&file)?;
    let mut text = Vec::new();
    loop {
        let room = FILE_MAX + 1 - text.len() as u64;
        let end = file.by_ref().take(room).read_to_end(&mut text);
        ensure!(
            text.len() as u64 <= FILE_MAX,
            "it has more than {FILE_MAX} bytes"
        );
        match end {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            end => return Ok(end.map(|_| text)?),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(
            !left.is_zero(),
            "it has not come to its end within {} s",
            PIPE_TIME.as_secs()
        );
        signal::wait_until_readable(file.as_fd(), left)?;
    }
}

/// The descriptor of this process that a path names.
fn descriptor(path: &Path) -> Option<RawFd> {
    let name = DESCRIPTORS
        .iter()
        .find_map(|directory| path.strip_prefix(directory).ok())?
        .to_str()?;
    // Only digits: neither a sign nor a slash.
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_name_a_descriptor() {
        assert_eq!(descriptor(Path::new("/dev/fd/63")), Some(63));
        assert_eq!(descriptor(Path::new("/proc/self/fd/0")), Some(0));
        for other in [
            "/dev/fd",
            "/dev/fd/",
            "/dev/fd/+3",
            "/dev/fd/-1",
            "/dev/fd/3/x",
            "/dev/fd/99999999999",
            "/dev/fdx/3",
            "/etc/postfix",
            "63",
        ] {
            assert_eq!(descriptor(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_path_that_names_no_descriptor_is_not_read() {
        assert!(PipedTable::read(Path::new("/dev/null")).unwrap().is_none());
    }
}
