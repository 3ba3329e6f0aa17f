//! What a child prints, through a pipe that the master never waits for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read};

use super::channel::Found;
use super::process;

/// The end that is read.
#[derive(Debug)]
pub struct OutputPipe(OwnedFd);

impl OutputPipe {
    /// A new pipe, and the end that a child gets, which waits when it is not read.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        process::set_nonblocking(&ours)?;
        Ok((Self(ours), theirs))
    }

    /// Reads what fits into the buffer and is there.
    pub fn read(&self, buffer: &mut [u8]) -> Found {
        read(&self.0, buffer).into()
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
    use nix::fcntl::{FcntlArg, fcntl};
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn what_is_there_is_read_and_nothing_is_waited_for() {
        let (ours, theirs) = OutputPipe::new().unwrap();
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
