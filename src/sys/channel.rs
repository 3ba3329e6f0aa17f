//! The status channel between the master and one child: a stream, as under Postfix, where all
//! children of a service share one. With a channel of its own a child can speak only for itself;
//! what it writes, however little or much, shifts nobody else's reports; and the master reads it at
//! the same cost however many others wait for a client and listen for the master's end.
//!
//! To make a channel and to close it takes a fifth of what a child costs the master from its start to
//! its end, so the next child may have the channel of one that has ended.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};

use super::local::refuse_descriptors;

/// What is left on a channel after something was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// Nothing for now.
    No,
    /// There was more than had room.
    Perhaps,
    /// Nothing ever: the child, or somebody who has the channel from it, has shut it down.
    Never,
}

/// A child's status channel: the master's end, and the child's, which the child inherits. When the
/// first is closed, the child finds out, and leaves as soon as it has finished with its client.
#[derive(Debug)]
pub struct StatusChannel {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl StatusChannel {
    /// A channel, of which both ends are closed on exec. The child's end blocks, as under Postfix.
    ///
    /// # Errors
    /// The system's, when descriptors or memory have run out.
    pub fn new() -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        refuse_descriptors(&ours);
        Ok(Self { ours, theirs })
    }

    /// What is to be the child's descriptor.
    pub fn childs_end(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// Whether a child that is given this channel finds it as if it were new: nothing is on its way,
    /// and nobody has shut it down, as a former child can do, or one whom that has left behind.
    pub fn is_as_new(&self) -> bool {
        let mut fds = [
            PollFd::new(self.ours.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.theirs.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT),
        ];
        let polled = poll(&mut fds, PollTimeout::ZERO);
        let found = fds.map(|fd| fd.revents());
        polled.is_ok() && found == [Some(PollFlags::empty()), Some(PollFlags::POLLOUT)]
    }

    /// Closes the master's end: the child finds out. What is left of the channel can be closed at
    /// any time.
    pub fn hang_up(self) -> OwnedFd {
        self.theirs
    }

    /// Takes what waits, as far as `bytes` has room for it: how much that was, and whether there
    /// may be more.
    pub fn read(&self, bytes: &mut [u8]) -> (usize, More) {
        match recv(self.ours.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => (0, More::Never),
            Ok(length) if length == bytes.len() => (length, More::Perhaps),
            Ok(length) => (length, More::No),
            Err(Errno::EAGAIN | Errno::EINTR) => (0, More::No),
            Err(_) => (0, More::Never),
        }
    }
}

impl AsFd for StatusChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, Shutdown, sendmsg, shutdown};
    use nix::unistd::write;

    #[test]
    fn what_a_child_writes_is_read_as_far_as_there_is_room() {
        let channel = StatusChannel::new().unwrap();
        let mut bytes = [0; 12];
        assert_eq!(channel.read(&mut bytes), (0, More::No));
        write(channel.childs_end(), &[7; 17]).unwrap();
        assert_eq!(channel.read(&mut bytes), (12, More::Perhaps));
        assert_eq!(bytes, [7; 12]);
        assert_eq!(channel.read(&mut bytes), (5, More::No));
    }

    fn shut_down(channel: &StatusChannel, how: Shutdown) {
        shutdown(channel.childs_end().as_raw_fd(), how).unwrap();
    }

    #[test]
    fn the_end_comes_after_what_was_written_before() {
        let channel = StatusChannel::new().unwrap();
        write(channel.childs_end(), &[7; 12]).unwrap();
        shut_down(&channel, Shutdown::Both);
        let mut bytes = [0; 24];
        assert_eq!(channel.read(&mut bytes), (12, More::No));
        assert_eq!(channel.read(&mut bytes), (0, More::Never));
    }

    #[test]
    fn a_channel_that_was_read_to_the_end_is_as_new() {
        let channel = StatusChannel::new().unwrap();
        assert!(channel.is_as_new());
        write(channel.childs_end(), &[7; 12]).unwrap();
        assert!(!channel.is_as_new());
        assert_eq!(channel.read(&mut [0; 24]), (12, More::No));
        assert!(channel.is_as_new());
    }

    #[test]
    fn a_channel_that_was_shut_down_is_not_as_new() {
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            let channel = StatusChannel::new().unwrap();
            shut_down(&channel, how);
            assert!(!channel.is_as_new(), "{how:?}");
        }
    }

    #[test]
    fn a_child_finds_out_that_the_master_has_closed_its_end() {
        let channel = StatusChannel::new().unwrap();
        let child = channel.hang_up();
        let mut bytes = [0; 12];
        let flags = MsgFlags::MSG_DONTWAIT;
        assert_eq!(recv(child.as_raw_fd(), &mut bytes, flags), Ok(0));
    }

    #[test]
    fn descriptors_that_come_along_are_refused_or_not_taken() {
        let channel = StatusChannel::new().unwrap();
        let child = channel.childs_end();
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
