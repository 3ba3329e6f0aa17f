//! The ways out: syslog's socket, Postfix's postlog socket, the log file.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::{FACILITIES, Severity, Target};
use crate::sys::clock::Timestamp;
use crate::sys::poll::can_write;

/// The system's log socket.
const DEV_LOG: &str = "/dev/log";

/// An open way out. Descriptors are had in advance and kept: when they have run out is when there
/// is something to say.
#[derive(Debug)]
pub(super) enum Output {
    Syslog(Syslog),
    Postlog(Postlog),
}

#[derive(Debug)]
pub(super) struct Syslog {
    socket: Option<UnixDatagram>,
    connected: bool,
    /// The number of the facility.
    facility: usize,
}

#[derive(Debug)]
pub(super) struct Postlog {
    socket: Option<UnixDatagram>,
    path: PathBuf,
    file: Option<LogFile>,
    /// Up to the first dot.
    hostname: String,
}

#[derive(Debug)]
enum LogFile {
    Stdout,
    File(LineFile),
}

/// A file of lines.
#[derive(Debug)]
struct LineFile {
    file: File,
    /// The last line has no end, because the disk was full: the next must not begin there.
    torn: bool,
}

impl LineFile {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            torn: self.torn,
        })
    }

    fn is_empty(&self) -> bool {
        self.file.metadata().is_ok_and(|facts| facts.len() == 0)
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        let begin = if self.torn { "\n" } else { "" };
        let text = format!("{begin}{line}\n");
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    rest = &rest[length..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Output {
    pub(super) fn open(target: &Target) -> Self {
        // Without a socket there may still be a file, and without both there are lost lines.
        let socket = UnixDatagram::unbound().ok();
        let socket = socket.filter(|socket| socket.set_nonblocking(true).is_ok());
        match target {
            Target::Syslog { facility } => Self::Syslog(Syslog {
                socket,
                connected: false,
                facility: FACILITIES.iter().position(|f| f == facility).unwrap_or(2),
            }),
            Target::Postlog {
                socket: path,
                file,
                permissions,
                hostname,
            } => Self::Postlog(Postlog {
                socket,
                path: path.clone(),
                file: file
                    .as_deref()
                    .and_then(|path| open(path, *permissions).ok()),
                hostname: hostname.split('.').next().unwrap_or(hostname).to_owned(),
            }),
        }
    }

    /// Another way out to the same place.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let clone = |socket: &Option<UnixDatagram>| {
            socket.as_ref().map(UnixDatagram::try_clone).transpose()
        };
        Ok(match self {
            Self::Syslog(syslog) => Self::Syslog(Syslog {
                socket: clone(&syslog.socket)?,
                ..*syslog
            }),
            Self::Postlog(postlog) => Self::Postlog(Postlog {
                socket: clone(&postlog.socket)?,
                path: postlog.path.clone(),
                file: match &postlog.file {
                    Some(LogFile::File(file)) => Some(LogFile::File(file.try_clone()?)),
                    Some(LogFile::Stdout) => Some(LogFile::Stdout),
                    None => None,
                },
                hostname: postlog.hostname.clone(),
            }),
        })
    }

    /// Connects to the system's log if it is there, and has the C library read the time zone.
    pub(super) fn connect(&mut self) {
        let _ = Timestamp::now();
        if let Self::Syslog(syslog) = self {
            let socket = syslog.socket.as_ref();
            syslog.connected = socket.is_some_and(|socket| socket.connect(DEV_LOG).is_ok());
        }
    }

    /// Takes from the output that this one replaces what could not be opened again.
    pub(super) fn keep_open(&mut self, old: Self) {
        match (self, old) {
            (Self::Syslog(new), Self::Syslog(old)) if new.socket.is_none() => {
                new.socket = old.socket;
                new.connected = old.connected;
            }
            (Self::Postlog(new), Self::Postlog(old)) => {
                new.socket = new.socket.take().or(old.socket);
                if let (Some(LogFile::File(new)), Some(LogFile::File(old))) =
                    (&mut new.file, &old.file)
                {
                    new.torn = old.torn && !new.is_empty();
                }
                new.file = new.file.take().or(old.file);
            }
            _ => {}
        }
    }

    /// A descriptor for who has no time to be particular: the file, or syslog when connected.
    pub(super) fn last_resort(&self) -> RawFd {
        match self {
            Self::Syslog(Syslog {
                socket: Some(socket),
                connected: true,
                ..
            }) => socket.as_raw_fd(),
            Self::Postlog(Postlog {
                file: Some(LogFile::File(file)),
                ..
            }) => file.file.as_raw_fd(),
            Self::Postlog(Postlog {
                file: Some(LogFile::Stdout),
                ..
            }) => libc::STDOUT_FILENO,
            _ => libc::STDERR_FILENO,
        }
    }

    /// Writes one line; `body` is all but the time and the host. A `direct` line goes to the file,
    /// if there is one, past postlogd.
    ///
    /// # Errors
    /// Why the line is lost.
    pub(super) fn send(&mut self, severity: Severity, body: &str, direct: bool) -> io::Result<()> {
        let now = Timestamp::now();
        match self {
            Self::Syslog(syslog) => {
                let priority = syslog.facility * 8 + usize::from(severity.level());
                syslog.send(&format!("<{priority}>{now} {body}"))
            }
            Self::Postlog(postlog) => {
                let line = format!("{now} {} {body}", postlog.hostname);
                postlog.send(&line, direct)
            }
        }
    }
}

impl Syslog {
    /// Sends to the system's log, connecting anew when it was restarted since the last line.
    fn send(&mut self, line: &str) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        if self.connected {
            match socket.send(line.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.connected = false,
                result => return result.map(drop),
            }
        }
        socket.connect(DEV_LOG)?;
        self.connected = true;
        socket.send(line.as_bytes()).map(drop)
    }
}

impl Postlog {
    fn send(&mut self, line: &str, direct: bool) -> io::Result<()> {
        if let Some(socket) = self
            .socket
            .as_ref()
            .filter(|_| !direct || self.file.is_none())
        {
            // Not read, not there, or full: the file is next.
            if socket.send_to(line.as_bytes(), &self.path).is_ok() {
                return Ok(());
            }
        }
        match &mut self.file {
            Some(LogFile::File(file)) => file.write_line(line),
            Some(LogFile::Stdout) if can_write(io::stdout().as_fd()) => {
                io::stdout().write_all(format!("{line}\n").as_bytes())
            }
            Some(LogFile::Stdout) => Err(io::ErrorKind::WouldBlock.into()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// Opens the log file for appending: never through a link, never a file with a second name.
fn open(path: &Path, permissions: u32) -> io::Result<LogFile> {
    if path == Path::new("/dev/stdout") {
        return Ok(LogFile::Stdout);
    }
    let mut options = OpenOptions::new();
    options
        .append(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match options.clone().create_new(true).open(path) {
                Ok(file) => {
                    // The process's mask does not count here; a file system without modes does.
                    let _ = file.set_permissions(Permissions::from_mode(permissions));
                    file
                }
                // postlogd was faster.
                Err(_) => options.open(path)?,
            }
        }
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() != 1 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(LogFile::File(LineFile { file, torn: false }))
}
