//! The child that is measured under every master. It accepts clients like Postfix's programs, sends
//! one byte to each and does nothing else, so that the measured cost is the master's.
//!
//! Its last argument is the mode: `warm` serves until it is told to leave, `once` serves one
//! client, `hold` serves one client and stays until it disconnects, `echo` returns one client's
//! data, `cat` does the same on standard input and output, `exit` ends at once. It uses only the C
//! library, because Rust's runtime would be half of its cost.
#![no_main]

use std::ffi::{CStr, c_char, c_int, c_long, c_short, c_ulong, c_void};
use std::ptr::null_mut;

/// Values of the protocol between master and child (`src/protocol.rs`).
const STATUS: c_int = 5;
const LISTEN: c_int = 6;
const TAKEN: c_int = 0;
const AVAILABLE: c_int = 1;

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

const POLLIN: c_short = 1;

unsafe extern "C" {
    safe fn getpid() -> c_int;
    safe fn close(fd: c_int) -> c_int;
    safe fn _exit(status: c_int) -> !;
    fn accept(fd: c_int, address: *mut c_void, length: *mut c_void) -> c_int;
    fn getenv(name: *const c_char) -> *const c_char;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
    fn read(fd: c_int, bytes: *mut c_void, length: usize) -> isize;
    fn strtol(text: *const c_char, end: *mut *mut c_char, base: c_int) -> c_long;
    fn write(fd: c_int, bytes: *const c_void, length: usize) -> isize;
}

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    // SAFETY: the C library passes valid strings and their number, which is at least 1.
    let last = unsafe { CStr::from_ptr(*arguments.add(count as usize - 1)) };
    match last.to_bytes() {
        b"warm" => serve(u64::MAX, greet),
        b"once" => serve(1, greet),
        b"hold" => serve(1, hold),
        b"echo" => serve(1, |client| copy(client, client)),
        b"cat" => copy(0, 1),
        _ => {}
    }
    _exit(0)
}

/// Serves `clients` clients, or until the master has ended or tells the child to leave.
fn serve(clients: u64, attend: fn(c_int)) {
    let report = |available| send(STATUS, &[getpid(), generation(), available]);
    let mut served = 0;
    while served < clients {
        // SAFETY: with a null address accept(2) writes nothing.
        let client = unsafe { accept(LISTEN, null_mut(), null_mut()) };
        if client < 0 {
            // No client waits, or another child was faster.
            if !wait() {
                return;
            }
            continue;
        }
        report(TAKEN);
        attend(client);
        close(client);
        served += 1;
        if served < clients {
            report(AVAILABLE);
        }
    }
}

/// Waits for a client; false when the child has to leave.
fn wait() -> bool {
    let waiting = |fd| PollFd {
        fd,
        events: POLLIN,
        revents: 0,
    };
    let mut fds = [waiting(STATUS), waiting(LISTEN)];
    // SAFETY: the array has two elements.
    unsafe { poll(fds.as_mut_ptr(), 2, -1) };
    fds[0].revents == 0
}

/// Sends one byte to the client.
fn greet(client: c_int) {
    send(client, b"x");
}

/// Waits until the client disconnects.
fn hold(client: c_int) {
    greet(client);
    while receive(client, &mut [0]) > 0 {}
}

/// Copies until end of file.
fn copy(from: c_int, to: c_int) {
    let mut bytes = [0; 512];
    loop {
        match receive(from, &mut bytes) {
            length @ 1.. => send(to, &bytes[..length as usize]),
            _ => return,
        }
    }
}

fn receive(fd: c_int, bytes: &mut [u8]) -> isize {
    // SAFETY: the buffer has this many bytes.
    unsafe { read(fd, bytes.as_mut_ptr().cast(), bytes.len()) }
}

fn send<T>(fd: c_int, what: &[T]) {
    // The client may have disconnected, and a reloading master does not read: both are normal.
    // SAFETY: `what` contains only integers, so all of its bytes are initialized.
    unsafe { write(fd, what.as_ptr().cast(), size_of_val(what)) };
}

fn generation() -> c_int {
    // SAFETY: both strings end with a null byte, and the process has one thread.
    unsafe {
        let text = getenv(c"GENERATION".as_ptr());
        if text.is_null() {
            _exit(1)
        } else {
            strtol(text, null_mut(), 8) as c_int
        }
    }
}
