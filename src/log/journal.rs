//! systemd's journal, by its socket ("Native Journal Protocol").

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::output::{clone_socket, datagram_socket};
use super::syslog::Syslog;

/// The socket at which the journal takes lines with fields.
pub const JOURNAL: &str = "/run/systemd/journal/socket";

/// The way to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: Option<UnixDatagram>,
    path: PathBuf,
    /// Where lines go that the journal does not take.
    syslog: Syslog,
}

impl Journal {
    pub(super) fn new(path: &Path, facility: &str) -> Self {
        Self {
            socket: datagram_socket(),
            path: path.to_owned(),
            syslog: Syslog::new(facility),
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: clone_socket(&self.socket)?,
            path: self.path.clone(),
            syslog: self.syslog.try_clone()?,
        })
    }

    pub(super) fn keep_open(&mut self, old: Self) {
        self.socket = self.socket.take().or(old.socket);
        self.syslog.keep_open(old.syslog);
    }

    /// Sends a line with its fields, or to the system's log when the journal is not there or full.
    ///
    /// # Errors
    /// Why the line is lost.
    pub(super) fn send(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let fields = self.fields(entry);
        let socket = self.socket.as_ref();
        let sent = socket.map(|socket| socket.send_to(fields.as_bytes(), &self.path));
        match sent {
            Some(Ok(_)) => Ok(()),
            _ => self.syslog.send(entry),
        }
    }

    /// The fields, one a line: no value has a line end, as the text has no control characters. The
    /// message keeps its severity word, for which scripts search.
    fn fields(&self, entry: &Entry<'_>) -> String {
        let (level, facility) = (entry.severity.level() as u8, self.syslog.facility_number());
        let (tag, pid) = (entry.tag, entry.pid);
        let (word, message) = (entry.severity.word(), &entry.message);
        let mut fields = format!(
            "PRIORITY={level}\nSYSLOG_FACILITY={facility}\nSYSLOG_IDENTIFIER={tag}\n\
             SYSLOG_PID={pid}\nMESSAGE={word}{message}\n"
        );
        if let Some((name, kind)) = entry.about.service {
            fields += &format!("MASTER_SERVICE={name}/{kind}\n");
        }
        if let Some(child) = entry.about.child {
            fields += &format!("MASTER_CHILD={child}\n");
        }
        fields
    }
}
