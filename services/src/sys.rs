//! System calls that return descriptors as numbers: the library's only unsafe code.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use master::protocol::pool;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockFlag, accept4, recvmsg, setsockopt, sockopt,
};

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

/// Accepts a connection without blocking; `None` if there is none.
///
/// # Errors
/// The system's error, except for errors that concern only the client.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let number = match accept4(listener.as_raw_fd(), flags) {
        Ok(number) => number,
        Err(errno) if concerns_only_the_client(errno) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    // SAFETY: accept4(2) has just returned this descriptor, so nothing else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Whether accept(2) failed only because the client has disconnected or another child was faster
/// (Postfix, `sane_accept.c`).
fn concerns_only_the_client(errno: nix::errno::Errno) -> bool {
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
