//! What a child prints, through a pipe that the master never waits for.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd;

use super::channel::Found;
use super::process;

/// The end of a new pipe that the master reads, and the end that a child gets, which waits when it
/// is not read.
///
/// # Errors
/// The system's, when descriptors have run out.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    process::set_nonblocking(&ours)?;
    Ok((ours, theirs))
}

/// Reads what fits into the buffer and is there.
pub fn read(ours: &OwnedFd, buffer: &mut [u8]) -> Found {
    unistd::read(ours, buffer).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, fcntl};
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn what_is_there_is_read_and_nothing_is_waited_for() {
        let (ours, theirs) = pipe().unwrap();
        let mut buffer = [0; 4];
        assert_eq!(read(&ours, &mut buffer), Found::Nothing);
        let mut theirs = File::from(theirs);
        theirs.write_all(b"hello").unwrap();
        assert_eq!(read(&ours, &mut buffer), Found::Bytes(4));
        assert_eq!(read(&ours, &mut buffer), Found::Bytes(1));
        drop(theirs);
        assert_eq!(read(&ours, &mut buffer), Found::End);
    }

    #[test]
    fn a_child_waits_when_nobody_reads() {
        let (_ours, theirs) = pipe().unwrap();
        let flags = fcntl(&theirs, FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
    }
}
