//! How many clients wait for each unix listener. No call on the listener tells; sock_diag(7) does,
//! and is asked for all at once, because to find a single one it would look through all as well.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use nix::sys::stat::{SFlag, fstat};

/// Linux, `linux/netlink.h`, `linux/sock_diag.h` and `linux/unix_diag.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const TCP_LISTEN: u32 = 10;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;

const HEADER: usize = 16;
/// What comes before the attributes of a socket.
const SOCKET: usize = 16;
const ATTRIBUTE: usize = 4;

/// The kernel gives no more than this at a time.
const PART: usize = 32 * 1024;
/// So many parts have room for a hundred thousand listeners.
const PARTS: usize = 256;

/// The lengths of all queues at one moment, by the listeners' inodes, in ascending order.
#[derive(Debug, Default)]
pub struct Queues(Vec<(u32, u32)>);

impl Queues {
    /// Asks the kernel.
    ///
    /// # Errors
    /// The system's: it was built without this, or does not let us ask.
    pub fn read() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkSockDiag;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        send(fd.as_raw_fd(), &question(), MsgFlags::empty())?;
        let mut queues = Self::default();
        let mut part = vec![0; PART];
        for _ in 0..PARTS {
            let length = recv(fd.as_raw_fd(), &mut part, MsgFlags::empty())?;
            if queues.take(&part[..length])? {
                queues.0.sort_unstable();
                return Ok(queues);
            }
        }
        Err(io::ErrorKind::QuotaExceeded.into())
    }

    /// The clients that wait for this listener, if the kernel has told of it.
    pub fn waiting(&self, listener: &impl AsFd) -> Option<u32> {
        let facts = fstat(listener).ok()?;
        if SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
            // The inode of a fifo is another file system's.
            return None;
        }
        let inode = u32::try_from(facts.st_ino).ok()?;
        let at = self.0.binary_search_by_key(&inode, |(inode, _)| *inode);
        at.ok().map(|at| self.0[at].1)
    }

    /// Takes a part of the answer; true if it was the last.
    fn take(&mut self, mut part: &[u8]) -> io::Result<bool> {
        while !part.is_empty() {
            let length = u32_at(part, 0)? as usize;
            let body = part.get(HEADER..length).ok_or_else(malformed)?;
            match u16_at(part, 4)? {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => {
                    let errno = u32_at(body, 0)? as i32;
                    return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
                }
                SOCK_DIAG_BY_FAMILY => self.0.extend(listener(body)?),
                _ => {}
            }
            part = part.get(aligned(length)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// A `nlmsghdr` and a `unix_diag_req`: all listeners, and their queues.
fn question() -> Vec<u8> {
    const LENGTH: u32 = 40;
    [
        &LENGTH.to_ne_bytes()[..],
        &SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        &(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes(),
        // A sequence number and a port, for programs that ask more than once.
        &[0; 8],
        &[AddressFamily::Unix as u8, 0, 0, 0],
        &(1_u32 << TCP_LISTEN).to_ne_bytes(),
        // No inode: all.
        &[0; 4],
        &UDIAG_SHOW_RQLEN.to_ne_bytes(),
        // And no cookie, which would belong to it.
        &[0; 8],
    ]
    .concat()
}

/// A listener's inode and the length of its queue, from a `unix_diag_msg` and its attributes.
fn listener(body: &[u8]) -> io::Result<Option<(u32, u32)>> {
    let inode = u32_at(body, 4)?;
    let mut rest = body.get(SOCKET..).ok_or_else(malformed)?;
    while !rest.is_empty() {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(ATTRIBUTE..length).ok_or_else(malformed)?;
        if u16_at(rest, 2)? == UNIX_DIAG_RQLEN {
            return Ok(Some((inode, u32_at(value, 0)?)));
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Ok(None)
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    Ok(u32::from_ne_bytes(chunk(bytes, at)?))
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    Ok(u16::from_ne_bytes(chunk(bytes, at)?))
}

fn chunk<const SIZE: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; SIZE]> {
    let chunk = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    chunk.copied().ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::super::listen::{PathKind, path};
    use super::*;
    use std::os::unix::net::UnixStream;

    /// A message with a header.
    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    /// A listener with this queue, after an attribute that nobody has asked for.
    fn told(inode: u32, waiting: u32) -> Vec<u8> {
        let mut body = vec![1, 1, 10, 0];
        body.extend(inode.to_ne_bytes());
        body.extend([0; 8]);
        for (kind, value) in [(0_u16, &[b'x'; 3][..]), (UNIX_DIAG_RQLEN, &[0; 8])] {
            body.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize(aligned(body.len()), 0);
        }
        let at = body.len() - 8;
        body[at..at + 4].copy_from_slice(&waiting.to_ne_bytes());
        message(SOCK_DIAG_BY_FAMILY, &body)
    }

    #[test]
    fn those_who_wait_for_a_unix_listener_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let listen = |name: &str, kind| path(&directory.path().join(name), kind, 10).unwrap();
        let busy = listen("busy", PathKind::Stream);
        let calm = listen("calm", PathKind::Stream);
        let others = [
            listen("datagrams", PathKind::Datagram),
            listen("fifo", PathKind::Fifo),
        ];
        let come = |_| UnixStream::connect(directory.path().join("busy")).unwrap();
        let _clients: Vec<_> = (0..3).map(come).collect();
        let queues = Queues::read().unwrap();
        assert_eq!(queues.waiting(&busy), Some(3));
        assert_eq!(queues.waiting(&calm), Some(0));
        for other in &others {
            assert_eq!(queues.waiting(other), None);
        }
        assert_eq!(Queues::default().waiting(&busy), None);
        // A file may have the number of somebody's socket.
        let fifo = &others[1];
        let namesake = fstat(fifo).unwrap().st_ino as u32;
        assert_eq!(Queues(vec![(namesake, 1)]).waiting(fifo), None);
    }

    #[test]
    fn an_answer_may_come_in_parts_of_several_messages() {
        let mut queues = Queues::default();
        let part = [told(7, 1), message(4711, b"what?"), told(5, 2)];
        // The length of the one in the middle is not a multiple of four.
        let part = [&part[0], &part[1], &[0; 3][..], &part[2]].concat();
        assert!(!queues.take(&part).unwrap());
        assert!(queues.take(&message(NLMSG_DONE, &[0; 4])).unwrap());
        assert_eq!(queues.0, [(7, 1), (5, 2)]);
    }

    #[test]
    fn a_kernel_that_does_not_know_the_question_says_so() {
        let refusal = message(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes());
        let refused = Queues::default().take(&refusal).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn no_part_of_a_message_is_taken_for_all_of_it() {
        let whole = told(7, 1);
        for length in 1..whole.len() {
            let cut = Queues::default().take(&whole[..length]);
            assert!(cut.is_err(), "the first {length} bytes");
        }
        let endless = [0; HEADER];
        assert!(Queues::default().take(&endless).is_err());
    }
}
