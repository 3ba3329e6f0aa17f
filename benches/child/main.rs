//! The child that is measured under every master: it takes clients as Postfix's programs do, gives
//! each one byte, and does nothing else, so that what is left is the master's cost.
//!
//! Its last argument says what it does: `warm` serves until it is told to leave, `once` serves one
//! client, `hold` too, and stays until that client has gone, `echo` gives one client back what it
//! says, `cat` does the same with its standard input and output, `exit` ends at once. It uses the C library alone, because Rust's runtime would be half
//! of what it does.
#![no_main]

use std::ffi::{CStr, c_char, c_int, c_long, c_short, c_ulong, c_void};
use std::ptr::null_mut;

/// What the master and its children agree on (`src/protocol.rs`).
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
    // SAFETY: the C library gives the arguments and their number, and there is at least one.
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

/// Serves so many clients, or until the master is gone or wants the child to leave.
fn serve(clients: u64, attend: fn(c_int)) {
    let report = |available| send(STATUS, &[getpid(), generation(), available]);
    let mut served = 0;
    while served < clients {
        // SAFETY: without an address nothing is written.
        let client = unsafe { accept(LISTEN, null_mut(), null_mut()) };
        if client < 0 {
            // Nobody is there yet, or another child was faster.
            match wait() {
                true => continue,
                false => return,
            }
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

/// Waits for a client; false when it is time to leave.
fn wait() -> bool {
    let waiting = |fd| PollFd {
        fd,
        events: POLLIN,
        revents: 0,
    };
    let mut fds = [waiting(STATUS), waiting(LISTEN)];
    // SAFETY: the array has two members.
    unsafe { poll(fds.as_mut_ptr(), 2, -1) };
    fds[0].revents == 0
}

/// Gives the client its byte.
fn greet(client: c_int) {
    send(client, b"x");
}

/// Stays until the client has gone.
fn hold(client: c_int) {
    greet(client);
    while receive(client, &mut [0]) > 0 {}
}

/// Copies until there is no more.
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
    // SAFETY: there is room for that many bytes.
    unsafe { read(fd, bytes.as_mut_ptr().cast(), bytes.len()) }
}

fn send<T>(fd: c_int, what: &[T]) {
    // A client may be gone, and a master that reloads no longer listens: neither is an error.
    // SAFETY: the bytes are those of numbers, which have no holes.
    unsafe { write(fd, what.as_ptr().cast(), size_of_val(what)) };
}

fn generation() -> c_int {
    // SAFETY: both strings end with a zero; there is one thread.
    unsafe {
        let text = getenv(c"GENERATION".as_ptr());
        match text.is_null() {
            true => _exit(1),
            false => strtol(text, null_mut(), 8) as c_int,
        }
    }
}
