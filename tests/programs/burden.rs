//! A child that sends the master descriptors of TCP connections with SO_LINGER and unsent data, and
//! ends. If the master does the last close, it blocks for the lingering time.
//!
//! Its arguments are `to=CHANNEL`, `sink=ADDRESS` and `control=PATH`. The connections are to
//! ADDRESS, where nothing is read. CHANNEL is `shared`, the status channel; `ordered`, the channel
//! of an ordered pool; or `wakeup`, the first connection to the listener. When it is ready it
//! writes `ready` to PATH, reads a line, sends the descriptors, writes the result, waits for a
//! byte, and ends.

use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::exit;

use anyhow::{Context, Result, bail};
use master::protocol::pool::Report;
use master::protocol::{GENERATION, LISTEN, STATUS, StatusReport};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, accept, sendmsg};
use nix::unistd::getpid;

#[path = "../freeze/lingering.rs"]
mod lingering;

fn main() -> Result<()> {
    let option = |name: &str| {
        let mut all = std::env::args();
        all.find_map(|argument| argument.strip_prefix(name).map(str::to_owned))
            .with_context(|| format!("{name}... is needed"))
    };
    let Ok(mut control) = UnixStream::connect(option("control=")?) else {
        return Ok(()); // the test is over
    };
    let sink = option("sink=")?;
    let connections = lingering::connections(&sink)?;
    let (channel, bytes) = match option("to=")?.as_str() {
        "shared" => (STATUS, taken()?),
        "ordered" => (STATUS, Report::Idle.encode(getpid().as_raw()).to_vec()),
        "wakeup" => (first_client()?, b"x".to_vec()),
        other => bail!("what is {other:?}?"),
    };
    control.write_all(b"ready\n")?;
    let mut line = String::new();
    if BufReader::new(control.try_clone()?).read_line(&mut line)? == 0 {
        return Ok(()); // the test is over, or needs no more descriptors
    }
    let sent = send(channel, &bytes, &connections);
    control.write_all(format!("{sent:?}\n").as_bytes())?;
    control.read_exact(&mut [0])?;
    // Without a close of its own, which could block: the kernel's close at the end of a process
    // does not.
    exit(0)
}

/// Sends bytes with the descriptors, or without them if the other end refuses them.
fn send(channel: RawFd, bytes: &[u8], connections: &[TcpStream]) -> nix::Result<usize> {
    let rights: Vec<RawFd> = connections.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&rights)];
    let bytes = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = sendmsg::<()>(channel, &bytes, &rights, flags, None);
    if sent.is_err() {
        let _ = sendmsg::<()>(channel, &bytes, &[], flags, None);
    }
    sent
}

/// A report that the child is taken.
fn taken() -> Result<Vec<u8>> {
    let report = StatusReport {
        pid: getpid().as_raw(),
        generation: u32::from_str_radix(&std::env::var(GENERATION)?, 8)?,
        available: 0,
    };
    Ok(report.encode().to_vec())
}

/// The connection of the master's wake-up.
fn first_client() -> Result<RawFd> {
    // SAFETY: the master opened it for this process, which never closes it.
    let listener = unsafe { BorrowedFd::borrow_raw(LISTEN) };
    poll(
        &mut [PollFd::new(listener, PollFlags::POLLIN)],
        PollTimeout::NONE,
    )?;
    Ok(accept(LISTEN)?)
}
