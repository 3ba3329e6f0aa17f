//! Listeners of all five types, made as Postfix makes them (`inet_listen.c`, `unix_listen.c`,
//! `unix_dgram_listen.c`, `fifo_listen.c`): non-blocking, so that a child that loses the race for
//! a connection is not stuck in accept(2), and closed on exec.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, listen,
    setsockopt, shutdown, socket, sockopt,
};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// The state of a TCP listener (Linux, include/net/tcp_states.h).
const TCP_LISTEN: u8 = 10;

/// The type of a listener with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    Stream,
    Datagram,
    Fifo,
}

/// A TCP listener. A `window` other than 0 sets the sockets' buffer sizes, in bytes.
///
/// # Errors
/// The system's: the address is in use, is not this machine's, or needs privileges.
pub fn inet(address: SocketAddr, backlog: u32, window: u32) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = new_socket(family, SockType::Stream)?;
    if address.is_ipv6() {
        // The IPv4 addresses have listeners of their own.
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    if window > 0 {
        let window = window as usize;
        setsockopt(&fd, sockopt::SndBuf, &window)?;
        setsockopt(&fd, sockopt::RcvBuf, &window)?;
    }
    start_listening(&fd, backlog)?;
    Ok(fd)
}

/// A listener at a path, which is removed first: what a master that was killed left behind must
/// not stand in the way.
///
/// # Errors
/// The system's: the path is too long, its directory is missing or not ours to write to.
pub fn path(path: &Path, kind: PathKind, backlog: u32) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match kind {
        PathKind::Stream => {
            let fd = unix(path, SockType::Stream)?;
            start_listening(&fd, backlog)?;
            Ok(fd)
        }
        PathKind::Datagram => unix(path, SockType::Datagram),
        PathKind::Fifo => fifo(path),
    }
}

fn new_socket(family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(family, kind, flags, None)?)
}

fn start_listening(fd: &OwnedFd, backlog: u32) -> io::Result<()> {
    // The kernel cuts what is above net.core.somaxconn.
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let backlog = Backlog::new(backlog).unwrap_or(Backlog::MAXALLOWABLE);
    Ok(listen(fd, backlog)?)
}

fn unix(path: &Path, kind: SockType) -> io::Result<OwnedFd> {
    let fd = new_socket(AddressFamily::Unix, kind)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    // The directory decides who may connect.
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(fd)
}

fn fifo(path: &Path) -> io::Result<OwnedFd> {
    mkfifo(path, Mode::from_bits_truncate(0o622))?;
    // Open for writing too, so that it never looks as if the last writer had gone.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    // O_NOFOLLOW would say this in one word, but children would find it on their descriptor.
    let opened = file.metadata()?;
    let name = Name {
        device: opened.dev(),
        inode: opened.ino(),
    };
    if !opened.file_type().is_fifo() || Name::of(path) != Some(name) {
        return Err(io::Error::other("somebody put another file in its place"));
    }
    file.set_permissions(Permissions::from_mode(0o622))?;
    drain(&mut file)?;
    Ok(file.into())
}

/// Skips what was written before we came.
fn drain(file: &mut File) -> io::Result<()> {
    let mut junk = [0; 4096];
    // A writer that never stops must not keep the master.
    for _ in 0..64 {
        match file.read(&mut junk) {
            Ok(1..) => {}
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Which file it is that a path names, so that another one in its place is known for what it is.
/// The listener keeps it from going away, so that no other file is it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    device: u64,
    inode: u64,
}

impl Name {
    /// What the path names now, if anything; links are not followed.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// How many connections wait in a TCP listener's queue, if the system tells.
pub fn waiting(listener: &OwnedFd) -> Option<u32> {
    // SAFETY: a plain C struct, for which all bytes zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes, which the struct has.
    let got = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    // Of a listener, this is the length of its queue (Linux, net/ipv4/tcp.c, tcp_get_info).
    (got == 0 && info.tcpi_state == TCP_LISTEN).then_some(info.tcpi_unacked)
}

/// Stops listening, also for the children who have the listener open.
pub fn shut_down(listener: &OwnedFd) {
    // A fifo is no socket, and has nobody waiting.
    let _ = shutdown(listener.as_raw_fd(), Shutdown::Read);
}

/// A path that is about to get another listener, its old one put aside. Unless the change is
/// [kept](Aside::forget), dropping this puts the old one back.
#[derive(Debug)]
pub struct Aside {
    path: PathBuf,
    aside: PathBuf,
}

impl Aside {
    /// Puts what is at `path` aside, unless somebody has removed it already. A directory, which
    /// could hold anything, is not a listener's.
    ///
    /// # Errors
    /// The system's.
    pub fn put(path: &Path) -> io::Result<Option<Self>> {
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        let mut name = path.as_os_str().to_owned();
        // No service's own name, unless somebody means to.
        name.push(format!(".replaced-by-{}", std::process::id()));
        let aside = PathBuf::from(name);
        let path = path.to_owned();
        match fs::rename(&path, &aside) {
            Ok(()) => Ok(Some(Self { path, aside })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The change is to stay: removes the old listener's name.
    pub fn forget(mut self) {
        // A name that cannot be removed harms nobody.
        let _ = fs::remove_file(std::mem::take(&mut self.aside));
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.aside.as_os_str().is_empty() {
            // There is nobody left to tell: the old configuration goes on with what it has.
            let _ = fs::rename(&self.aside, &self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    use nix::sys::socket::getsockopt;

    fn flags(fd: &OwnedFd) -> (OFlag, FdFlag) {
        let status = fcntl(fd, FcntlArg::F_GETFL).unwrap();
        let own = fcntl(fd, FcntlArg::F_GETFD).unwrap();
        (
            OFlag::from_bits_truncate(status),
            FdFlag::from_bits_truncate(own),
        )
    }

    fn assert_like_postfix(fd: &OwnedFd) {
        let (status, own) = flags(fd);
        assert!(status.contains(OFlag::O_NONBLOCK | OFlag::O_RDWR));
        assert!(own.contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn two_masters_may_share_a_port_but_not_with_a_stranger() {
        let first = inet("127.0.0.1:0".parse().unwrap(), 10, 0).unwrap();
        assert_like_postfix(&first);
        assert!(getsockopt(&first, sockopt::ReusePort).unwrap());
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = inet(stranger.local_addr().unwrap(), 10, 0);
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn connections_that_wait_are_counted() {
        let listener = inet("127.0.0.1:0".parse().unwrap(), 10, 0).unwrap();
        assert_eq!(waiting(&listener), Some(0));
        let listener = std::net::TcpListener::from(listener);
        let address = listener.local_addr().unwrap();
        let clients = [(); 3].map(|()| std::net::TcpStream::connect(address).unwrap());
        assert_eq!(waiting(&listener.into()), Some(3));
        drop(clients);
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(waiting(&ours.into()), None);
    }

    #[test]
    fn what_a_killed_master_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("service");
        for kind in [PathKind::Stream, PathKind::Datagram, PathKind::Fifo] {
            for _ in 0..2 {
                let fd = path(&at, kind, 10).unwrap();
                assert_like_postfix(&fd);
            }
            let mode = fs::metadata(&at).unwrap().permissions().mode() & 0o777;
            let fifo = kind == PathKind::Fifo;
            assert_eq!(mode, if fifo { 0o622 } else { 0o666 });
        }
    }

    #[test]
    fn a_replaced_listener_comes_back_unless_the_change_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("service");
        let _old = path(&at, PathKind::Stream, 10).unwrap();
        let old = fs::metadata(&at).unwrap().ino();
        let aside = Aside::put(&at).unwrap().unwrap();
        let _new = path(&at, PathKind::Fifo, 10).unwrap();
        drop(aside);
        assert_eq!(fs::metadata(&at).unwrap().ino(), old);
        let aside = Aside::put(&at).unwrap().unwrap();
        let _new = path(&at, PathKind::Fifo, 10).unwrap();
        aside.forget();
        assert_ne!(fs::metadata(&at).unwrap().ino(), old);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(Aside::put(&dir.path().join("gone")).unwrap().is_none());
    }

    #[test]
    fn a_directory_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("service");
        fs::create_dir(&at).unwrap();
        let is_directory = Some(io::ErrorKind::IsADirectory);
        assert_eq!(Aside::put(&at).err().map(|e| e.kind()), is_directory);
        let listener = path(&at, PathKind::Stream, 10);
        assert_eq!(listener.err().map(|e| e.kind()), is_directory);
        assert!(at.is_dir());
    }

    #[test]
    fn another_file_in_the_place_of_a_listener_is_known_for_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("service");
        assert_eq!(Name::of(&at), None);
        let _listener = path(&at, PathKind::Stream, 10).unwrap();
        let name = Name::of(&at);
        assert!(name.is_some());
        assert_eq!(Name::of(&at), name);
        fs::remove_file(&at).unwrap();
        std::os::unix::fs::symlink("elsewhere", &at).unwrap();
        assert_ne!(Name::of(&at), name);
    }
}
