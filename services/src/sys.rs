//! The system calls that hand out descriptors as numbers: the library's only unsafe code.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use master::protocol::pool;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockFlag, accept4, recvmsg, setsockopt, sockopt,
};

/// Takes possession of a descriptor that came with this process; programs that this one runs do
/// not get it.
///
/// # Errors
/// The system's, when it is not open, or did not come with this process.
pub(crate) fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the calls do nothing to a number that is not open.
    let set = unsafe {
        let flags = libc::fcntl(number, libc::F_GETFD);
        // Nothing that is closed on exec came with the process, and whatever it opens itself is:
        // by the standard library, and by this one.
        if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC)
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and has had no owner: every owner would have made it close on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether a channel from the master has the mark of an ordered pool ([`pool::SIZE`]).
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

/// Accepts a connection, which does not block; none when there is nothing to accept after all.
///
/// # Errors
/// The system's, when it is not the client's fault.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let number = match accept4(listener.as_raw_fd(), flags) {
        Ok(number) => number,
        Err(errno) if is_false_alarm(errno) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    // SAFETY: accept4(2) has just made it, and nobody else knows of it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Whether accept(2) says no more than that the client has gone, or that a sibling was faster
/// (accept(2); Postfix, `sane_accept.c`).
fn is_false_alarm(errno: nix::errno::Errno) -> bool {
    use nix::errno::Errno::*;
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

/// Has the system find out by itself that a client of the network is gone; other sockets do not
/// have this.
pub(crate) fn keep_alive(socket: &OwnedFd) {
    let _ = setsockopt(socket, sockopt::KeepAlive, &true);
}

/// Receives one byte and the descriptor that comes with it, if one does.
///
/// # Errors
/// The system's; `WouldBlock` when nothing has come yet.
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
                // SAFETY: recvmsg(2) has just made it, and nobody else knows of it. Of several the
                // last is kept, and the others are closed.
                received = Some(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok(received)
}
