//! Listeners that a service manager has opened and hands over (sd_listen_fds(3)): so the master
//! starts when the first client comes, or serves a port below 1024 without being root.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{SockType, SockaddrStorage, getsockname, getsockopt, sockopt};

use super::listen::{FileId, Listener, PathKind, overlap};
use super::process::{close_range, duplicate, set_nonblocking};

/// The first of them, by that protocol.
const FIRST: RawFd = 3;
/// More than anybody has, and few enough to look through.
const COUNT_MAX: RawFd = 1024;

/// The descriptors, from 3 on, that process `pid` was handed.
pub fn handed(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Vec<RawFd> {
    let number = |name: &str| variable(name)?.to_str()?.parse::<u32>().ok();
    let is_for_us = number("LISTEN_PID") == Some(pid);
    let count = number("LISTEN_FDS").filter(|_| is_for_us).unwrap_or(0);
    let count = RawFd::try_from(count).unwrap_or(COUNT_MAX).min(COUNT_MAX);
    (FIRST..FIRST + count).collect()
}

/// Moves these descriptors to numbers from `to` on, and closes all others above 2: what a parent
/// leaked must not reach the children.
///
/// # Errors
/// The system's: there are fewer than was said, or their new numbers are beyond the limit.
pub fn take(fds: &[RawFd], to: RawFd) -> io::Result<Vec<OwnedFd>> {
    let taken: Vec<OwnedFd> = fds
        .iter()
        .map(|fd| duplicate(*fd, to))
        .collect::<io::Result<_>>()?;
    let mut first = FIRST;
    // They have the lowest numbers that were free, so they are in order.
    for kept in taken.iter().map(AsRawFd::as_raw_fd) {
        // SAFETY: `start` calls this before the process owns any descriptor; what is kept is outside
        // the range.
        unsafe { close_range(first, kept - 1) };
        first = kept + 1;
    }
    // SAFETY: as above.
    unsafe { close_range(first, RawFd::MAX) };
    Ok(taken)
}

/// The address of a socket that was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// One for IPv6's wildcard may serve both families.
    Inet {
        address: SocketAddr,
        both: bool,
    },
    Path(PathBuf, PathKind),
}

/// A listener that a service manager has handed over. The manager has it, too, and goes on to use
/// it when the master has ended: it is never shut down, and its path is never removed.
#[derive(Debug)]
pub struct InheritedListener {
    address: Address,
    listener: Listener,
}

impl InheritedListener {
    /// Looks at a descriptor, and makes it non-blocking.
    ///
    /// # Errors
    /// It is no listener with an address that a service can have.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let address = address(&fd)?;
        set_nonblocking(&fd)?;
        let listener = Listener::new(fd, true);
        Ok(Self { address, listener })
    }

    /// The descriptor.
    pub fn descriptor(&self) -> &Listener {
        &self.listener
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether clients of this address are its own. What `ListenStream=PORT` of systemd makes
    /// serves both families.
    pub fn serves(&self, wanted: SocketAddr) -> bool {
        let Address::Inet { address, both } = self.address else {
            return false;
        };
        let is_other_family = || wanted == (Ipv4Addr::UNSPECIFIED, address.port()).into();
        wanted == address || both && is_other_family()
    }

    /// Whether the system refuses another listener at this address because of it.
    pub fn overlaps(&self, wanted: SocketAddr) -> bool {
        let Address::Inet { address, both } = self.address else {
            return false;
        };
        overlap(address, both, wanted)
    }

    /// Whether it is the listener at a path, which may lead there through links.
    pub fn is_at(&self, path: &Path) -> bool {
        let Address::Path(own, _) = &self.address else {
            return false;
        };
        let id = |path: &Path| fs::metadata(path).ok().map(|file| FileId::from(&file));
        own == path || id(own).is_some_and(|own| id(path) == Some(own))
    }

    /// Another descriptor of the listener.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub fn listener(&self) -> io::Result<Listener> {
        self.listener.try_clone()
    }
}

fn address(fd: &OwnedFd) -> io::Result<Address> {
    let unfit = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let kind = match getsockopt(fd, sockopt::SockType)? {
        SockType::Stream if getsockopt(fd, sockopt::AcceptConn)? => PathKind::Stream,
        SockType::Datagram => PathKind::Datagram,
        _ => return unfit("it does not listen"),
    };
    let name: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    if let Some(local) = name.as_unix_addr() {
        return match local.path() {
            Some(path) => Ok(Address::Path(path.to_owned(), kind)),
            None => unfit("it has no path"),
        };
    }
    match TcpListener::from(fd.try_clone()?).local_addr() {
        Ok(address) if kind == PathKind::Stream => {
            // An IPv4 address may be written as one of IPv6, and a scope may be added.
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let wildcard = address.ip() == Ipv6Addr::UNSPECIFIED;
            let both = wildcard && !getsockopt(fd, sockopt::Ipv6V6Only)?;
            Ok(Address::Inet { address, both })
        }
        _ => unfit("neither TCP nor local"),
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet { address, .. } => address.fmt(f),
            Self::Path(path, _) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::in_own_process;
    use nix::fcntl::{FcntlArg, fcntl};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    fn handed_to(pairs: &[(&str, &str)]) -> Vec<RawFd> {
        let variable = |name: &str| {
            let (_, value) = pairs.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(value))
        };
        handed(variable, 7)
    }

    #[test]
    fn descriptors_are_for_the_process_that_is_named() {
        let none: [RawFd; 0] = [];
        let two = [("LISTEN_PID", "7"), ("LISTEN_FDS", "2")];
        assert_eq!(handed_to(&two), [3, 4]);
        assert_eq!(handed_to(&[("LISTEN_PID", "8"), two[1]]), none);
        assert_eq!(handed_to(&two[1..]), none);
        assert_eq!(handed_to(&[two[0], ("LISTEN_FDS", "-1")]), none);
        assert_eq!(handed_to(&[]), none);
    }

    #[test]
    fn listeners_tell_their_address() {
        let dir = tempfile::tempdir().unwrap();
        let (stream, datagram) = (dir.path().join("stream"), dir.path().join("datagram"));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let inherited = InheritedListener::new(tcp.into()).unwrap();
        assert!(inherited.serves(address));
        assert!(!inherited.serves("127.0.0.1:1".parse().unwrap()));
        for socket in [
            OwnedFd::from(UnixListener::bind(&stream).unwrap()),
            OwnedFd::from(UnixDatagram::bind(&datagram).unwrap()),
        ] {
            let inherited = InheritedListener::new(socket).unwrap();
            let Address::Path(path, kind) = inherited.address().clone() else {
                panic!("{:?}", inherited.address());
            };
            assert!(inherited.is_at(&path));
            assert_eq!(kind == PathKind::Stream, path == stream);
        }
    }

    #[test]
    fn a_path_may_lead_to_a_listener_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("socket"), dir.path().join("link"));
        let socket = UnixListener::bind(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let inherited = InheritedListener::new(socket.into()).unwrap();
        assert!(inherited.is_at(&link));
        assert!(!inherited.is_at(&dir.path().join("other")));
    }

    #[test]
    fn a_listener_of_the_ipv6_wildcard_serves_both_families() {
        let Ok(socket) = TcpListener::bind("[::]:0") else {
            return;
        };
        let port = socket.local_addr().unwrap().port();
        let inherited = InheritedListener::new(socket.into()).unwrap();
        assert!(inherited.serves((Ipv4Addr::UNSPECIFIED, port).into()));
        assert!(!inherited.serves((Ipv4Addr::LOCALHOST, port).into()));
    }

    #[test]
    fn an_ipv4_address_that_is_written_as_one_of_ipv6_is_the_same() {
        let Ok(socket) = TcpListener::bind("[::ffff:127.0.0.1]:0") else {
            return;
        };
        let port = socket.local_addr().unwrap().port();
        let inherited = InheritedListener::new(socket.into()).unwrap();
        assert!(inherited.serves((Ipv4Addr::LOCALHOST, port).into()));
        assert_eq!(inherited.address().to_string(), format!("127.0.0.1:{port}"));
    }

    #[test]
    fn an_address_overlaps_with_its_parts() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let inherited = InheritedListener::new(socket.into()).unwrap();
        for (address, expected) in [
            ("127.0.0.1", true),
            ("0.0.0.0", true),
            ("127.0.0.2", false),
            ("::", false),
        ] {
            let ip: std::net::IpAddr = address.parse().unwrap();
            assert_eq!(inherited.overlaps((ip, port).into()), expected, "{address}");
        }
        assert!(!inherited.overlaps((Ipv4Addr::LOCALHOST, port ^ 1).into()));
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let error = InheritedListener::new(client.into()).unwrap_err();
        assert_eq!(error.to_string(), "it does not listen");
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(InheritedListener::new(file.into()).is_err());
    }

    #[test]
    fn what_was_handed_over_is_moved_and_all_else_is_closed() {
        if in_own_process(
            "sys::inherited::tests::what_was_handed_over_is_moved_and_all_else_is_closed",
        ) {
            // SAFETY: this process has one test, which owns nothing yet.
            unsafe { close_range(3, RawFd::MAX) };
            let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
            let handed = [null(), null()].map(std::os::fd::IntoRawFd::into_raw_fd);
            assert_eq!(handed, [3, 4]);
            let leak = null();
            // One above the place where they go, and one that is in their way.
            let far = fcntl(&leak, FcntlArg::F_DUPFD(500)).unwrap();
            let near = fcntl(&leak, FcntlArg::F_DUPFD(101)).unwrap();
            std::mem::forget(leak);
            let taken = take(&handed, 100).unwrap();
            let numbers: Vec<_> = taken.iter().map(AsRawFd::as_raw_fd).collect();
            assert_eq!(numbers, [100, 102]);
            let is_open = |fd: RawFd| std::fs::exists(format!("/proc/self/fd/{fd}")).unwrap();
            let open: Vec<_> = [3, 4, 5, 100, near, 102, far].map(is_open).to_vec();
            assert_eq!(open, [false, false, false, true, false, true, false]);
        }
    }
}
