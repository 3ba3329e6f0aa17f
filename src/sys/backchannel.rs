//! The channel between the master and one child of an ordered pool: a stream, as SpamAssassin's
//! children expect it, of which a message can be cut anywhere. What cannot be written at once is
//! kept here, up to a limit.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};

use super::channel::{Channel, Found};
use super::poll::Interest;
use crate::protocol::pool::{Assembler, Message, SIZE};

sockopt_impl!(
    ReadMin,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    libc::c_int
);

/// Bytes of orders that wait to be written. A child has one order to answer at a time, and is
/// pinged every few minutes; one that has not read eight messages does not read at all.
const WAITING: usize = 8 * SIZE;
/// Bytes read in one turn: a child that floods its channel must not keep the others waiting.
const READ: usize = 16 * SIZE;

/// The master's end of a child's channel.
#[derive(Debug)]
pub struct Backchannel {
    channel: Channel,
    assembler: Assembler,
    waiting: Vec<u8>,
}

impl Backchannel {
    /// A channel, and the end that the child inherits. Its end blocks: a child may simply read, and
    /// gets whole messages.
    ///
    /// # Errors
    /// The system's, when descriptors or memory have run out.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (channel, theirs) = Channel::pair()?;
        // A read of the child's end waits for this many bytes.
        setsockopt(&theirs, ReadMin, &(SIZE as libc::c_int))?;
        Ok((Self::new(channel), theirs))
    }

    /// The master's end of a channel that a child has made.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            assembler: Assembler::default(),
            waiting: Vec::new(),
        }
    }

    /// The end that a former program had, with what it had read and not written of messages.
    pub fn resume(channel: Channel, read: &[u8], waiting: &[u8]) -> Self {
        let mut assembler = Assembler::default();
        assembler.take(&mut &read[..read.len().min(SIZE - 1)]);
        Self {
            channel,
            assembler,
            waiting: waiting[..waiting.len().min(WAITING)].to_vec(),
        }
    }

    /// What [`Self::resume`] needs beside the descriptor.
    pub fn unfinished(&self) -> (&Channel, &[u8], &[u8]) {
        (&self.channel, self.assembler.begun(), &self.waiting)
    }

    /// Puts a message behind those that wait. False if there is no room: the child has not read the
    /// messages before.
    pub fn keep(&mut self, message: Message) -> bool {
        let fits = self.waiting.len() + SIZE <= WAITING;
        if fits {
            self.waiting.extend(message);
        }
        fits
    }

    /// Writes what waits, as far as the child has room for it.
    ///
    /// # Errors
    /// The system's: the child has closed its end. Nothing waits any more.
    pub fn flush(&mut self) -> Result<(), Errno> {
        while !self.waiting.is_empty() {
            match self.channel.send(&self.waiting) {
                Ok(0) => break,
                Ok(sent) => drop(self.waiting.drain(..sent)),
                Err(errno) => {
                    self.waiting.clear();
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    /// What the channel is to be watched for: also for room, while something waits.
    pub fn interest(&self) -> Interest {
        if self.waiting.is_empty() {
            Interest::Readable
        } else {
            Interest::ReadableOrWritable
        }
    }

    /// Appends the messages that are whole. What was found counts messages' bytes, whole or not.
    pub fn read(&mut self, messages: &mut Vec<Message>) -> Found {
        let mut bytes = [0; READ];
        let found = self.channel.read(&mut bytes);
        if let Found::Bytes(length) = found {
            let mut input = &bytes[..length];
            messages.extend(std::iter::from_fn(|| self.assembler.take(&mut input)));
        }
        found
    }
}

impl AsFd for Backchannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
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
        let (channel, theirs) = Backchannel::pair().unwrap();
        (channel, File::from(theirs))
    }

    /// Orders the child. Whether nothing waits then.
    fn send(channel: &mut Backchannel, order: Order) -> Result<bool, Errno> {
        assert!(channel.keep(order.encode()));
        channel.flush()?;
        Ok(channel.interest() == Interest::Readable)
    }

    #[test]
    fn an_order_arrives_and_a_report_comes_back() {
        let (mut channel, mut child) = pair();
        assert_eq!(send(&mut channel, Order::Accept), Ok(true));
        let mut message = [0; SIZE];
        child.read_exact(&mut message).unwrap();
        assert_eq!(Order::decode(message), Some(Order::Accept));
        child.write_all(&Report::Busy.encode(7)).unwrap();
        let mut messages = Vec::new();
        assert_eq!(channel.read(&mut messages), Found::Bytes(SIZE));
        assert_eq!(messages, [Report::Busy.encode(7)]);
    }

    #[test]
    fn a_child_that_simply_reads_waits_for_a_whole_message() {
        let (mut channel, child) = pair();
        let mut child = UnixStream::from(OwnedFd::from(child));
        let patience = Duration::from_millis(20);
        child.set_read_timeout(Some(patience)).unwrap();
        let mut message = [0; SIZE];
        send(&mut channel, Order::Ping).unwrap();
        assert_eq!(child.read(&mut message).unwrap(), SIZE);
        nix::unistd::write(&channel, b"P").unwrap();
        let begin = Instant::now();
        assert_eq!(child.read(&mut message).unwrap(), 1);
        // The kernel counts such a time in ticks, of which the first has begun.
        assert!(begin.elapsed() >= patience / 2, "it was content with less");
    }

    #[test]
    fn a_message_in_pieces_is_read_without_waiting_for_the_rest() {
        let (mut channel, mut child) = pair();
        let mut messages = Vec::new();
        for byte in Report::Idle.encode(7) {
            assert_eq!(messages.len(), 0);
            child.write_all(&[byte]).unwrap();
            assert_eq!(channel.read(&mut messages), Found::Bytes(1));
        }
        assert_eq!(messages, [Report::Idle.encode(7)]);
        assert_eq!(channel.read(&mut messages), Found::Nothing);
    }

    #[test]
    fn the_end_is_told_from_silence() {
        let (mut channel, child) = pair();
        let mut messages = Vec::new();
        assert_eq!(channel.read(&mut messages), Found::Nothing);
        drop(child);
        assert_eq!(channel.read(&mut messages), Found::End);
        assert_eq!(send(&mut channel, Order::Ping), Err(Errno::EPIPE));
        assert_eq!(channel.interest(), Interest::Readable, "nothing waits");
    }

    #[test]
    fn what_a_child_has_no_room_for_is_kept_and_arrives_later() {
        let (mut channel, mut child) = pair();
        let mut sent = 0;
        while send(&mut channel, Order::Ping).unwrap() {
            sent += 1;
        }
        assert_eq!(send(&mut channel, Order::Accept), Ok(false));
        let mut bytes = vec![0; SIZE * sent];
        child.read_exact(&mut bytes).unwrap();
        channel.flush().unwrap();
        assert_eq!(channel.interest(), Interest::Readable, "all was written");
        let mut rest = [0; 2 * SIZE];
        child.read_exact(&mut rest).unwrap();
        assert_eq!(rest[..SIZE], Order::Ping.encode());
        assert_eq!(rest[SIZE..], Order::Accept.encode());
    }

    #[test]
    fn a_child_that_never_reads_is_an_error_in_the_end() {
        let (mut channel, _child) = pair();
        while channel.keep(Order::Ping.encode()) {
            channel.flush().unwrap();
        }
        assert!(channel.waiting.len() <= WAITING);
    }
}
