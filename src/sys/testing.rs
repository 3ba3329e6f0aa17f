//! Tests of what belongs to the whole process: descriptor numbers, signals, alarms; and of sockets
//! that linger.

use std::io::{IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

const MARK: &str = "MASTER_TEST_IN_OWN_PROCESS";

/// The test program calls itself for the one test named here, and goes on there, where this is
/// true. Where it is false, the test is over.
pub(crate) fn in_own_process(test: &str) -> bool {
    if is_own_process() {
        return true;
    }
    let status = own_process(test).status();
    assert!(
        status.unwrap().success(),
        "{test} failed in its own process"
    );
    false
}

/// The command that runs a test in a process of its own.
pub(super) fn own_process(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(MARK, "1")
        .stdout(Stdio::null());
    command
}

/// Whether this is the process that [`own_process`] made.
pub(super) fn is_own_process() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Longer than anything here takes on a busy machine, and much shorter than the sockets linger.
pub(super) const SOON: Duration = Duration::from_secs(5);

/// A TCP socket whose last close would wait for 30 s, because its peer does not read. Returned
/// with that peer.
pub(super) fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 30,
    };
    setsockopt(&socket, sockopt::Linger, &linger).unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.write(&[0; 65536]).is_ok() {}
    (socket, peer)
}

/// Sends a descriptor with these bytes.
pub(super) fn send_descriptor(
    to: &impl AsRawFd,
    fd: &impl AsRawFd,
    bytes: &[u8],
) -> nix::Result<usize> {
    let rights = [fd.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&rights)];
    let flags = MsgFlags::empty();
    sendmsg::<()>(
        to.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &control,
        flags,
        None,
    )
}
