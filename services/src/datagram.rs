//! Datagrams (Postfix, `dgram_server.c`).

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use master::errors::describe_error;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::options::Transport;
use crate::single::SHUT_DOWN;
use crate::sys::is_shut_down;
use crate::{Error, Service};

/// Maximum length of a datagram in bytes; the rest of a longer one is lost.
const LENGTH_MAX: usize = 64 * 1024;
/// Maximum number of datagrams that are received before the process reports that it is available.
const TURN: u32 = 64;

/// One message.
#[derive(Debug)]
pub struct Datagram<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl<'a> Datagram<'a> {
    /// A datagram of `length` bytes, of which `buffer` holds the first.
    fn new(buffer: &'a [u8], length: usize) -> Self {
        let bytes = &buffer[..length.min(buffer.len())];
        Self { bytes, length }
    }

    /// The content, at most 65,536 bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Whether the datagram was longer than that.
    pub fn is_truncated(&self) -> bool {
        self.length > self.bytes.len()
    }
}

impl Service {
    /// Calls `serve` for each datagram. An error that it returns is logged.
    ///
    /// The service's type is `unix-dgram`. With `-S`, standard input up to its end is the only
    /// datagram.
    ///
    /// ```no_run
    /// # fn main() -> std::process::ExitCode {
    /// services::run(|service| {
    ///     let log = service.log();
    ///     service.datagrams(|datagram| {
    ///         log.info(format!("{} bytes", datagram.bytes().len()));
    ///         Ok(())
    ///     })
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`single`](Self::single).
    pub fn datagrams(
        mut self,
        mut serve: impl FnMut(&Datagram<'_>) -> io::Result<()>,
    ) -> Result<(), Error> {
        let log = self.log();
        let mut buffer = vec![0; LENGTH_MAX];
        if self.is_standard() {
            self.drop_privileges()?;
            return Ok(serve(&read_all(&mut buffer)?)?);
        }
        let (_, mut worker) = self.begin(&[Transport::UnixDatagram])?;
        let listeners = worker.listeners();
        while let Some(index) = worker.next()? {
            let listener = &listeners[index];
            let Some(first) = receive(listener, &mut buffer)? else {
                // Another child may have received the datagram.
                if is_shut_down(listener) {
                    log.detail(SHUT_DOWN);
                    break;
                }
                continue;
            };
            let stays = worker.serve(|| {
                let mut next = Some(first);
                let mut served = 0;
                while let Some(length) = next {
                    if let Err(error) = serve(&Datagram::new(&buffer, length)) {
                        log.warning(format!("datagram: {}", describe_error(&error)));
                    }
                    served += 1;
                    next = match served {
                        TURN => None,
                        // A persistent error of the socket is found again by the next wait.
                        _ => receive(listener, &mut buffer).ok().flatten(),
                    };
                }
                served
            });
            if !stays {
                break;
            }
        }
        Ok(())
    }
}

/// Receives one datagram and returns its full length; `None` if there is none.
fn receive(listener: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    loop {
        match recv(listener.as_raw_fd(), buffer, flags) {
            Ok(length) => return Ok(Some(length)),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("receive datagram")(errno)),
        }
    }
}

/// Reads standard input to its end as one datagram.
fn read_all(buffer: &mut [u8]) -> io::Result<Datagram<'_>> {
    let mut length = 0;
    while length < buffer.len() {
        match io::stdin().lock().read(&mut buffer[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(Datagram::new(buffer, length))
}
