//! Datagrams (Postfix, `dgram_server.c`).

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use master::errors::describe_error;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::options::Transport;
use crate::{Error, Service};

/// The longest datagram; of a longer one the end is lost.
const LENGTH_MAX: usize = 64 * 1024;
/// How many are taken before the master is told that this process is available again.
const TURN: u32 = 64;

/// One message.
#[derive(Debug)]
pub struct Datagram<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl<'a> Datagram<'a> {
    /// A datagram of this length, of which `buffer` has as much as it has room for.
    fn new(buffer: &'a [u8], length: usize) -> Self {
        let bytes = &buffer[..length.min(buffer.len())];
        Self { bytes, length }
    }

    /// What was sent, up to 65,536 bytes of it.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Whether more was sent.
    pub fn is_truncated(&self) -> bool {
        self.length > self.bytes.len()
    }
}

impl Service {
    /// Calls `serve` with one datagram after another. An error that it returns is logged.
    ///
    /// The service's type is `unix-dgram`. With `-S` there is one datagram: standard input, up to
    /// its end.
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
        let (_, mut shift) = self.begin(&[Transport::UnixDatagram])?;
        let listeners = shift.listeners();
        while let Some(index) = shift.next()? {
            let listener = &listeners[index];
            // A sibling may have been faster.
            let Some(first) = receive(listener, &mut buffer)? else {
                continue;
            };
            let stays = shift.serve(|| {
                let mut next = Some(first);
                let mut served = 0;
                while let Some(length) = next {
                    if let Err(error) = serve(&Datagram::new(&buffer, length)) {
                        log.warning(format!("datagram: {}", describe_error(&error)));
                    }
                    served += 1;
                    next = match served {
                        TURN => None,
                        // What is wrong with the socket will be found again.
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

/// Receives one datagram; none when there is none. The result is its whole length.
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

/// One datagram: all that comes from standard input.
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
