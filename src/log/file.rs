//! The log file, which may be standard output.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::sys::file::{check_regular, expect_regular};
use crate::sys::poll::can_write;

/// The name by which a log file is standard output.
const STDOUT: &str = "/dev/stdout";

/// Where lines are appended.
#[derive(Debug)]
pub(super) enum LogFile {
    Stdout,
    File {
        file: File,
        /// The last line has no end, because the disk was full: the next must not begin there.
        torn: bool,
    },
}

impl LogFile {
    /// Opens a regular file for appending: never through a link, never a file with a second name.
    pub(super) fn open(path: &Path, permissions: u32) -> io::Result<Self> {
        if is_stdout(path) {
            return Ok(Self::Stdout);
        }
        let file = open_or_create(path, permissions)?;
        let metadata = file.metadata()?;
        expect_regular(&metadata)?;
        if metadata.nlink() != 1 {
            return Err(ErrorKind::PermissionDenied.into());
        }
        Ok(Self::File { file, torn: false })
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Stdout => Self::Stdout,
            Self::File { file, torn } => Self::File {
                file: file.try_clone()?,
                torn: *torn,
            },
        })
    }

    /// Goes on where `old` has ended, which may be in the middle of a line.
    pub(super) fn follow(&mut self, old: &Self) {
        if let (Self::File { file, torn }, Self::File { torn: true, .. }) = (self, old) {
            *torn = !file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        match self {
            Self::Stdout => libc::STDOUT_FILENO,
            Self::File { file, .. } => file.as_raw_fd(),
        }
    }

    /// Appends a line and its end.
    ///
    /// # Errors
    /// The system's; [`ErrorKind::WouldBlock`] when standard output is a pipe that is full.
    pub(super) fn write_line(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Stdout if can_write(io::stdout().as_fd()) => {
                io::stdout().write_all(format!("{line}\n").as_bytes())
            }
            Self::Stdout => Err(ErrorKind::WouldBlock.into()),
            Self::File { file, torn } => append(file, torn, line),
        }
    }
}

/// Whether this name of a log file is that of standard output.
pub(super) fn is_stdout(path: &Path) -> bool {
    path == Path::new(STDOUT)
}

fn append(file: &mut File, torn: &mut bool, line: &str) -> io::Result<()> {
    let begin = if *torn { "\n" } else { "" };
    let text = format!("{begin}{line}\n");
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => {
                rest = &rest[length..];
                *torn = !rest.is_empty();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open_or_create(path: &Path, permissions: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .append(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    // Opening a device can have effects of its own.
    check_regular(path)?;
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // The process's mask does not count here; a file system without modes does.
            let _ = file.set_permissions(Permissions::from_mode(permissions));
            Ok(file)
        }
        // postlogd was faster.
        Err(_) => options.open(path),
    }
}
