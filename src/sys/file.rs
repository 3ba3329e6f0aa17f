//! Files that are regular ones, or an error: nothing else is opened, so that nothing can make the
//! master wait.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Opens a regular file for reading. What a symbolic link leads to counts.
///
/// # Errors
/// The system's; or [`ErrorKind::InvalidInput`]: it is something else, in words.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Opening a device can have effects of its own, so that it is not even opened; what is opened
    // may be another file than what was looked at.
    expect_regular(&fs::metadata(path)?)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    expect_regular(&file.metadata()?)?;
    Ok(file)
}

/// Whether this is a regular file.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]: it is something else, in words.
pub fn expect_regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let kind = kind(metadata.file_type());
    Err(io::Error::new(
        ErrorKind::InvalidInput,
        format!("it is {kind}, expected a regular file"),
    ))
}

/// Whether there is a regular file, or nothing that can be seen. A symbolic link is not followed.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]: it is something else, in words.
pub fn check_regular(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_symlink() => expect_regular(&metadata),
        _ => Ok(()),
    }
}

/// What a file is, with an article.
fn kind(file_type: FileType) -> &'static str {
    if file_type.is_file() {
        "a regular file"
    } else if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a FIFO"
    } else if file_type.is_socket() {
        "a socket"
    } else if file_type.is_char_device() || file_type.is_block_device() {
        "a device"
    } else {
        "a symbolic link"
    }
}

/// Reads a pipe or a regular file, which is open as descriptor `fd`, to its end.
///
/// # Errors
/// There is no such descriptor; it is something else; it does not come to its end within `limit`; it
/// has more than `max` bytes; or the system's.
pub fn read_descriptor(fd: RawFd, limit: Duration, max: u64) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + limit;
    let mut file = File::from(duplicate(fd)?);
    let file_type = file.metadata()?.file_type();
    if !(file_type.is_fifo() || file_type.is_file()) {
        let kind = kind(file_type);
        return Err(io::Error::other(format!(
            "it is {kind}, expected a pipe or a regular file"
        )));
    }
    // Another process with this end could take what was there when it was looked at.
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let mut text = Vec::new();
    loop {
        let room = max + 1 - text.len() as u64;
        match file.by_ref().take(room).read_to_end(&mut text) {
            _ if text.len() as u64 > max => {
                return Err(io::Error::other(format!("it has more than {max} bytes")));
            }
            Ok(_) => return Ok(text),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let limit = limit.as_secs();
            return Err(io::Error::other(format!(
                "it has not come to its end within {limit} s"
            )));
        }
        wait_for_input(&file, left)?;
    }
}

/// Another descriptor of an open file.
fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes any number, and what it returns is new and owned here only.
    unsafe {
        match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) {
            new @ 0.. => Ok(OwnedFd::from_raw_fd(new)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Waits until there is something to read, or the end, but not longer than this.
fn wait_for_input(file: &File, limit: Duration) -> io::Result<()> {
    // Rounded up: what is left of a millisecond would make the caller try again at once.
    let limit = PollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, limit) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
