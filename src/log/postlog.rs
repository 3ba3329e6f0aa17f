//! Postfix's postlogd, by its socket, and the log file behind it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::Format;
use super::entry::Entry;
use super::file::LogFile;
use super::output::{again, at, clone_socket, datagram_socket};
use super::time::Timestamp;
use crate::sys::queues::unread_bytes;

/// The way to postlogd and to its file.
#[derive(Debug)]
pub(super) struct Postlog {
    socket: Option<UnixDatagram>,
    path: PathBuf,
    /// Or why there is none.
    file: io::Result<LogFile>,
    file_path: PathBuf,
    /// Lines that postlogd may not have read yet, the last ones.
    unread: VecDeque<String>,
    /// Up to the first dot.
    hostname: String,
}

/// Lines that are kept until postlogd has read them.
const UNREAD_MAX: usize = 100;

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
            file: file.map_or_else(
                || Err(ErrorKind::NotConnected.into()),
                |path| LogFile::open(path, permissions),
            ),
            file_path: file.unwrap_or(socket).to_owned(),
            unread: VecDeque::new(),
            hostname: hostname.split('.').next().unwrap_or(hostname).to_owned(),
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: clone_socket(&self.socket)?,
            path: self.path.clone(),
            file: match &self.file {
                Ok(file) => Ok(file.try_clone()?),
                Err(error) => Err(again(error)),
            },
            file_path: self.file_path.clone(),
            unread: VecDeque::new(),
            hostname: self.hostname.clone(),
        })
    }

    pub(super) fn keep_open(&mut self, old: Self) {
        self.socket = self.socket.take().or(old.socket);
        self.unread = old.unread;
        match (&mut self.file, old.file) {
            (Ok(new), Ok(old)) => new.follow(&old),
            (new @ Err(_), Ok(old)) => *new = Ok(old),
            (_, Err(_)) => {}
        }
    }

    pub(super) fn file_fd(&self) -> Option<RawFd> {
        self.file.as_ref().ok().map(LogFile::fd)
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
        let tries_socket = !direct || self.file.is_err();
        if let Some(socket) = self.socket.as_ref().filter(|_| tries_socket) {
            if unread_bytes(socket).is_ok_and(|bytes| bytes == 0) {
                self.unread.clear();
            }
            if socket.send_to(line.as_bytes(), &self.path).is_ok() {
                if self.unread.len() == UNREAD_MAX {
                    self.unread.pop_front();
                }
                self.unread.push_back(line);
                return Ok(());
            }
        }
        self.write_to_file(&line)
    }

    /// The lines that postlogd has not read, and perhaps some more; the last ones.
    pub(super) fn take_unread(&mut self) -> Vec<String> {
        let unread = self.socket.as_ref().map(unread_bytes);
        let is_any = matches!(unread, Some(Ok(1..)));
        let lines = mem::take(&mut self.unread);
        lines.into_iter().filter(|_| is_any).collect()
    }

    /// # Errors
    /// Why the line is lost.
    pub(super) fn write_to_file(&mut self, line: &str) -> io::Result<()> {
        let written = match &mut self.file {
            Ok(file) => file.write_line(line),
            Err(error) => Err(again(error)),
        };
        written.map_err(|error| at(&self.file_path, &error))
    }
}
