//! The child of the service that no test touches (`tests/testkit/src/canary.rs`): it gives one
//! client one byte, then says for how long it waited for a processor, and leaves. With `first-byte` it gives that to its standard output, and needs
//! no master.

use std::fs::File;
use std::io::Write;
use std::os::fd::{BorrowedFd, FromRawFd};

use master::protocol::{LISTEN, STATUS, StatusReport};
use nix::errno::Errno;
use nix::sys::socket::accept;
use nix::unistd::{getpid, write};

/// For how long this process was ready to run and did not, in nanoseconds.
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
        // SAFETY: accept(2) has just made it, and nothing else has it.
        Ok(client) => unsafe { File::from_raw_fd(client) },
        // The client gave up.
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
    // A master that ends reads no more, and a client may have gone: neither is an error.
    let _ = write(status, &report.encode());
    let _ = (&client).write_all(format!("x{}", waited()).as_bytes());
}
