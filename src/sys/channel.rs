//! The status channel between the master and the children of one service.
//!
//! A `SOCK_SEQPACKET` pair keeps record boundaries, so that a record of a wrong length harms no
//! other; `SO_PASSCRED` has the kernel name the writer of each record, so that a process can speak
//! only for itself. Postfix's channel is a byte stream, on which one short record shifts all that
//! follow, and where any child can speak for any other.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socketpair, sockopt,
};

/// Bytes kept of a record: one more than a report has would do to tell a long one.
const RECORD: usize = 16;
/// Records taken in one system call.
const BATCH: usize = 32;
/// Room for the writer's credentials and nothing else: descriptors that a child might send along
/// find no place, and the kernel closes them.
// SAFETY: CMSG_SPACE only computes.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as usize;

/// What a child wrote, cut to what a report could be, and who it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    bytes: [u8; RECORD],
    length: usize,
    /// The process that wrote it, as the kernel knows it.
    pub writer: i32,
}

impl Record {
    /// The record, when it is not longer than the buffer.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }

    /// The record's length on the wire.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// What is left on a channel after a batch was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// Nothing for now.
    No,
    /// The batch was full.
    Perhaps,
    /// Nothing ever: a child has shut the channel down for all who share it.
    Never,
}

/// Both ends of a status channel. The children's end stays open here, to be inherited.
#[derive(Debug)]
pub struct StatusChannel {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl StatusChannel {
    /// A new pair, closed on exec.
    ///
    /// # Errors
    /// The system's, when descriptors or memory have run out.
    pub fn new() -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        setsockopt(&ours, sockopt::PassCred, &true)?;
        refuse_descriptors(&ours);
        Ok(Self { ours, theirs })
    }

    /// The end that the children inherit. It blocks, as under Postfix.
    pub fn children_end(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// Whether the children's end has been shut for reading, which looks to all of them as if the
    /// master were gone.
    pub fn is_shut(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        // Nothing is ever sent to the children, so that nothing else reads as an end.
        recv(self.theirs.as_raw_fd(), &mut [0], flags) == Ok(0)
    }

    /// Appends the records that wait, a batch at the most, and tells whether there may be more.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self, records: &mut Vec<Record>) -> io::Result<More> {
        let mut data = [[0u8; RECORD]; BATCH];
        let mut control = [MaybeUninit::<ControlBuffer>::uninit(); BATCH];
        // SAFETY: both are plain C structs, for which all bytes zero is a value.
        let mut iov: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        for n in 0..BATCH {
            iov[n].iov_base = data[n].as_mut_ptr().cast();
            iov[n].iov_len = RECORD;
            let header = &mut headers[n].msg_hdr;
            header.msg_iov = &raw mut iov[n];
            header.msg_iovlen = 1;
            header.msg_control = control[n].as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
        }
        // MSG_TRUNC has the kernel give a long record's true length.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: every header points at buffers of the lengths it names, which outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                self.ours.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        if received < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(More::No),
                _ => Err(error),
            };
        }
        for n in 0..received as usize {
            let length = headers[n].msg_len as usize;
            let writer = writer(&headers[n].msg_hdr);
            // An empty record comes from somebody; the end of file comes from nobody.
            if length == 0 && writer == 0 {
                return Ok(More::Never);
            }
            records.push(Record {
                bytes: data[n],
                length,
                writer,
            });
        }
        Ok(match received as usize == BATCH {
            true => More::Perhaps,
            false => More::No,
        })
    }
}

impl AsFd for StatusChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}

/// Has the kernel refuse descriptors that a child would send along. Without that it throws them
/// away when the record is read, in the master's time, and closing somebody's socket can take as
/// long as its owner wished (`SO_LINGER`). Linux knows this since 6.16; older kernels say so.
pub(super) fn refuse_descriptors(ours: &OwnedFd) {
    const SO_PASSRIGHTS: i32 = 83;
    let no: i32 = 0;
    // SAFETY: the option's value is one int, which outlives the call.
    unsafe {
        libc::setsockopt(
            ours.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const no).cast(),
            size_of::<i32>() as u32,
        );
    }
}

/// A control buffer with the alignment of the header that the kernel puts at its beginning.
#[derive(Clone, Copy)]
#[repr(C)]
struct ControlBuffer {
    _align: [libc::cmsghdr; 0],
    _bytes: [u8; CONTROL],
}

/// The pid in a message's credentials; 0, which is no process, without them.
fn writer(header: &libc::msghdr) -> i32 {
    // SAFETY: the kernel has set the control length to what it wrote, and CMSG_FIRSTHDR gives null
    // when that is no whole header.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(header);
        if first.is_null()
            || (*first).cmsg_level != libc::SOL_SOCKET
            || (*first).cmsg_type != libc::SCM_CREDENTIALS
        {
            return 0;
        }
        libc::CMSG_DATA(first)
            .cast::<libc::ucred>()
            .read_unaligned()
            .pid
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, Shutdown, send, sendmsg, shutdown};

    fn read_all(channel: &StatusChannel) -> Vec<Record> {
        let mut records = Vec::new();
        while channel.read(&mut records).expect("a readable channel") == More::Perhaps {}
        records
    }

    #[test]
    fn records_keep_their_boundaries_and_name_their_writer() {
        let channel = StatusChannel::new().unwrap();
        let child = channel.children_end().as_raw_fd();
        for record in [&[1u8; 5][..], &[2; 12], &[], &[3; 400], &[4; 12]] {
            send(child, record, MsgFlags::empty()).unwrap();
        }
        let records = read_all(&channel);
        let lengths: Vec<_> = records.iter().map(Record::length).collect();
        assert_eq!(lengths, [5, 12, 0, 400, 12]);
        assert_eq!(records[4].bytes(), Some(&[4; 12][..]));
        assert_eq!(records[3].bytes(), None);
        let me = std::process::id() as i32;
        assert!(records.iter().all(|r| r.writer == me), "{records:?}");
    }

    #[test]
    fn more_than_a_batch_is_read_in_order() {
        let channel = StatusChannel::new().unwrap();
        let child = channel.children_end().as_raw_fd();
        for n in 0..100u8 {
            send(child, &[n; 12], MsgFlags::empty()).unwrap();
        }
        let records = read_all(&channel);
        let firsts: Vec<_> = records.iter().map(|r| r.bytes().unwrap()[0]).collect();
        assert_eq!(firsts, (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn descriptors_that_come_along_are_refused_or_not_taken() {
        let channel = StatusChannel::new().unwrap();
        let child = channel.children_end().as_raw_fd();
        let iov = [io::IoSlice::new(&[7; 12])];
        let null = std::fs::File::open("/dev/null").unwrap();
        let rights = [null.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        // Nobody but the kernel knows the numbers that they would get, so all of them are looked at.
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        for _ in 0..50 {
            match sendmsg::<()>(child, &iov, &rights, MsgFlags::empty(), None) {
                Ok(_) => assert_eq!(read_all(&channel)[0].bytes(), Some(&[7; 12][..])),
                Err(errno) => assert_eq!(errno, nix::errno::Errno::EPERM),
            }
        }
        // Other tests of this process open a few descriptors at the same time.
        assert!(open() < before + 50, "descriptors were taken in");
    }

    #[test]
    fn an_empty_record_is_not_the_end() {
        let channel = StatusChannel::new().unwrap();
        let child = channel.children_end().as_raw_fd();
        send(child, &[], MsgFlags::empty()).unwrap();
        let mut records = Vec::new();
        assert_eq!(channel.read(&mut records).unwrap(), More::No);
        assert_eq!(records[0].length(), 0);
    }

    #[test]
    fn a_channel_that_a_child_shut_is_told_from_a_quiet_one() {
        let channel = StatusChannel::new().unwrap();
        let child = channel.children_end().as_raw_fd();
        assert!(!channel.is_shut());
        shutdown(child, Shutdown::Read).unwrap();
        assert!(channel.is_shut());
        send(child, &[1; 12], MsgFlags::empty()).unwrap();
        shutdown(child, Shutdown::Write).unwrap();
        let mut records = Vec::new();
        assert_eq!(channel.read(&mut records).unwrap(), More::Never);
        assert_eq!(records.len(), 1, "what was said before counts");
    }
}
