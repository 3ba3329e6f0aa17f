//! Questions to sock_diag(7), which tells of all sockets of this network namespace.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Linux, `linux/netlink.h` and `linux/sock_diag.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// The state of a listener, in the set of states that are asked for.
pub(super) const LISTENING: u32 = 1 << 10;

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

/// The kernel gives no more than this at a time.
const PART: usize = 32 * 1024;
/// The most parts of an answer: 8 MiB, room for a hundred thousand listeners.
const PARTS: usize = 256;

/// A connection on which the kernel is asked.
#[derive(Debug)]
pub(super) struct Dump(OwnedFd);

impl Dump {
    /// # Errors
    /// The system's.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkSockDiag;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Ok(Self(fd))
    }

    /// Asks for all sockets of a kind, and gives the message about each to `take`.
    ///
    /// # Errors
    /// The system's: it was built without this, or does not let us ask. Or `take`'s.
    pub(super) fn ask(
        &self,
        question: &[u8],
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        send(self.0.as_raw_fd(), &request(question), MsgFlags::empty())?;
        let mut part = vec![0; PART];
        for _ in 0..PARTS {
            let length = recv(self.0.as_raw_fd(), &mut part, MsgFlags::empty())?;
            if read(&part[..length], &mut take)? {
                return Ok(());
            }
        }
        Err(io::ErrorKind::QuotaExceeded.into())
    }
}

/// A `nlmsghdr` and the question.
fn request(question: &[u8]) -> Vec<u8> {
    [
        &((HEADER + question.len()) as u32).to_ne_bytes()[..],
        &SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        &(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes(),
        // A sequence number and a port, for programs that ask several questions at a time.
        &[0; 8],
        question,
    ]
    .concat()
}

/// Reads a part of the answer; true if it was the last.
fn read(mut part: &[u8], take: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
    while !part.is_empty() {
        let length = u32_at(part, 0)? as usize;
        let body = part.get(HEADER..length).ok_or_else(malformed)?;
        match u16_at(part, 4)? {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let errno = u32_at(body, 0)? as i32;
                return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => take(body)?,
            _ => {}
        }
        part = part.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// The value of an attribute of this kind behind the first `start` bytes of a message.
pub(super) fn attribute(body: &[u8], start: usize, kind: u16) -> io::Result<Option<&[u8]>> {
    let mut rest = body.get(start..).ok_or_else(malformed)?;
    while !rest.is_empty() {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(ATTRIBUTE..length).ok_or_else(malformed)?;
        if u16_at(rest, 2)? == kind {
            return Ok(Some(value));
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Ok(None)
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    Ok(u32::from_ne_bytes(chunk(bytes, at)?))
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    Ok(u16::from_ne_bytes(chunk(bytes, at)?))
}

pub(super) fn chunk<const SIZE: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; SIZE]> {
    let chunk = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    chunk.copied().ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with a header.
    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    /// A socket of this number, with two attributes; the value of the second is the number again.
    fn told(number: u32) -> Vec<u8> {
        let mut body = number.to_ne_bytes().to_vec();
        for (kind, value) in [(0_u16, &b"xxx"[..]), (4, &number.to_ne_bytes())] {
            body.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize(aligned(body.len()), 0);
        }
        message(SOCK_DIAG_BY_FAMILY, &body)
    }

    /// The numbers of the sockets in a part of an answer, and whether it was the last.
    fn numbers(part: &[u8]) -> io::Result<(Vec<u32>, bool)> {
        let mut numbers = Vec::new();
        let last = read(part, &mut |body| {
            let value = attribute(body, 4, 4)?.ok_or_else(malformed)?;
            assert_eq!(u32_at(value, 0)?, u32_at(body, 0)?);
            assert_eq!(attribute(body, 4, 5)?, None);
            numbers.push(u32_at(value, 0)?);
            Ok(())
        })?;
        Ok((numbers, last))
    }

    #[test]
    fn an_answer_may_come_in_parts_of_several_messages() {
        let part = [told(7), message(4711, b"what?"), told(5)];
        // The length of the one in the middle is not a multiple of four.
        let part = [&part[0], &part[1], &[0; 3][..], &part[2]].concat();
        assert_eq!(numbers(&part).unwrap(), (vec![7, 5], false));
        let last = message(NLMSG_DONE, &[0; 4]);
        assert_eq!(numbers(&last).unwrap(), (vec![], true));
    }

    #[test]
    fn a_kernel_that_does_not_know_the_question_says_so() {
        let refusal = message(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes());
        assert_eq!(
            numbers(&refusal).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn no_part_of_a_message_is_taken_for_all_of_it() {
        let whole = told(7);
        for length in 1..whole.len() {
            assert!(
                numbers(&whole[..length]).is_err(),
                "the first {length} bytes"
            );
        }
        assert!(numbers(&[0; HEADER]).is_err());
    }
}
