//! The channel between the master and one child, or one local program: a socket of which the master
//! has one end. Neither reading nor closing it waits for the other side.
//!
//! That needs care, because the other side can send descriptors. The kernel closes what is not
//! taken in the time of the process that reads or closes the channel, and the last close of a TCP
//! socket may take as long as its owner has set (`SO_LINGER`). Linux refuses to send descriptors
//! where it is asked to (`SO_PASSRIGHTS`, since 6.16). On older kernels the master looks before it
//! reads; what is found to have descriptors is not read any more, and its last close is that of a
//! process that ends, for which the kernel does not wait.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, UnixCredentials,
    getsockopt, recv, recvmsg, send, setsockopt, shutdown, socketpair, sockopt,
};
use nix::{cmsg_space, setsockopt_impl, sockopt_impl};

use super::closer;

/// The option of Linux (include/uapi/asm-generic/socket.h).
const SO_PASSRIGHTS: libc::c_int = 83;

sockopt_impl!(PassRights, SetOnly, libc::SOL_SOCKET, SO_PASSRIGHTS, bool);

/// Reads that a close makes at the most of what the other side has sent last.
const LAST_READS: usize = 64;
/// Bytes in each of them.
const LAST_READ: usize = 4096;

/// What a read has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Bytes(usize),
    /// Nothing, now.
    Nothing,
    /// Nothing ever: the other side has ended or has shut the channel down.
    End,
    /// The other side has sent descriptors: the channel must not be read any more.
    Descriptors,
}

impl From<Result<usize, Errno>> for Found {
    fn from(read: Result<usize, Errno>) -> Self {
        match read {
            Ok(0) => Self::End,
            Ok(length) => Self::Bytes(length),
            Err(Errno::EAGAIN | Errno::EINTR) => Self::Nothing,
            Err(_) => Self::End,
        }
    }
}

/// The master's end of a channel.
#[derive(Debug)]
pub struct Channel {
    /// Taken when it is closed.
    fd: Option<OwnedFd>,
    /// The kernel refuses descriptors that the other side sends.
    refuses: bool,
}

impl Channel {
    /// A stream, and the end that a child inherits, which blocks, as under Postfix. Both ends are
    /// closed on exec.
    ///
    /// # Errors
    /// The system's, when descriptors or memory have run out.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        let refuses = refuse_descriptors(&ours);
        Ok((Self::new(ours, refuses), theirs))
    }

    /// A connected socket, for which [`refuse_descriptors`] has had this result before anything
    /// could be sent to it.
    pub(super) fn new(fd: OwnedFd, refuses: bool) -> Self {
        if !refuses {
            // A look would skip a byte that is out of band, and the descriptors that came with it.
            let _ = setsockopt(&fd, sockopt::OobInline, &true);
        }
        Self {
            fd: Some(fd),
            refuses,
        }
    }

    /// The end that a former program had, of which it knew this.
    pub fn resume(fd: OwnedFd, refuses: bool) -> Self {
        Self {
            fd: Some(fd),
            refuses,
        }
    }

    /// Whether the kernel refuses descriptors that the other side sends.
    pub fn refuses(&self) -> bool {
        self.refuses
    }

    /// The user and the process that have connected, as the kernel knows them.
    ///
    /// # Errors
    /// `ENOTCONN` and the like, for a socket that is no connection; of one that was accepted, the kernel
    /// always knows it.
    pub fn peer(&self) -> io::Result<UnixCredentials> {
        Ok(getsockopt(self, sockopt::PeerCredentials)?)
    }

    /// Sends as much as there is room for. The number of bytes sent.
    ///
    /// # Errors
    /// The system's: the other end is closed.
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.as_raw_fd(), bytes, flags) {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            sent => sent,
        }
    }

    /// Reads what is there and fits, a message of a socket that has messages.
    pub fn read(&self, bytes: &mut [u8]) -> Found {
        let length = match self.look(bytes) {
            Found::Bytes(length) => length,
            found => return found,
        };
        let bytes = &mut bytes[..length];
        recv(self.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT).into()
    }

    /// Closes it in another process: the kernel tells all that wait to write to it, once for each
    /// message that was not read.
    pub fn close_elsewhere(mut self) {
        closer::close(self.fd.take().into_iter().collect());
    }

    /// Reads like [`Self::read`], and tells which process has written that; 0 if the kernel does not
    /// say. For a connection that came through a [socket](super::template_socket).
    pub fn read_from(&self, bytes: &mut [u8]) -> (Found, i32) {
        let mut control = cmsg_space!(UnixCredentials);
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let mut parts = [IoSliceMut::new(bytes)];
        let fd = self.as_raw_fd();
        let (length, writer) = match recvmsg::<()>(fd, &mut parts, Some(&mut control), flags) {
            // There is room for no more than the writer.
            Ok(message) if message.flags.contains(MsgFlags::MSG_CTRUNC) => {
                return (Found::Descriptors, 0);
            }
            Ok(message) => {
                let writer = message.cmsgs().ok().and_then(|mut all| {
                    all.find_map(|one| match one {
                        ControlMessageOwned::ScmCredentials(writer) => Some(writer.pid()),
                        _ => None,
                    })
                });
                (message.bytes, writer.unwrap_or_default())
            }
            Err(errno) => return (Err(errno).into(), 0),
        };
        let read = recv(fd, &mut bytes[..length], MsgFlags::MSG_DONTWAIT);
        (read.into(), writer)
    }

    /// Has the kernel no longer tell which process has written what is read.
    ///
    /// # Errors
    /// The system's.
    pub fn forget_writers(&self) -> io::Result<()> {
        Ok(setsockopt(self, sockopt::PassCred, &false)?)
    }

    /// How much can be read without taking in descriptors.
    fn look(&self, bytes: &mut [u8]) -> Found {
        if self.refuses {
            return Found::Bytes(bytes.len());
        }
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let mut parts = [IoSliceMut::new(bytes)];
        match recvmsg::<()>(self.as_raw_fd(), &mut parts, None, flags) {
            Ok(message) if message.flags.contains(MsgFlags::MSG_CTRUNC) => Found::Descriptors,
            read => read.map(|message| message.bytes).into(),
        }
    }

    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Drops what the other side has sent last, too.
impl Drop for Channel {
    fn drop(&mut self) {
        if self.refuses || self.fd.is_none() {
            return;
        }
        // From now on the other side cannot send.
        let _ = shutdown(self.as_raw_fd(), Shutdown::Read);
        let mut bytes = [0; LAST_READ];
        let mut found = (0..LAST_READS).map(|_| self.read(&mut bytes));
        let ends = found.find(|found| !matches!(found, Found::Bytes(_)));
        if !matches!(ends, Some(Found::Nothing | Found::End)) {
            closer::close(self.fd.take().into_iter().collect());
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = self.fd.as_ref();
        fd.expect("it is taken when it is closed").as_fd()
    }
}

/// Has the kernel refuse descriptors that are sent to this socket, or to sockets that are accepted
/// from it. Whether it does.
pub(super) fn refuse_descriptors(socket: &OwnedFd) -> bool {
    setsockopt(socket, PassRights, &false).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{SOON, in_own_process, lingering, send_descriptor};
    use nix::unistd::write;
    use std::io::Read;
    use std::time::Instant;

    /// A channel of a kernel that refuses descriptors, or of one that does not.
    fn channel(refuses: bool) -> (Channel, OwnedFd) {
        let (mut ours, theirs) = Channel::pair().unwrap();
        if !refuses {
            let yes: libc::c_int = 1;
            // SAFETY: the option's value is one int. Kernels that do not have it need no change.
            unsafe {
                libc::setsockopt(
                    ours.as_fd().as_raw_fd(),
                    libc::SOL_SOCKET,
                    SO_PASSRIGHTS,
                    (&raw const yes).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                );
            }
            ours.refuses = false;
        }
        (ours, theirs)
    }

    #[test]
    fn what_a_child_writes_is_read_as_far_as_there_is_room() {
        for refuses in [true, false] {
            let (ours, theirs) = channel(refuses);
            let mut bytes = [0; 12];
            assert_eq!(ours.read(&mut bytes), Found::Nothing);
            write(&theirs, &[7; 17]).unwrap();
            assert_eq!(ours.read(&mut bytes), Found::Bytes(12));
            assert_eq!(bytes, [7; 12]);
            assert_eq!(ours.read(&mut bytes), Found::Bytes(5));
            assert_eq!(ours.read(&mut bytes), Found::Nothing);
        }
    }

    #[test]
    fn the_end_comes_after_what_was_written_before() {
        for refuses in [true, false] {
            let (ours, theirs) = channel(refuses);
            write(&theirs, &[7; 12]).unwrap();
            shutdown(theirs.as_raw_fd(), Shutdown::Both).unwrap();
            let mut bytes = [0; 24];
            assert_eq!(ours.read(&mut bytes), Found::Bytes(12));
            assert_eq!(ours.read(&mut bytes), Found::End);
        }
    }

    #[test]
    fn a_child_reads_end_of_file_when_the_master_closes_its_end() {
        for refuses in [true, false] {
            let (ours, theirs) = channel(refuses);
            drop(ours);
            let mut bytes = [0; 12];
            let flags = MsgFlags::MSG_DONTWAIT;
            assert_eq!(recv(theirs.as_raw_fd(), &mut bytes, flags), Ok(0));
        }
    }

    #[test]
    fn a_socket_that_lingers_is_found_and_closed_without_waiting() {
        let name = "sys::channel::tests::a_socket_that_lingers_is_found_and_closed_without_waiting";
        if in_own_process(name) {
            let (ours, theirs) = channel(false);
            let (socket, mut peer) = lingering();
            write(&theirs, &[7; 12]).unwrap();
            send_descriptor(&theirs, &socket, &[7; 12]).unwrap();
            // With this one open, to close it does not wait.
            drop(socket);
            let begin = Instant::now();
            assert_eq!(ours.read(&mut [0; 24]), Found::Descriptors);
            drop(ours);
            assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
            // And it is closed: its peer comes to the end.
            peer.set_read_timeout(Some(SOON)).unwrap();
            let mut bytes = [0; 65536];
            while peer.read(&mut bytes).unwrap() > 0 {}
        }
    }

    #[test]
    fn a_kernel_that_refuses_descriptors_says_so_to_the_sender() {
        let (ours, theirs) = channel(true);
        if !ours.refuses {
            // Before Linux 6.16.
            return;
        }
        let null = std::fs::File::open("/dev/null").unwrap();
        let sent = send_descriptor(&theirs, &null, &[7; 12]);
        assert_eq!(sent, Err(Errno::EPERM));
    }
}
