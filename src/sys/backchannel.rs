//! The channel between the master and one child of an ordered pool: a stream, as SpamAssassin's
//! children expect it, of which a message can be cut anywhere. What cannot be written at once is
//! kept here, and never more than a few orders: nobody waits for the other side.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::protocol::pool::{Assembler, Message, SIZE};

/// Orders that wait to be written. A child has one order to answer at a time, and is pinged every
/// few minutes; one that has not read so many does not read at all.
const WAITING: usize = 8 * SIZE;
/// Bytes read in one turn: a child that floods its channel must not keep the others waiting.
const READ: usize = 16 * SIZE;

/// Whether everything was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    All,
    /// The rest is kept until the channel is writable.
    Part,
}

/// The master's end of a child's channel.
#[derive(Debug)]
pub struct Backchannel {
    ours: OwnedFd,
    assembler: Assembler,
    waiting: [u8; WAITING],
    length: usize,
}

impl Backchannel {
    /// A channel, and the end that the child inherits. Its end blocks: a child may simply read, and
    /// gets whole messages.
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
        read_whole_messages(&theirs)?;
        let channel = Self {
            ours,
            assembler: Assembler::default(),
            waiting: [0; WAITING],
            length: 0,
        };
        Ok((channel, theirs))
    }

    /// Puts a message behind those that wait, and writes what can be written.
    ///
    /// # Errors
    /// The system's, or that the child has not read the messages before.
    pub fn send(&mut self, message: Message) -> io::Result<Written> {
        self.keep(message)?;
        self.flush()
    }

    /// Puts a message behind those that wait.
    ///
    /// # Errors
    /// The child has not read the messages before.
    pub fn keep(&mut self, message: Message) -> io::Result<()> {
        let end = self.length + SIZE;
        let free = self.waiting.get_mut(self.length..end);
        let free = free.ok_or_else(|| io::Error::other("it does not read its orders"))?;
        free.copy_from_slice(&message);
        self.length = end;
        Ok(())
    }

    /// Writes what waits, as far as the child has room for it.
    ///
    /// # Errors
    /// The system's: the child has closed its end.
    pub fn flush(&mut self) -> io::Result<Written> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while self.length > 0 {
            match send(self.ours.as_raw_fd(), &self.waiting[..self.length], flags) {
                Ok(written) => {
                    self.waiting.copy_within(written..self.length, 0);
                    self.length -= written;
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return Ok(Written::Part),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Written::All)
    }

    /// Appends the messages that are whole, and tells whether there can be more at all.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&mut self, messages: &mut Vec<Message>) -> io::Result<bool> {
        let mut bytes = [0; READ];
        match recv(self.ours.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Ok(false),
            Ok(length) => {
                let mut input = &bytes[..length];
                while let Some(message) = self.assembler.take(&mut input) {
                    messages.push(message);
                }
                Ok(true)
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Backchannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}

/// Sets how much there has to be before a blocking read of the child's ends.
fn read_whole_messages(theirs: &OwnedFd) -> io::Result<()> {
    let least = SIZE as libc::c_int;
    // SAFETY: the option's value is one int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            theirs.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const least).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::pool::{Order, Report};
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    fn pair() -> (Backchannel, File) {
        let (channel, theirs) = Backchannel::new().unwrap();
        (channel, File::from(theirs))
    }

    #[test]
    fn an_order_arrives_and_a_report_comes_back() {
        let (mut channel, mut child) = pair();
        assert_eq!(channel.send(Order::Accept.encode()).unwrap(), Written::All);
        let mut message = [0; SIZE];
        child.read_exact(&mut message).unwrap();
        assert_eq!(Order::decode(message), Some(Order::Accept));
        child.write_all(&Report::Busy.encode(7)).unwrap();
        let mut messages = Vec::new();
        assert!(channel.read(&mut messages).unwrap());
        assert_eq!(messages, [Report::Busy.encode(7)]);
    }

    #[test]
    fn a_child_that_simply_reads_waits_for_a_whole_message() {
        let (mut channel, child) = pair();
        let mut child = UnixStream::from(OwnedFd::from(child));
        let patience = Duration::from_millis(20);
        child.set_read_timeout(Some(patience)).unwrap();
        let mut message = [0; SIZE];
        channel.send(Order::Ping.encode()).unwrap();
        assert_eq!(child.read(&mut message).unwrap(), SIZE);
        nix::unistd::write(&channel.ours, b"P").unwrap();
        let begin = Instant::now();
        assert_eq!(child.read(&mut message).unwrap(), 1);
        assert!(begin.elapsed() >= patience, "it was content with less");
    }

    #[test]
    fn a_message_in_pieces_is_read_without_waiting_for_the_rest() {
        let (mut channel, mut child) = pair();
        let mut messages = Vec::new();
        for byte in Report::Idle.encode(7) {
            assert_eq!(messages.len(), 0);
            child.write_all(&[byte]).unwrap();
            assert!(channel.read(&mut messages).unwrap());
        }
        assert_eq!(messages, [Report::Idle.encode(7)]);
        assert!(channel.read(&mut messages).unwrap(), "nothing, and no end");
    }

    #[test]
    fn the_end_is_told_from_silence() {
        let (mut channel, child) = pair();
        let mut messages = Vec::new();
        assert!(channel.read(&mut messages).unwrap());
        drop(child);
        assert!(!channel.read(&mut messages).unwrap());
        assert!(channel.send(Order::Ping.encode()).is_err());
    }

    #[test]
    fn what_a_child_has_no_room_for_is_kept_and_arrives_later() {
        let (mut channel, mut child) = pair();
        let mut sent = 0;
        while channel.send(Order::Ping.encode()).unwrap() == Written::All {
            sent += 1;
        }
        channel.keep(Order::Accept.encode()).unwrap();
        let mut bytes = vec![0; SIZE * sent];
        child.read_exact(&mut bytes).unwrap();
        assert_eq!(channel.flush().unwrap(), Written::All);
        let mut rest = [0; 2 * SIZE];
        child.read_exact(&mut rest).unwrap();
        assert_eq!(rest[..SIZE], Order::Ping.encode());
        assert_eq!(rest[SIZE..], Order::Accept.encode());
    }

    #[test]
    fn a_child_that_never_reads_is_an_error_in_the_end() {
        let (mut channel, _child) = pair();
        let mut all = std::iter::from_fn(|| Some(channel.send(Order::Ping.encode())));
        assert!(all.any(|sent| sent.is_err()));
        assert!(channel.length <= WAITING);
    }
}
