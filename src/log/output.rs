//! Which way out a target has. Descriptors are opened in advance and kept: when they have run out is
//! when there is something to say.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::entry::Entry;
use super::journal::Journal;
use super::postlog::Postlog;
use super::syslog::Syslog;
use super::time::Timestamp;
use super::{Format, Target};
use crate::errors::describe_error;

/// An open way out.
#[derive(Debug)]
pub(super) enum Output {
    Syslog(Syslog),
    Journal(Journal),
    Postlog(Postlog),
}

/// A socket that never blocks. Without one there may still be a file, and without both lines are
/// lost.
pub(super) fn datagram_socket() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// Another descriptor of the same socket.
pub(super) fn clone_socket(socket: &Option<UnixDatagram>) -> io::Result<Option<UnixDatagram>> {
    socket.as_ref().map(UnixDatagram::try_clone).transpose()
}

/// A copy of an error, with the same number or text.
pub(super) fn again(error: &io::Error) -> io::Error {
    let number = error.raw_os_error().map(io::Error::from_raw_os_error);
    number.unwrap_or_else(|| io::Error::new(error.kind(), error.to_string()))
}

/// The error of a way out, with its name.
pub(super) fn at(path: &Path, error: &io::Error) -> io::Error {
    let text = format!("{}: {}", path.display(), describe_error(error));
    io::Error::new(error.kind(), text)
}

impl Output {
    pub(super) fn open(target: &Target) -> Self {
        match target {
            Target::Syslog { facility } => Self::Syslog(Syslog::new(facility)),
            Target::Journal { socket, facility } => Self::Journal(Journal::new(socket, facility)),
            Target::Postlog {
                socket,
                file,
                permissions,
                hostname,
            } => {
                let file = file.as_deref();
                Self::Postlog(Postlog::open(socket, file, *permissions, hostname))
            }
        }
    }

    /// Another way out to the same place.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Syslog(syslog) => Self::Syslog(syslog.try_clone()?),
            Self::Journal(journal) => Self::Journal(journal.try_clone()?),
            Self::Postlog(postlog) => Self::Postlog(postlog.try_clone()?),
        })
    }

    /// Connects to the system's log if it is there, and has the C library read the time zone.
    pub(super) fn connect(&mut self) {
        let _ = Timestamp::now();
        if let Self::Syslog(syslog) = self {
            syslog.connect();
        }
    }

    /// Takes from the output that this one replaces what could not be opened again.
    pub(super) fn keep_open(&mut self, old: Self) {
        match (self, old) {
            (Self::Syslog(new), Self::Syslog(old)) => new.keep_open(old),
            (Self::Journal(new), Self::Journal(old)) => new.keep_open(old),
            (Self::Postlog(new), Self::Postlog(old)) => new.keep_open(old),
            _ => {}
        }
    }

    /// A descriptor for a writer that cannot choose: the file, or syslog when connected, or else
    /// standard error.
    pub(super) fn emergency_fd(&self) -> RawFd {
        let fd = match self {
            Self::Syslog(syslog) => syslog.connected_fd(),
            Self::Journal(_) => None,
            Self::Postlog(postlog) => postlog.file_fd(),
        };
        fd.unwrap_or(libc::STDERR_FILENO)
    }

    /// The lines that postlogd has not read yet, as far as they were kept.
    pub(super) fn take_unread(&mut self) -> Vec<String> {
        match self {
            Self::Postlog(postlog) => postlog.take_unread(),
            Self::Syslog(_) | Self::Journal(_) => Vec::new(),
        }
    }

    /// Writes a line that was taken from here to the file.
    ///
    /// # Errors
    /// Why it is lost.
    pub(super) fn write_again(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Postlog(postlog) => postlog.write_to_file(line),
            Self::Syslog(_) | Self::Journal(_) => Ok(()),
        }
    }

    /// Writes one line. A `direct` one goes to the file, if there is one, past postlogd.
    ///
    /// # Errors
    /// Why the line is lost.
    pub(super) fn send(
        &mut self,
        entry: &Entry<'_>,
        format: Format,
        direct: bool,
    ) -> io::Result<()> {
        match self {
            Self::Syslog(syslog) => syslog.send(entry),
            Self::Journal(journal) => journal.send(entry),
            Self::Postlog(postlog) => postlog.send(entry, format, direct),
        }
    }
}
