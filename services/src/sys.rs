//! System calls that return descriptors as numbers, and what a new process does before its program:
//! the library's only unsafe code.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use master::protocol::pool;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockFlag, accept4, recvmsg, setsockopt, sockopt,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getpid, getppid};

/// Takes ownership of a descriptor that this process inherited, and sets close-on-exec.
///
/// # Errors
/// The descriptor is not open, or was not inherited.
pub(crate) fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with these commands has no effect on a number that is not open.
    let set = unsafe {
        let flags = libc::fcntl(number, libc::F_GETFD);
        // An inherited descriptor does not have close-on-exec set. Descriptors that the process
        // opens have it: the standard library and this library set it.
        if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC)
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and has no owner: every owner in this process would have set
    // close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A process that ends with the thread that starts it, and that takes all signals.
pub(crate) fn end_with_parent(command: &mut Command) {
    let parent = getpid();
    let prepare = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            // It has ended before that was set.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(SigSet::empty().thread_set_mask()?)
    };
    // SAFETY: after fork(2) the closure makes four system calls, and takes neither locks nor memory.
    unsafe { command.pre_exec(prepare) };
}

/// Starts a copy of this process that runs `act`, with `keep` as its only descriptor, and ends. `act`
/// makes system calls, and takes neither locks nor memory.
///
/// # Errors
/// The system's.
pub(crate) fn fork(keep: OwnedFd, act: fn(OwnedFd)) -> io::Result<()> {
    // SAFETY: the copy makes system calls only, here and, as its one caller's function does, in `act`.
    if let ForkResult::Parent { .. } = unsafe { nix::unistd::fork() }? {
        return Ok(());
    }
    // SAFETY: what owns the other descriptors is never dropped, nor used again: the copy ends below.
    // Descriptor 0 has no other owner then.
    let kept = unsafe {
        libc::dup2(keep.as_raw_fd(), 0);
        libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
        OwnedFd::from_raw_fd(0)
    };
    std::mem::forget(keep);
    act(kept);
    // SAFETY: it ends the copy without running what the first process has registered.
    unsafe { libc::_exit(0) }
}

/// Forks a child of this process's parent, by a process between the two. Whether this is the child.
///
/// # Errors
/// The system's, or this process has threads.
pub(crate) fn fork_sibling() -> io::Result<bool> {
    require_one_thread()?;
    // SAFETY: this process has no other thread, which could hold a lock at the fork.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(false),
            _ => Err(io::Error::other("the process between has not forked")),
        },
        // SAFETY: as above: the process between is a copy with one thread.
        ForkResult::Child => match unsafe { nix::unistd::fork() } {
            Ok(ForkResult::Child) => Ok(true),
            Ok(ForkResult::Parent { .. }) => leave(),
            // SAFETY: it ends the copy without running what the first process has registered.
            Err(_) => unsafe { libc::_exit(1) },
        },
    }
}

/// # Errors
/// This process has more threads than one.
pub(crate) fn require_one_thread() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        count => Err(io::Error::other(format!(
            "the process has {count} threads: start them after the call of preload"
        ))),
    }
}

/// Ends a copy of a process without what the first one has registered for its end.
pub(crate) fn leave() -> ! {
    // SAFETY: no memory is touched.
    unsafe { libc::_exit(0) }
}

/// A descriptor that is readable when a child of this process has ended.
///
/// # Errors
/// The system's.
pub(crate) fn process_fd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two numbers, and looks at no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: it is new, has no other owner, and fits: descriptors are small numbers.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Whether a channel from the master is that of an ordered pool, which [`pool::SIZE`] marks.
pub(crate) fn is_ordered(channel: &OwnedFd) -> bool {
    let mut least: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes to `least`, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            channel.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw mut least).cast(),
            &raw mut length,
        )
    };
    result == 0 && least == pool::SIZE as libc::c_int
}

/// What a listener had for this process.
#[derive(Debug)]
pub(crate) enum Accepted<T> {
    Client(T),
    /// Another child was faster, or the client has disconnected.
    Nobody,
    /// No client will come: the listener was shut down, as the master does before it ends or when it
    /// gives up the address. It is time to leave.
    ShutDown,
}

/// Accepts a connection without blocking.
///
/// # Errors
/// The system's error, except for errors that concern only the client.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<Accepted<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let number = match accept4(listener.as_raw_fd(), flags) {
        Ok(number) => number,
        Err(Errno::EINVAL) => return Ok(Accepted::ShutDown),
        Err(Errno::EAGAIN) if is_shut_down(listener) => return Ok(Accepted::ShutDown),
        Err(errno) if concerns_only_the_client(errno) => return Ok(Accepted::Nobody),
        Err(errno) => return Err(errno.into()),
    };
    // SAFETY: accept4(2) has just returned this descriptor, so nothing else owns it.
    Ok(Accepted::Client(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Whether a local socket was shut down for reading. That leaves it readable without end, while
/// accept(2) and recv(2) find nothing.
pub(crate) fn is_shut_down(socket: &OwnedFd) -> bool {
    let mut polled = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: poll(2) reads and writes `polled` alone, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut polled, 1, 0) };
    ready > 0 && polled.revents & libc::POLLRDHUP != 0
}

/// Whether accept(2) failed only because the client has disconnected or another child was faster
/// (Postfix, `sane_accept.c`).
fn concerns_only_the_client(errno: Errno) -> bool {
    use Errno::*;
    matches!(
        errno,
        EAGAIN
            | EINTR
            | ECONNABORTED
            | ECONNREFUSED
            | ECONNRESET
            | EHOSTDOWN
            | EHOSTUNREACH
            | ENETDOWN
            | ENETUNREACH
            | ENOPROTOOPT
            | ENOTCONN
            | EOPNOTSUPP
            | EPROTO
    )
}

/// Enables keep-alive, by which the kernel detects that a network client is gone. Other sockets do
/// not support it; the error is ignored.
pub(crate) fn keep_alive(socket: &OwnedFd) {
    let _ = setsockopt(socket, sockopt::KeepAlive, &true);
}

/// Receives one byte, and the descriptor that is sent with it, if any.
///
/// # Errors
/// The system's error; `WouldBlock` if nothing has arrived.
pub(crate) fn receive_descriptor(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0; 1];
    let mut iov = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut iov,
        Some(&mut space),
        flags,
    )?;
    let mut received = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            for number in numbers {
                // SAFETY: recvmsg(2) has just returned this descriptor, so nothing else owns it. If
                // there are several, the last is kept and dropping closes the others.
                received = Some(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{Shutdown, shutdown};
    use std::net::TcpListener;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    #[test]
    fn a_listener_without_clients_has_nobody_until_it_is_shut_down() {
        let directory = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let local = UnixListener::bind(directory.path().join("socket")).unwrap();
        local.set_nonblocking(true).unwrap();
        for listener in [OwnedFd::from(tcp), local.into()] {
            let nobody = accept(&listener).unwrap();
            assert!(matches!(nobody, Accepted::Nobody), "{nobody:?}");
            shutdown(listener.as_raw_fd(), Shutdown::Read).unwrap();
            let shut = accept(&listener).unwrap();
            assert!(matches!(shut, Accepted::ShutDown), "{shut:?}");
        }
    }

    #[test]
    fn a_datagram_socket_is_shut_down_or_not() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.send(b"x").unwrap();
        let ours = OwnedFd::from(ours);
        assert!(!is_shut_down(&ours));
        shutdown(ours.as_raw_fd(), Shutdown::Read).unwrap();
        assert!(is_shut_down(&ours));
    }
}
