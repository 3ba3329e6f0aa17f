//! Postfix's postlogd, by its socket, and the log file behind it.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::Format;
use super::entry::Entry;
use super::file::LogFile;
use super::output::{clone_socket, datagram_socket};
use super::time::Timestamp;

/// The way to postlogd and to its file.
#[derive(Debug)]
pub(super) struct Postlog {
    socket: Option<UnixDatagram>,
    path: PathBuf,
    file: Option<LogFile>,
    /// Up to the first dot.
    hostname: String,
}

impl Postlog {
    pub(super) fn open(
        socket: &Path,
        file: Option<&Path>,
        permissions: u32,
        hostname: &str,
    ) -> Self {
        Self {
            socket: datagram_socket(),
            path: socket.to_owned(),
            file: file.and_then(|path| LogFile::open(path, permissions).ok()),
            hostname: hostname.split('.').next().unwrap_or(hostname).to_owned(),
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: clone_socket(&self.socket)?,
            path: self.path.clone(),
            file: self.file.as_ref().map(LogFile::try_clone).transpose()?,
            hostname: self.hostname.clone(),
        })
    }

    pub(super) fn keep_open(&mut self, old: Self) {
        self.socket = self.socket.take().or(old.socket);
        if let (Some(new), Some(old)) = (&mut self.file, &old.file) {
            new.follow(old);
        }
        self.file = self.file.take().or(old.file);
    }

    pub(super) fn file_fd(&self) -> Option<RawFd> {
        self.file.as_ref().map(LogFile::fd)
    }

    /// Sends a line to postlogd, or writes it to the file when it is `direct` or postlogd's socket
    /// is not read, not there or full.
    ///
    /// # Errors
    /// Why the line is lost.
    pub(super) fn send(
        &mut self,
        entry: &Entry<'_>,
        format: Format,
        direct: bool,
    ) -> io::Result<()> {
        let line = match format {
            Format::Text => format!("{} {} {entry}", Timestamp::now(), self.hostname),
            Format::Json => entry.to_json()?,
        };
        let tries_socket = !direct || self.file.is_none();
        if let Some(socket) = self.socket.as_ref().filter(|_| tries_socket) {
            if socket.send_to(line.as_bytes(), &self.path).is_ok() {
                return Ok(());
            }
        }
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        file.write_line(&line)
    }
}
