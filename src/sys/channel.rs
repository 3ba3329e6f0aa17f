//! The status channel between the master and one child: a stream, as under Postfix, where all
//! children of a service share one. With a channel of its own a child can speak only for itself;
//! what it writes, however little or much, shifts nobody else's reports; and the master reads it at
//! the same cost however many others wait for a client and listen for the master's end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};

use super::local::refuse_descriptors;

/// What is left on a channel after something was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// Nothing for now.
    No,
    /// There was more than had room.
    Perhaps,
    /// Nothing ever: nobody has the child's end any more, or somebody has shut it down.
    Never,
}

/// The master's end of a child's status channel. When it is closed, the child finds out, and leaves
/// as soon as it has finished with its client.
#[derive(Debug)]
pub struct StatusChannel(OwnedFd);

impl StatusChannel {
    /// A channel, and the end that the child inherits; both are closed on exec. The child's end
    /// blocks, as under Postfix.
    ///
    /// # Errors
    /// The system's, when descriptors or memory have run out.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        refuse_descriptors(&ours);
        Ok((Self(ours), theirs))
    }

    /// Takes what waits, as far as `bytes` has room for it: how much that was, and whether there
    /// may be more.
    pub fn read(&self, bytes: &mut [u8]) -> (usize, More) {
        match recv(self.0.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => (0, More::Never),
            Ok(length) if length == bytes.len() => (length, More::Perhaps),
            Ok(length) => (length, More::No),
            Err(Errno::EAGAIN | Errno::EINTR) => (0, More::No),
            // The child has ended and did not read something that somebody sent it.
            Err(_) => (0, More::Never),
        }
    }
}

impl AsFd for StatusChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, Shutdown, sendmsg, shutdown};
    use nix::unistd::write;

    #[test]
    fn what_a_child_writes_is_read_as_far_as_there_is_room() {
        let (channel, child) = StatusChannel::new().unwrap();
        let mut bytes = [0; 12];
        assert_eq!(channel.read(&mut bytes), (0, More::No));
        write(&child, &[7; 17]).unwrap();
        assert_eq!(channel.read(&mut bytes), (12, More::Perhaps));
        assert_eq!(bytes, [7; 12]);
        assert_eq!(channel.read(&mut bytes), (5, More::No));
    }

    #[test]
    fn the_end_comes_after_what_was_written_before() {
        type Ending = fn(OwnedFd);
        let endings: [Ending; 2] = [drop, |child| {
            shutdown(child.as_raw_fd(), Shutdown::Both).unwrap();
        }];
        for end in endings {
            let (channel, child) = StatusChannel::new().unwrap();
            write(&child, &[7; 12]).unwrap();
            end(child);
            let mut bytes = [0; 24];
            assert_eq!(channel.read(&mut bytes), (12, More::No));
            assert_eq!(channel.read(&mut bytes), (0, More::Never));
        }
    }

    #[test]
    fn a_child_finds_out_that_the_master_has_closed_its_end() {
        let (channel, child) = StatusChannel::new().unwrap();
        drop(channel);
        let mut bytes = [0; 12];
        let flags = MsgFlags::MSG_DONTWAIT;
        assert_eq!(recv(child.as_raw_fd(), &mut bytes, flags), Ok(0));
    }

    #[test]
    fn descriptors_that_come_along_are_refused_or_not_taken() {
        let (channel, child) = StatusChannel::new().unwrap();
        let iov = [io::IoSlice::new(&[7; 12])];
        let null = std::fs::File::open("/dev/null").unwrap();
        let rights = [null.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        // Nobody but the kernel knows the numbers that they would get, so all of them are looked at.
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        for _ in 0..50 {
            let mut bytes = [0; 24];
            match sendmsg::<()>(child.as_raw_fd(), &iov, &rights, MsgFlags::empty(), None) {
                Ok(_) => assert_eq!(channel.read(&mut bytes).0, 12),
                Err(errno) => assert_eq!(errno, Errno::EPERM),
            }
        }
        // Other tests of this process open a few descriptors at the same time.
        assert!(open() < before + 50, "descriptors were taken in");
    }
}
