//! The child of the canary service (`tests/testkit/src/canary.rs`): it sends one byte to one
//! client, then writes how long it has waited for a processor, and ends. With `first-byte` it
//! writes to standard output instead, and needs no master.

use std::fs::File;
use std::io::Write;
use std::os::fd::{BorrowedFd, FromRawFd};

use master::protocol::{LISTEN, STATUS, StatusReport};
use nix::errno::Errno;
use nix::sys::socket::accept;
use nix::unistd::{getpid, write};

/// How long this process was ready to run but did not run, in nanoseconds.
fn waited() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let second = text.split_whitespace().nth(1);
    second.and_then(|n| n.parse().ok()).unwrap_or_default()
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("first-byte") {
        std::io::stdout().write_all(b"x").expect("a reader");
        return;
    }
    let client = match accept(LISTEN) {
        // SAFETY: accept(2) has just returned it, so nothing else owns it.
        Ok(client) => unsafe { File::from_raw_fd(client) },
        // The client has disconnected.
        Err(Errno::EAGAIN | Errno::ECONNABORTED) => return,
        Err(why) => panic!("{why}"),
    };
    // SAFETY: the master opened it for this process, which does not close it.
    let status = unsafe { BorrowedFd::borrow_raw(STATUS) };
    let generation = std::env::var("GENERATION").expect("a generation");
    let report = StatusReport {
        pid: getpid().as_raw(),
        generation: u32::from_str_radix(&generation, 8).expect("an octal number"),
        available: 0,
    };
    // The master or the client may have ended; neither is an error.
    let _ = write(status, &report.encode());
    let _ = (&client).write_all(format!("x{}", waited()).as_bytes());
}
