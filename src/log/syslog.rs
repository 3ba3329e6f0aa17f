//! The system's log, by its socket. The crate `syslog` has the protocol; the form of a line and the
//! socket are ours, because those of the crate wait, and panic on errors of the clock.

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use syslog::{Facility, LogFormat, Logger};

use super::Severity;
use super::entry::Entry;
use super::output::{at, clone_socket, datagram_socket};
use super::time::Timestamp;

/// The system's log socket.
pub(super) const DEV_LOG: &str = "/dev/log";

/// The number of a facility that syslog(3) names, such as `mail` (2) or `local7` (23).
pub fn facility_number(name: &str) -> Option<u8> {
    name.parse().ok().map(number)
}

/// Without the three bits of the level below it.
fn number(facility: Facility) -> u8 {
    facility as u8 >> 3
}

/// The way to the system's log.
pub(super) struct Syslog(Logger<Datagrams, LineFormat>);

impl Syslog {
    /// A name that is no facility's means `mail`.
    pub(super) fn new(facility: &str) -> Self {
        let datagrams = Datagrams {
            socket: datagram_socket(),
            path: DEV_LOG.into(),
            connected: false,
            line: String::new(),
        };
        let facility = facility.parse().unwrap_or(Facility::LOG_MAIL);
        Self(Logger::new(datagrams, LineFormat { facility }))
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let Logger { backend, formatter } = &self.0;
        let datagrams = Datagrams {
            socket: clone_socket(&backend.socket)?,
            path: backend.path.clone(),
            connected: backend.connected,
            line: String::new(),
        };
        Ok(Self(Logger::new(datagrams, *formatter)))
    }

    pub(super) fn facility_number(&self) -> u8 {
        number(self.0.formatter.facility)
    }

    /// Connects if the system's log is there.
    pub(super) fn connect(&mut self) {
        // Otherwise the next line tries again.
        let _ = self.0.backend.connect();
    }

    /// The socket, if a write to it reaches the system's log.
    pub(super) fn connected_fd(&self) -> Option<RawFd> {
        let Datagrams {
            socket, connected, ..
        } = &self.0.backend;
        let socket = socket.as_ref().filter(|_| *connected);
        socket.map(AsRawFd::as_raw_fd)
    }

    pub(super) fn keep_open(&mut self, old: Self) {
        if self.0.backend.socket.is_none() {
            self.0.backend = old.0.backend;
        }
    }

    /// Sends a line.
    ///
    /// # Errors
    /// Why it is lost.
    pub(super) fn send(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let sent = match entry.severity {
            Severity::Info => self.0.info(entry),
            Severity::Warning => self.0.warning(entry),
            Severity::Error => self.0.err(entry),
            Severity::Fatal | Severity::Panic => self.0.crit(entry),
        };
        sent.map_err(|error| match error {
            syslog::Error::Write(error) | syslog::Error::Io(error) => {
                at(&self.0.backend.path, &error)
            }
            other => io::Error::other(other),
        })
    }
}

impl fmt::Debug for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Syslog")
            .field("formatter", &self.0.formatter)
            .field("backend", &self.0.backend)
            .finish()
    }
}

/// The form of a line: `<PRIORITY>Mon DD HH:MM:SS TAG[PID]: TEXT`, in local time, as syslog(3) of
/// the C library writes it.
#[derive(Clone, Copy, Debug)]
struct LineFormat {
    facility: Facility,
}

impl LogFormat<&Entry<'_>> for LineFormat {
    fn format<W: io::Write>(
        &self,
        writer: &mut W,
        severity: syslog::Severity,
        entry: &Entry<'_>,
    ) -> syslog::Result<()> {
        let priority = self.facility as u8 | severity as u8;
        // One call makes one datagram.
        write!(writer, "<{priority}>{} {entry}", Timestamp::now()).map_err(syslog::Error::Write)
    }
}

/// The socket: each write is a datagram, and none waits.
#[derive(Debug)]
struct Datagrams {
    socket: Option<UnixDatagram>,
    /// Where the system's log listens.
    path: PathBuf,
    connected: bool,
    /// The datagram that is being written; kept for its memory.
    line: String,
}

impl Datagrams {
    fn connect(&mut self) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(ErrorKind::NotConnected)?;
        self.connected = false;
        socket.connect(&self.path)?;
        self.connected = true;
        Ok(())
    }

    fn send_connected(&self, datagram: &[u8]) -> io::Result<usize> {
        let socket = self.socket.as_ref().ok_or(ErrorKind::NotConnected)?;
        socket.send(datagram)
    }
}

impl io::Write for Datagrams {
    /// Sends a datagram, connecting anew when the system's log was restarted since the last one.
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        if self.connected {
            match self.send_connected(datagram) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => {}
                sent => return sent,
            }
        }
        self.connect()?;
        self.send_connected(datagram)
    }

    /// The provided method would write each piece of the format on its own.
    fn write_fmt(&mut self, line: fmt::Arguments<'_>) -> io::Result<()> {
        let mut text = std::mem::take(&mut self.line);
        text.clear();
        let written = text.write_fmt(line).map_err(io::Error::other);
        let sent = written.and_then(|()| self.write(text.as_bytes()));
        self.line = text;
        sent.map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::About;
    use crate::log::entry::Clean;
    use std::io::Write as _;

    /// A log whose datagrams arrive at the other end.
    fn pair() -> (Syslog, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).unwrap();
        }
        let mut log = Syslog::new("local7");
        log.0.backend.socket = Some(ours);
        log.0.backend.connected = true;
        (log, theirs)
    }

    fn entry(severity: Severity, message: &str) -> Entry<'_> {
        Entry {
            severity,
            tag: "postfix/master",
            pid: 4711,
            about: About::default(),
            message: Clean(message),
        }
    }

    #[test]
    fn a_line_is_one_datagram_in_the_form_of_syslog() {
        let (mut log, reader) = pair();
        let mut record = [0; 200];
        for (severity, priority, word) in [
            (Severity::Info, 190, ""),
            (Severity::Warning, 188, "warning: "),
            (Severity::Error, 187, "error: "),
            (Severity::Fatal, 186, "fatal: "),
            (Severity::Panic, 186, "panic: "),
        ] {
            log.send(&entry(severity, "one\x07two")).unwrap();
            let length = reader.recv(&mut record).unwrap();
            let line = std::str::from_utf8(&record[..length]).unwrap();
            let (begin, rest) = line.split_at("<190>Nov 21 09:05:00 ".len());
            assert!(begin.starts_with(&format!("<{priority}>")), "{line}");
            assert_eq!(rest, format!("postfix/master[4711]: {word}one?two"));
            let more = reader.recv(&mut record).unwrap_err();
            assert_eq!(more.kind(), ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_full_queue_loses_lines_and_waits_for_nobody() {
        let (mut log, _reader) = pair();
        let full = (0..100_000).find_map(|_| log.send(&entry(Severity::Info, "x")).err());
        assert_eq!(full.map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    }

    #[test]
    fn a_system_log_that_was_restarted_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = Syslog::new("mail");
        log.0.backend.path.clone_from(&path);
        let entry = entry(Severity::Info, "x");
        for _ in 0..2 {
            assert!(log.send(&entry).is_err(), "it is not there");
            let reader = UnixDatagram::bind(&path).unwrap();
            log.send(&entry).unwrap();
            assert!(log.connected_fd().is_some());
            assert!(reader.recv(&mut [0; 200]).unwrap() > 0);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_display_that_fails_is_an_error_and_not_a_panic() {
        struct Broken;
        impl fmt::Display for Broken {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        let (mut log, _reader) = pair();
        assert!(write!(log.0.backend, "{Broken}").is_err());
    }

    #[test]
    fn facilities_have_the_numbers_of_syslog() {
        assert_eq!(facility_number("kern"), Some(0));
        assert_eq!(facility_number("mail"), Some(2));
        assert_eq!(facility_number("local7"), Some(23));
        assert_eq!(facility_number("none"), None);
    }
}
