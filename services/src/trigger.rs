//! Wake-ups (Postfix, `trigger_server.c`).

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use master::errors::describe_error;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::options::Transport;
use crate::single::accept;
use crate::sys::Accepted;
use crate::{Error, Service};

/// Maximum length of a request in bytes.
const REQUEST_MAX: usize = 1024;
/// Maximum time for a client to send its request, in milliseconds.
const TIMEOUT: u16 = 10_000;

const TYPES: [Transport; 4] = [
    Transport::Inet,
    Transport::Unix,
    Transport::Pass,
    Transport::Fifo,
];

impl Service {
    /// Calls `serve` for each request: data that was written to a FIFO, or the first data on a
    /// connection. The master's wake-up is [`WAKEUP`](crate::WAKEUP), followed by a null byte on a
    /// connection. The connection is closed when `serve` returns. An error that it returns is
    /// logged.
    ///
    /// The service's type is `fifo`, `unix`, `inet` or `pass`.
    ///
    /// ```no_run
    /// # fn main() -> std::process::ExitCode {
    /// services::run(|service| {
    ///     let log = service.log();
    ///     service.trigger(|request| {
    ///         if request.contains(&services::WAKEUP) {
    ///             log.info("good morning");
    ///         }
    ///         Ok(())
    ///     })
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`single`](Self::single).
    pub fn trigger(mut self, mut serve: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), Error> {
        let log = self.log();
        if self.is_standard() {
            self.drop_privileges()?;
            return Ok(request(&io::stdin()).and_then(|request| serve(&request))?);
        }
        let (transport, mut worker) = self.begin(&TYPES)?;
        let mut act = |request: io::Result<Vec<u8>>| {
            if let Err(error) = request.and_then(|request| serve(&request)) {
                log.warning(format!("wake-up: {}", describe_error(&error)));
            }
            1
        };
        let listeners = worker.listeners();
        while let Some(index) = worker.next()? {
            let listener = &listeners[index];
            let stays = if transport == Transport::Fifo {
                match read(listener) {
                    // Another child was faster.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    request => worker.serve(|| act(request)),
                }
            } else {
                match accept(listener, transport, &log)? {
                    Accepted::Client(arrival) => worker.serve(|| act(request(&arrival.descriptor))),
                    Accepted::Nobody => continue,
                    Accepted::ShutDown => break,
                }
            };
            if !stays {
                break;
            }
        }
        Ok(())
    }
}

/// Waits for a request and reads it.
fn request(source: &impl AsFd) -> io::Result<Vec<u8>> {
    let mut fds = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, TIMEOUT) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => return read(source),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reads the available data.
fn read(source: &impl AsFd) -> io::Result<Vec<u8>> {
    let mut request = vec![0; REQUEST_MAX];
    let length = nix::unistd::read(source, &mut request)?;
    request.truncate(length);
    Ok(request)
}
