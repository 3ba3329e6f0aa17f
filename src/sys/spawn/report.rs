//! What a program says that applies settings and then executes another.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

/// Longer texts are cut off.
const TEXT_MAX: usize = 1024;

/// The master's end of the pipe. The program closes its own when it executes the other.
#[derive(Debug)]
pub(super) struct Report {
    pipe: File,
    text: Vec<u8>,
    is_over: bool,
}

impl Report {
    /// A new one, and the end of the pipe that is the program's.
    pub(super) fn pipe() -> io::Result<(Self, OwnedFd)> {
        // The program's one text has room in an empty pipe, so that it does not have to wait either.
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let report = Self {
            pipe: read.into(),
            text: Vec::new(),
            is_over: false,
        };
        Ok((report, write))
    }

    /// Whether more can come, and whether there is a text, which means a failure.
    pub(super) fn read(&mut self) -> (bool, bool) {
        let mut bytes = [0; TEXT_MAX];
        while !self.is_over {
            match self.pipe.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => self.is_over = true,
                Ok(size) => {
                    let room = TEXT_MAX - self.text.len();
                    self.text.extend_from_slice(&bytes[..size.min(room)]);
                    // It says one thing only.
                    self.is_over = true;
                }
            }
        }
        (!self.is_over, !self.text.is_empty())
    }

    /// The text, when the program has ended.
    pub(super) fn into_text(mut self) -> Option<Vec<u8>> {
        self.read();
        Some(self.text).filter(|text| !text.is_empty())
    }
}
