//! Listeners of all five types, made as Postfix makes them (`inet_listen.c`, `unix_listen.c`,
//! `unix_dgram_listen.c`, `fifo_listen.c`): non-blocking, so that a child that loses the race for
//! a connection is not stuck in accept(2), and closed on exec.

use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    Backlog, MsgFlags, Shutdown, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, bind,
    getsockopt, listen, recv, setsockopt, shutdown, socket, sockopt,
};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::file::rename_aside;
use super::local::accept;
use super::{closer, detached, poll, process};

/// How long the master waits until an inherited listener listens again, which takes microseconds
/// where no child keeps it from that.
const LISTEN_TIME: Duration = Duration::from_millis(20);
/// How long the master waits for listeners to be shut down while it serves others.
pub const SHUTDOWN_TIME: Duration = Duration::from_millis(20);
/// The state of a TCP listener (Linux, include/net/tcp_states.h).
const TCP_LISTEN: u8 = 10;

/// The type of a listener with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathKind {
    Stream,
    Datagram,
    Fifo,
}

/// A listener of a service.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    /// The service manager has it, too: it must not be shut down.
    inherited: bool,
    /// A child has it, or had it, and may have changed it, see [`closer`].
    given: AtomicBool,
    /// Of one at a path, the file that the path named then.
    file: Option<FileId>,
}

impl Listener {
    /// One that the service manager has handed over, if it is `inherited`.
    pub(super) fn new(fd: OwnedFd, inherited: bool) -> Self {
        Self {
            fd,
            inherited,
            given: AtomicBool::new(false),
            file: None,
        }
    }

    /// Notes the file by which clients find it at a path.
    pub fn found_at(mut self, path: &Path) -> Self {
        self.file = FileId::of(path);
        self
    }

    /// Whether clients find it at a path, which was neither removed nor replaced.
    pub fn is_found_at(&self, path: &Path) -> bool {
        self.file.is_some() && self.file == FileId::of(path)
    }

    /// One that a former master has left to its children.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn left(fd: OwnedFd) -> io::Result<Self> {
        process::set_nonblocking(&fd)?;
        let listener = Self::new(fd, false);
        listener.give();
        Ok(listener)
    }

    /// One that a former program had.
    pub fn resume(fd: OwnedFd, inherited: bool, given: bool, file: Option<FileId>) -> Self {
        let given = AtomicBool::new(given);
        Self {
            fd,
            inherited,
            given,
            file,
        }
    }

    /// The file that its path named when it was made.
    pub fn file(&self) -> Option<FileId> {
        self.file
    }

    /// Another descriptor of the same listener.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            inherited: self.inherited,
            given: AtomicBool::new(self.is_given()),
            file: self.file,
        })
    }

    /// A child is about to get it.
    pub fn give(&self) {
        self.given.store(true, Ordering::Relaxed);
    }

    /// Whether children have it, or had it.
    pub fn is_given(&self) -> bool {
        self.given.load(Ordering::Relaxed)
    }

    /// Whether it listens. The system says so of a local one, too, that a child has shut down.
    pub fn is_listening(&self) -> bool {
        getsockopt(self, sockopt::AcceptConn).unwrap_or(false)
    }

    /// The connections that wait in a TCP listener's queue, if the system tells.
    pub fn waiting(&self) -> Option<u32> {
        // Of a connection, which a child can make of it, TCP_INFO waits for the socket's lock.
        if !self.is_listening() {
            return None;
        }
        // SAFETY: a structure of numbers, for which all bytes zero is a value.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the kernel writes no more than `length` bytes, which the structure has.
        let told = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        // Of a listener, this is the length of its queue (Linux, net/ipv4/tcp.c, tcp_get_info).
        (told == 0 && info.tcpi_state == TCP_LISTEN).then_some(info.tcpi_unacked)
    }

    /// Has a TCP listener listen again that a child has shut down. That can wait for the child, so
    /// another process does it. What becomes readable when it is done, see [`poll`].
    ///
    /// # Errors
    /// `EAGAIN`, `ENOMEM`: there is no room for another process; `EMFILE`: descriptors have run out. The
    /// listener is still shut down.
    pub fn listen_again(&self, backlog: u32) -> io::Result<OwnedFd> {
        let done = detached::start(Some(self.as_fd()), |_end| {
            let _ = start_listening(&self.fd, backlog);
        })?;
        poll::wait_until_readable(done.as_fd(), LISTEN_TIME);
        Ok(done.into())
    }

    /// Closes it without shutting it down: a child has done that, or it stays the children's.
    pub fn abandon(self) {
        closer::close(vec![self.fd]);
    }

    /// Whether the service manager has it, too.
    pub fn is_inherited(&self) -> bool {
        self.inherited
    }
}

/// Closes listeners of which children may have duplicates. They are shut down, so that clients are
/// refused and do not wait in their queues, unless they are the service manager's. That takes
/// microseconds, where no child keeps it from being done: then it is done when the child lets it, and
/// the master waits for `limit` at the most.
pub fn close(listeners: impl IntoIterator<Item = Listener>, limit: Duration) {
    let own = listeners.into_iter().filter(|listener| !listener.inherited);
    let (given, others): (Vec<_>, Vec<_>) = own.partition(Listener::is_given);
    let given: Vec<_> = given.into_iter().map(|listener| listener.fd).collect();
    if !given.is_empty() {
        closer::shut_down(given, limit);
    }
    // Sockets may have been sent to one that no child has, too.
    let queued: Vec<_> = others.into_iter().flat_map(|l| with_queue(l.fd)).collect();
    if !queued.is_empty() {
        closer::close(queued);
    }
}

/// Closes a listener that no child has; or returns it, with a connection, if a client is in the queue
/// of a local one.
fn with_queue(fd: OwnedFd) -> Vec<OwnedFd> {
    let _ = shutdown(fd.as_raw_fd(), Shutdown::Read);
    let queued = match getsockopt(&fd, sockopt::SockType) {
        Ok(SockType::Datagram) => {
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            recv(fd.as_raw_fd(), &mut [0], flags).map(|_| None)
        }
        Ok(_) => accept(&fd).and_then(|client| client.ok_or(Errno::EAGAIN).map(Some)),
        // A fifo.
        Err(_) => return Vec::new(),
    };
    // These errors are those of an empty queue.
    if matches!(queued, Err(Errno::EAGAIN | Errno::EINVAL)) {
        return Vec::new();
    }
    let connection = queued.ok().flatten();
    connection.into_iter().chain([fd]).collect()
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How a TCP listener is made.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    pub backlog: u32,
    /// The sizes of the sockets' buffers, in bytes, unless it is 0.
    pub window: u32,
    /// Also an address that no network interface has yet.
    pub missing: bool,
    /// Beside listeners of the same user at this port, with which it shares the clients if they have
    /// the same address. Otherwise the system refuses an address at which another socket listens.
    pub share: bool,
}

/// A TCP listener.
///
/// # Errors
/// The system's: the address is in use, is not this machine's, or needs privileges.
pub fn inet(address: SocketAddr, options: TcpOptions) -> io::Result<Listener> {
    let address_of_system = SockaddrStorage::from(address);
    let fd = new_socket(&address_of_system, SockType::Stream)?;
    if address.is_ipv6() {
        // The IPv4 addresses have listeners of their own.
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if options.missing {
        setsockopt(&fd, sockopt::IpFreebind, &true)?;
    }
    if options.share {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    bind(fd.as_raw_fd(), &address_of_system)?;
    if options.window > 0 {
        let window = options.window as usize;
        setsockopt(&fd, sockopt::SndBuf, &window)?;
        setsockopt(&fd, sockopt::RcvBuf, &window)?;
    }
    start_listening(&fd, options.backlog)?;
    // As under Postfix; a later listener of this master may be one for all addresses of the port.
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    Ok(Listener::new(fd, false))
}

/// Which local users may connect to a socket at a path.
#[derive(Clone, Copy, Debug)]
pub struct PathRights {
    pub mode: u32,
    /// The owners, if they are others than this process's.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// A listener at a path, which is removed first: what a master that was killed left behind must
/// not stand in the way. A FIFO takes no notice of the rights.
///
/// # Errors
/// The system's: the path is too long, its directory is missing or not ours to write to.
pub fn path(path: &Path, kind: PathKind, backlog: u32, rights: PathRights) -> io::Result<Listener> {
    let kind = match kind {
        PathKind::Stream => SockType::Stream,
        PathKind::Datagram => SockType::Datagram,
        PathKind::Fifo => return fifo(path),
    };
    let fd = bind_path(path, kind)?;
    let PathRights { mode, uid, gid } = rights;
    if uid.or(gid).is_some() {
        lchown(path, uid, gid)?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    if kind == SockType::Stream {
        start_listening(&fd, backlog)?;
    }
    Ok(Listener::new(fd, false).found_at(path))
}

/// A local socket at a path, in the place of what is there.
pub(super) fn bind_path(path: &Path, kind: SockType) -> io::Result<OwnedFd> {
    remove(path)?;
    let address = UnixAddr::new(path)?;
    let fd = new_socket(&address, kind)?;
    bind(fd.as_raw_fd(), &address)?;
    Ok(fd)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A socket of the family that an address has. No call of it waits.
pub(super) fn new_socket(address: &dyn SockaddrLike, kind: SockType) -> io::Result<OwnedFd> {
    let family = address.family().ok_or(Errno::EAFNOSUPPORT)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(family, kind, flags, None)?)
}

pub(super) fn start_listening(fd: &OwnedFd, backlog: u32) -> io::Result<()> {
    // The kernel cuts what is above net.core.somaxconn.
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let backlog = Backlog::new(backlog).unwrap_or(Backlog::MAXALLOWABLE);
    Ok(listen(fd, backlog)?)
}

fn fifo(path: &Path) -> io::Result<Listener> {
    remove(path)?;
    mkfifo(path, Mode::from_bits_truncate(0o622))?;
    // Open for writing too, so that it never looks as if the last writer had gone.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    // O_NOFOLLOW would say this in one word, but children would find it on their descriptor.
    let opened = file.metadata()?;
    if !opened.file_type().is_fifo() || FileId::of(path) != Some(FileId::from(&opened)) {
        return Err(io::Error::other(
            "another program has put another file in its place",
        ));
    }
    file.set_permissions(Permissions::from_mode(0o622))?;
    Ok(Listener::new(file.into(), false).found_at(path))
}

/// The identity of a file. While a listener is open, no other file has its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that a path names now, if there is one; links are not followed.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(Self::from(&metadata))
    }
}

impl From<(u64, u64)> for FileId {
    fn from((device, inode): (u64, u64)) -> Self {
        Self { device, inode }
    }
}

impl From<FileId> for (u64, u64) {
    fn from(id: FileId) -> Self {
        (id.device, id.inode)
    }
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A path that is about to get another listener, what was there put aside. Unless the change is
/// [kept](Aside::forget), dropping this puts it back.
#[derive(Debug)]
pub struct Aside {
    path: PathBuf,
    aside: PathBuf,
}

impl Aside {
    /// Puts the file at `path` aside, if there is one.
    ///
    /// # Errors
    /// The file cannot be renamed (`EACCES`, `EROFS`, `EBUSY`): it is where it was. A path without a file
    /// is no error.
    pub fn put(path: &Path) -> io::Result<Option<Self>> {
        match rename_aside(path) {
            Ok(aside) => Ok(Some(Self {
                path: path.to_owned(),
                aside,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The new name of a directory. It is never a listener's, and stays.
    pub fn directory(&self) -> Option<&Path> {
        let aside = Some(self.aside.as_path());
        aside.filter(|aside| is_directory(aside))
    }

    /// The change is to stay: removes the old listener's name.
    pub fn forget(mut self) {
        // A name that cannot be removed does no harm.
        let _ = fs::remove_file(std::mem::take(&mut self.aside));
    }
}

/// Whether there is a directory. A link is not followed.
pub fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.aside.as_os_str().is_empty() {
            // If it fails, the old configuration goes on with what it has.
            let _ = fs::rename(&self.aside, &self.path);
        }
    }
}

/// Whether the system may refuse a listener at an address because of another at `own`, which serves
/// `both` families or that of its address alone.
pub(super) fn overlap(own: SocketAddr, both: bool, wanted: SocketAddr) -> bool {
    // An IPv4 address may be written as one of IPv6.
    let ip = own.ip().to_canonical();
    let same_family = ip.is_ipv6() == wanted.is_ipv6() || both;
    let any = ip.is_unspecified() || wanted.ip().is_unspecified();
    own.port() == wanted.port() && same_family && (any || ip == wanted.ip())
}

#[cfg(test)]
mod tests;
