//! Services that run under master(8), this project's or Postfix's.
//!
//! A service is a program that a process manager starts when clients come, in as many processes as
//! are needed. The master has already opened the listeners. Each process accepts clients itself,
//! reports to the master whether it is busy, and ends after a number of clients or after some time
//! without clients. This library does all of that. Only the conversation with a client is left to
//! the program:
//!
//! ```no_run
//! use std::io::{BufRead, BufReader, Write};
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     services::run(|service| {
//!         service.single(|client| {
//!             let mut line = String::new();
//!             BufReader::new(&*client).read_line(&mut line)?;
//!             client.write_all(line.to_uppercase().as_bytes())
//!         })
//!     })
//! }
//! ```
//!
//! With the line
//!
//! ```text
//! 127.0.0.1:7000 inet n - n - 10 shout
//! ```
//!
//! in `master.cf` and the program in the master's `daemon_directory`, at most ten processes serve
//! clients on port 7000. `shout -S` serves one client on standard input and output, without a
//! master.
//!
//! # Kinds of services
//!
//! | method of [`Service`] | a process serves | types of listeners | in Postfix |
//! |---|---|---|---|
//! | [`single`](Service::single) | one client at a time, with blocking calls | `inet`, `unix`, `pass` | single_server(3) |
//! | [`ordered`](Service::ordered) | one client at a time, when the master says so | `inet`, `unix`, `pass` | SpamAssassin's spamd |
//! | `multi` (feature `multi`, on by default) | many clients at a time, with tokio | `inet`, `unix`, `pass` | multi_server(3), event_server(3) |
//! | [`trigger`](Service::trigger) | wake-ups | `fifo`, `unix`, `inet`, `pass` | trigger_server(3) |
//! | [`datagrams`](Service::datagrams) | datagrams | `unix-dgram` | dgram_server(3) |
//!
//! With [`preload`](Service::preload) before one of these, a process loads once what takes long, and the
//! master has it fork the others.
//!
//! # What the library does
//!
//! - It accepts Postfix's options for daemons, `-c -d -D -i -l -m -n -o -r -s -S -t -u -v -V -z`.
//!   The arguments that follow are in [`Service::arguments`].
//! - It reads parameters from `-o`, `main.cf` and `master.toml`, by Postfix's rules.
//! - It gives up privileges (`-u`, `-c`) before the first client.
//! - It waits efficiently: the kernel wakes up one idle process of the service for each connection.
//!   It reports to the master before and after it serves.
//! - It ends after `max_use` clients (100, reduced by a random part of at most `max_use_jitter`
//!   percent), after `max_idle` (100s) without a client, and when the master ends or reloads. The
//!   current client is always served to the end. (In an ordered pool, the master decides how long a
//!   child stays idle.)
//! - It ends a process that serves one client for longer than `daemon_timeout` (18000s).
//! - It logs to the master's log destination, as `syslog_name/program`.

#![deny(missing_docs)]
#![deny(unsafe_code)]
#![warn(missing_debug_implementations)]

mod about;
mod client;
mod datagram;
mod error;
mod guard;
mod log;
#[cfg(feature = "multi")]
pub mod multi;
mod options;
mod ordered;
mod parameters;
mod pass;
mod preload;
mod service;
mod single;
mod status;
#[allow(unsafe_code)] // the only module with unsafe code
mod sys;
mod trigger;
mod waiting;
mod worker;

use std::path::Path;
use std::process::ExitCode;

pub use about::About;
pub use client::{Client, Peer};
pub use datagram::Datagram;
pub use error::Error;
#[doc(hidden)]
pub use guard::Guard;
pub use log::Log;
use master::protocol::GENERATION;
pub use master::protocol::WAKEUP;
use options::Options;
pub use options::Transport;
pub use service::{Service, User};

/// Runs a service. `main` gets the service as it was started, and ends with a call that serves.
///
/// The program's `main` returns the result: 0 for a normal end, 1 after an error. The error has
/// been logged, and written to standard error unless a master has started the process.
///
/// Without a master, `--help` and `--version` are answered on standard output; the status is 9 if
/// that cannot be written.
pub fn run(main: impl FnOnce(Service) -> Result<(), Error>) -> ExitCode {
    run_as(&About::default(), main)
}

/// Has the process of a command end with the thread that starts it, by SIGKILL, and take all signals.
pub fn end_with_parent(command: &mut std::process::Command) {
    sys::end_with_parent(command);
}

/// A descriptor that is readable when a child of this process has ended.
///
/// # Errors
/// The system's.
pub fn process_fd(pid: nix::unistd::Pid) -> std::io::Result<std::os::fd::OwnedFd> {
    sys::process_fd(pid)
}

/// Runs a service, as [`run`] does, that has words of its own for `--help` and `--version`.
pub fn run_as(about: &About, main: impl FnOnce(Service) -> Result<(), Error>) -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let options = Options::parse(std::env::args_os().skip(1));
    let by_hand = std::env::var_os(GENERATION).is_none();
    if let Ok(Options {
        question: Some(question),
        ..
    }) = &options
    {
        if by_hand {
            return about.answer(&program, *question);
        }
    }
    let log = log::first_log(&program);
    let service = options.and_then(|options| Service::start(options, &program, &log));
    match service.and_then(main) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.fatal(error);
            ExitCode::FAILURE
        }
    }
}
