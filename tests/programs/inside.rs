//! A child that tells what it may do. It answers one line of each client:
//!
//! - `read PATH`: the file's text; `open PATH`, `create PATH`: `ok`;
//! - `call NUMBER ARGUMENT...`: the result of a system call with numbers as arguments;
//! - `thread`: `ok` when another thread has run;
//! - `arguments`: the command line, a line for each;
//! - `fork NUMBER`: starts processes that stay, and answers how many the system allowed;
//! - `memory BYTES`: `ok` when there is as much;
//! - `descriptors NUMBER`: opens as many for a moment, and answers how many the system allowed;
//! - `execute PATH`: `ok` when the program has run;
//!
//! or `error NUMBER` with the system's. `tests/sandbox/inside.py` does the same in Python.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd};
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result};
use master::protocol::{GENERATION, LISTEN, STATUS, StatusReport};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn main() -> Result<()> {
    // SAFETY: the master opened both for this process, which never closes them.
    let (status, listener) = unsafe {
        let listener = ManuallyDrop::new(UnixListener::from_raw_fd(LISTEN));
        (BorrowedFd::borrow_raw(STATUS), listener)
    };
    let of_listener = std::os::fd::AsFd::as_fd(&*listener);
    loop {
        let mut ready = [status, of_listener].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut ready, PollTimeout::NONE)?;
        if ready[0].any() == Some(true) {
            return Ok(());
        }
        let Ok((client, _)) = listener.accept() else {
            continue;
        };
        report(0)?;
        let mut line = String::new();
        BufReader::new(&client).read_line(&mut line)?;
        let answer = answer(line.trim_end()).unwrap_or_else(|error| {
            let number = error.raw_os_error().unwrap_or(-1);
            format!("error {number}")
        });
        (&client).write_all(format!("{answer}\n").as_bytes())?;
        report(1)?;
    }
}

fn answer(line: &str) -> io::Result<String> {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    match command {
        "read" => fs::read_to_string(rest),
        "open" => File::open(rest).map(|_| "ok".to_owned()),
        "create" => File::create(rest).map(|_| "ok".to_owned()),
        "call" => call(rest),
        "thread" => {
            let thread = std::thread::Builder::new().spawn(|| "ok".to_owned())?;
            thread
                .join()
                .map_err(|_| io::Error::other("it has panicked"))
        }
        "fork" => Ok(fork(number(rest)?).to_string()),
        "memory" => reserve(number(rest)?),
        "descriptors" => {
            let files = (0..number(rest)?).map_while(|_| File::open("/dev/null").ok());
            Ok(files.collect::<Vec<_>>().len().to_string())
        }
        "execute" => {
            let status = std::process::Command::new(rest).status()?;
            Ok(if status.success() { "ok" } else { "failed" }.to_owned())
        }
        "arguments" => Ok(std::env::args().collect::<Vec<_>>().join("\n")),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(io::Error::other)
}

/// Starts processes in sessions of their own, which keep nothing open.
fn fork(most: usize) -> usize {
    let is_started = |_: &usize| {
        // SAFETY: this process has one thread, and the other makes system calls only.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: the calls take numbers.
            unsafe {
                libc::setsid();
                libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
                libc::alarm(300);
                loop {
                    libc::pause();
                }
            }
        }
        pid > 0
    };
    (0..most).take_while(is_started).count()
}

fn reserve(bytes: usize) -> io::Result<String> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the mapping is new, and nothing uses it.
    unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), bytes, protection, kind, -1, 0);
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::munmap(memory, bytes);
    }
    Ok("ok".to_owned())
}

fn call(numbers: &str) -> io::Result<String> {
    let mut given = [0; 7];
    for (to, number) in given.iter_mut().zip(numbers.split(' ')) {
        *to = number.parse().map_err(io::Error::other)?;
    }
    let [number, a, b, c, d, e, f]: [libc::c_long; 7] = given;
    // SAFETY: the tests make only calls that touch no memory of this process.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result.to_string())
}

fn report(available: i32) -> Result<()> {
    let generation = std::env::var(GENERATION)?;
    let report = StatusReport {
        pid: nix::unistd::getpid().as_raw(),
        generation: u32::from_str_radix(&generation, 8).context(GENERATION)?,
        available,
    };
    // SAFETY: the master opened it for this process, which never closes it.
    let status = ManuallyDrop::new(unsafe { File::from_raw_fd(STATUS) });
    // A master that no longer reads is noticed by the next poll.
    let _ = (&*status).write_all(&report.encode());
    Ok(())
}
