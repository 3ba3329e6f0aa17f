//! How many clients wait for each unix listener. No call on the listener tells; sock_diag(7) does,
//! and is asked for all at once, because to find a single one it would look through all as well.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use nix::sys::stat::{SFlag, fstat};

use super::sock_diag::{Dump, LISTENING, attribute, u32_at};

/// Linux, `linux/unix_diag.h`.
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;

/// What comes before the attributes of a socket.
const SOCKET: usize = 16;

/// The lengths of all queues at one moment, by the listeners' inodes, in ascending order.
#[derive(Debug, Default)]
pub struct Queues(Vec<(u32, u32)>);

impl Queues {
    /// Asks the kernel.
    ///
    /// # Errors
    /// The system's: it was built without this, or does not let us ask.
    pub fn read() -> io::Result<Self> {
        let mut queues = Self::default();
        Dump::open()?.ask(&question(), |body| queues.take(body))?;
        queues.0.sort_unstable();
        Ok(queues)
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

    /// Takes a listener's inode and the length of its queue, from a `unix_diag_msg`.
    fn take(&mut self, body: &[u8]) -> io::Result<()> {
        let inode = u32_at(body, 4)?;
        if let Some(length) = attribute(body, SOCKET, UNIX_DIAG_RQLEN)? {
            self.0.push((inode, u32_at(length, 0)?));
        }
        Ok(())
    }
}

/// A `unix_diag_req`: all listeners, and their queues.
fn question() -> Vec<u8> {
    [
        &[AddressFamily::Unix as u8, 0, 0, 0],
        &LISTENING.to_ne_bytes()[..],
        // No inode: all.
        &[0; 4],
        &UDIAG_SHOW_RQLEN.to_ne_bytes(),
        // And no cookie, which would belong to it.
        &[0; 8],
    ]
    .concat()
}

/// Bytes that were sent through a datagram socket and that no process has received yet; a little more
/// than was sent, as the kernel counts its own.
///
/// # Errors
/// The system's.
pub fn unread_bytes(socket: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the call writes one int.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    Errno::result(result)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::listen::{PathKind, PathRights, path};
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn those_who_wait_for_a_unix_listener_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let rights = PathRights {
            mode: 0o600,
            uid: None,
            gid: None,
        };
        let listen = |name: &str, kind| {
            let at = directory.path().join(name);
            path(&at, kind, 10, rights).unwrap()
        };
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
        // A file may have the same number as a socket.
        let fifo = &others[1];
        let namesake = fstat(fifo).unwrap().st_ino as u32;
        assert_eq!(Queues(vec![(namesake, 1)]).waiting(fifo), None);
    }
}
