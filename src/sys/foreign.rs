//! TCP listeners that other processes have: sock_diag(7) tells which there are, proc(5) which
//! processes have them. One that only children of a former master have can be taken over.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockProtocol, getsockopt, sockopt};
use nix::sys::stat::fstat;
use nix::{getsockopt_impl, sockopt_impl};

use super::child::open_pidfd;
use super::listen::{Listener, overlap};
use super::sock_diag::{Dump, LISTENING, attribute, chunk, u32_at};
use super::{closer, process};
use crate::protocol;

/// Linux, `linux/inet_diag.h`.
const INET_DIAG_SKV6ONLY: u16 = 11;
/// What comes before the attributes of a socket.
const SOCKET: usize = 72;

sockopt_impl!(
    Domain,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_DOMAIN,
    libc::c_int
);

/// A TCP listener of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub address: SocketAddr,
    pub inode: u32,
    /// The user ID of the process that made it.
    pub uid: u32,
    /// The network interface that it is bound to, or 0.
    device: u32,
    /// Whether it has IPv4 clients, too.
    both: bool,
}

impl Found {
    /// Whether clients of the address are divided between it and another listener there. The kernel
    /// gives them to the listener with the most specific address or interface.
    fn is_at(&self, address: SocketAddr) -> bool {
        self.address == address && self.device == 0
    }

    /// Whether the system may refuse the address because of it.
    fn overlaps(&self, address: SocketAddr) -> bool {
        overlap(self.address, self.both, address)
    }
}

/// The TCP listeners at one moment.
#[derive(Debug)]
pub struct Listening(Vec<Found>);

impl Listening {
    /// Asks the kernel.
    ///
    /// # Errors
    /// The system's: it was built without this, or does not let us ask.
    pub fn read() -> io::Result<Self> {
        let dump = Dump::open()?;
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            dump.ask(&question(family), |body| {
                found.extend(listener(body)?);
                Ok(())
            })?;
        }
        Ok(Self(found))
    }

    /// The listeners with the same address.
    pub fn at(&self, address: SocketAddr) -> impl Iterator<Item = Found> {
        self.0.iter().copied().filter(move |l| l.is_at(address))
    }

    /// The listeners with an address of which this one is a part, or which is a part of this one.
    pub fn overlapping(&self, address: SocketAddr) -> impl Iterator<Item = Found> {
        self.0.iter().copied().filter(move |l| l.overlaps(address))
    }
}

/// An `inet_diag_req_v2`: all listeners of a family.
fn question(family: AddressFamily) -> Vec<u8> {
    [
        &[family as u8, SockProtocol::Tcp as u8, 0, 0],
        &LISTENING.to_ne_bytes()[..],
        // No addresses and no cookie: all.
        &[0; 48],
    ]
    .concat()
}

/// A listener, from an `inet_diag_msg`.
fn listener(body: &[u8]) -> io::Result<Option<Found>> {
    let port = u16::from_be_bytes(chunk(body, 4)?);
    let ip: IpAddr = match i32::from(chunk::<1>(body, 0)?[0]) {
        libc::AF_INET => Ipv4Addr::from(chunk::<4>(body, 8)?).into(),
        libc::AF_INET6 => Ipv6Addr::from(chunk::<16>(body, 8)?).into(),
        _ => return Ok(None),
    };
    let v6only = attribute(body, SOCKET, INET_DIAG_SKV6ONLY)?;
    let is_all = ip == Ipv6Addr::UNSPECIFIED;
    Ok(Some(Found {
        address: (ip, port).into(),
        device: u32_at(body, 40)?,
        uid: u32_at(body, 64)?,
        inode: u32_at(body, 68)?,
        both: is_all && v6only.is_some_and(|v6only| v6only == [0]),
    }))
}

/// A process that has a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    pub name: String,
    fd: RawFd,
}

/// The processes that have listeners.
#[derive(Debug, Default)]
pub struct Holders(HashMap<u32, Vec<Holder>>);

impl Holders {
    /// Looks through the descriptors of all processes, once for all these listeners.
    pub fn read(listening: &Listening) -> Self {
        let none = |found: &Found| (found.inode, Vec::new());
        let mut holders = Self(listening.0.iter().map(none).collect());
        let Ok(processes) = fs::read_dir("/proc") else {
            return holders;
        };
        let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        let mut pids: Vec<i32> = processes.flatten().filter_map(pid).collect();
        // The parent comes before its children, mostly.
        pids.sort_unstable();
        for pid in pids {
            holders.look_at(pid);
        }
        holders
    }

    /// A process that has ended, or may not be looked at, has nothing.
    fn look_at(&mut self, pid: i32) {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return;
        };
        for entry in descriptors.flatten() {
            let inode = fs::read_link(entry.path()).ok().and_then(|link| {
                let inode = link.to_str()?.strip_prefix("socket:[")?;
                inode.strip_suffix(']')?.parse().ok()
            });
            let fd = entry.file_name().to_str().and_then(|fd| fd.parse().ok());
            let holders = inode.and_then(|inode: u32| self.0.get_mut(&inode));
            let (Some(holders), Some(fd)) = (holders, fd) else {
                continue;
            };
            if holders.iter().all(|holder| holder.pid != pid) {
                let name = process::name(pid).unwrap_or_default();
                holders.push(Holder { pid, name, fd });
            }
        }
    }

    pub fn of(&self, inode: u32) -> &[Holder] {
        self.0.get(&inode).map_or(&[], Vec::as_slice)
    }
}

impl Holder {
    /// The listener, if a former master has left it to this process: its flow pipe is in its place, and
    /// its status channel has no other end any more. What else was taken on the way is added to
    /// `taken`, to be closed by [`close`].
    ///
    /// # Errors
    /// The system's: it does not let us look.
    pub fn take_over(&self, inode: u32, taken: &mut Vec<OwnedFd>) -> io::Result<Option<Listener>> {
        match self.take(inode, taken) {
            Ok(true) => {}
            // The process has ended, or has no such descriptor.
            Ok(false) | Err(Errno::ESRCH | Errno::EBADF) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        taken.pop().map(Listener::left).transpose()
    }

    /// Whether the last one taken is such a listener.
    fn take(&self, inode: u32, taken: &mut Vec<OwnedFd>) -> nix::Result<bool> {
        let process = Process::open(self.pid)?;
        for fd in [
            protocol::FLOW_READ,
            protocol::FLOW_WRITE,
            protocol::STATUS,
            self.fd,
        ] {
            taken.push(process.take(fd)?);
        }
        Ok(match taken.as_slice() {
            [.., read, write, status, listener] => {
                let flow = pipe(read);
                flow.is_some()
                    && flow == pipe(write)
                    && is_disconnected(status)
                    && listens_as(listener, inode)
            }
            _ => false,
        })
    }
}

/// Closes what was taken of other processes, which may have given it to files whose close waits.
pub fn close(taken: Vec<OwnedFd>) {
    if !taken.is_empty() {
        closer::close(taken);
    }
}

/// A process, whatever becomes of its number.
struct Process(OwnedFd);

impl Process {
    fn open(pid: i32) -> nix::Result<Self> {
        open_pidfd(pid).map(Self)
    }

    /// Another descriptor of what the process has there, which is closed on exec.
    fn take(&self, fd: RawFd) -> nix::Result<OwnedFd> {
        let pidfd = self.0.as_raw_fd();
        // SAFETY: the call takes any numbers. What it returns is new, and owned here only.
        let taken = unsafe {
            let taken = Errno::result(libc::syscall(libc::SYS_pidfd_getfd, pidfd, fd, 0))?;
            OwnedFd::from_raw_fd(taken as RawFd)
        };
        Ok(taken)
    }
}

// These descriptors may be of any file, and most calls can wait for some file. Those that come first
// here do not.

/// The inode of a pipe.
fn pipe(fd: &OwnedFd) -> Option<u64> {
    fcntl(fd, FcntlArg::F_GETPIPE_SZ).ok()?;
    Some(fstat(fd).ok()?.st_ino)
}

/// Whether it is a pipe or a local socket without another end.
fn is_disconnected(fd: &OwnedFd) -> bool {
    let is_local = || getsockopt(fd, Domain) == Ok(libc::AF_UNIX);
    if fcntl(fd, FcntlArg::F_GETPIPE_SZ).is_err() && !is_local() {
        return false;
    }
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    let ready = poll(&mut fds, PollTimeout::ZERO);
    let end = PollFlags::POLLHUP | PollFlags::POLLERR;
    ready.is_ok() && fds[0].revents().is_some_and(|found| found.intersects(end))
}

fn listens_as(fd: &OwnedFd, inode: u32) -> bool {
    getsockopt(fd, sockopt::AcceptConn) == Ok(true)
        && fstat(fd).is_ok_and(|facts| facts.st_ino == u64::from(inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    fn found(address: &str, both: bool) -> Found {
        Found {
            address: address.parse().unwrap(),
            inode: 1,
            uid: 0,
            device: 0,
            both,
        }
    }

    #[test]
    fn an_address_is_the_same_only_if_clients_are_divided() {
        let at = |found: Found, address: &str| found.is_at(address.parse().unwrap());
        let one = found("127.0.0.1:25", false);
        assert!(at(one, "127.0.0.1:25"));
        for other in ["127.0.0.1:26", "127.0.0.2:25", "0.0.0.0:25", "[::1]:25"] {
            assert!(!at(one, other), "{other}");
        }
        assert!(!at(found("0.0.0.0:25", false), "127.0.0.1:25"));
        assert!(!at(found("[::]:25", true), "0.0.0.0:25"));
        assert!(!at(Found { device: 2, ..one }, "127.0.0.1:25"));
    }

    #[test]
    fn addresses_overlap_with_those_that_the_system_refuses_because_of_them() {
        let overlaps = |found: Found, address: &str| found.overlaps(address.parse().unwrap());
        for (one, other, expected) in [
            (found("127.0.0.1:25", false), "127.0.0.1:25", true),
            (found("127.0.0.1:25", false), "0.0.0.0:25", true),
            (found("0.0.0.0:25", false), "127.0.0.1:25", true),
            (found("0.0.0.0:25", false), "127.0.0.1:26", false),
            (found("127.0.0.2:25", false), "127.0.0.1:25", false),
            (found("[::]:25", true), "127.0.0.1:25", true),
            (found("[::]:25", false), "127.0.0.1:25", false),
            (found("[::ffff:127.0.0.1]:25", false), "127.0.0.1:25", true),
            (found("[::1]:25", false), "[::]:25", true),
        ] {
            assert_eq!(overlaps(one, other), expected, "{one:?} {other}");
        }
    }

    #[test]
    fn listeners_are_found_with_the_processes_that_have_them() {
        let mut listeners = vec![TcpListener::bind("127.0.0.1:0").unwrap()];
        listeners.extend(TcpListener::bind("[::1]:0").ok());
        let listening = Listening::read().unwrap();
        let holders = Holders::read(&listening);
        for listener in listeners {
            let address = listener.local_addr().unwrap();
            let found: Vec<_> = listening.at(address).collect();
            assert_eq!(found.len(), 1, "{found:?}");
            let inode = fstat(&listener).unwrap().st_ino;
            assert_eq!(u64::from(found[0].inode), inode);
            let own = std::process::id() as i32;
            let holder = holders.of(found[0].inode);
            assert!(
                holder
                    .iter()
                    .any(|h| h.pid == own && h.fd == listener.as_raw_fd())
            );
        }
        assert_eq!(holders.of(0), []);
    }

    #[test]
    fn a_channel_is_disconnected_when_its_other_end_is_closed() {
        let (one, other) = UnixStream::pair().unwrap();
        (&other).write_all(b"x").unwrap();
        let one = OwnedFd::from(one);
        assert!(!is_disconnected(&one));
        drop(other);
        assert!(is_disconnected(&one));
        let (read, write) = nix::unistd::pipe().unwrap();
        assert!(!is_disconnected(&write));
        drop(read);
        assert!(is_disconnected(&write));
        assert!(pipe(&write).is_some());
        assert_eq!(pipe(&one), None);
        // A file that always has an error, and a socket that is not local.
        let file = OwnedFd::from(fs::File::open("/proc/self/mounts").unwrap());
        let tcp = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        for other in [file, tcp] {
            assert!(!is_disconnected(&other));
        }
    }
}
