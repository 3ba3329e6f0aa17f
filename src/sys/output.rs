//! What a child prints, through a pipe that the master never waits for.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

/// The end that is read.
#[derive(Debug)]
pub struct OutputPipe(File);

/// What there was to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Bytes(usize),
    /// Nothing, now.
    Nothing,
    /// Nobody has the other end any more.
    End,
}

impl OutputPipe {
    /// A new pipe, and the end that a child gets, which waits when nobody reads.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Self(ours.into()), theirs))
    }

    /// Reads what fits into the buffer and is there.
    pub fn read(&mut self, buffer: &mut [u8]) -> Found {
        loop {
            match self.0.read(buffer) {
                Ok(0) => return Found::End,
                Ok(length) => return Found::Bytes(length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Found::Nothing,
                // A pipe has no other errors; whatever it is, there is nothing more to be had.
                Err(_) => return Found::End,
            }
        }
    }
}

impl AsFd for OutputPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_there_is_read_and_nothing_is_waited_for() {
        let (mut ours, theirs) = OutputPipe::new().unwrap();
        let mut buffer = [0; 4];
        assert_eq!(ours.read(&mut buffer), Found::Nothing);
        let mut theirs = File::from(theirs);
        theirs.write_all(b"hello").unwrap();
        assert_eq!(ours.read(&mut buffer), Found::Bytes(4));
        assert_eq!(ours.read(&mut buffer), Found::Bytes(1));
        drop(theirs);
        assert_eq!(ours.read(&mut buffer), Found::End);
    }

    #[test]
    fn a_child_waits_when_nobody_reads() {
        let (_ours, theirs) = OutputPipe::new().unwrap();
        let flags = fcntl(&theirs, FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
    }
}
