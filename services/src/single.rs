//! One client at a time (Postfix, `single_server.c`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::client::is_normal_disconnect;
use crate::options::Transport;
use crate::pass::{self, Arrival};
use crate::sys::Accepted;
use crate::{Client, Error, Log, Service, sys};

/// The types of listeners with stream connections.
pub(crate) const STREAMS: [Transport; 3] = [Transport::Inet, Transport::Unix, Transport::Pass];

/// Logged with `-v` when a process leaves for that.
pub(crate) const SHUT_DOWN: &str = "listener shut down -- exiting";

impl Service {
    /// Serves one client after another, each by a call of `serve`. The connection is closed when it
    /// returns. An error that it returns is logged.
    ///
    /// The service's type is `inet`, `unix` or `pass`.
    ///
    /// ```no_run
    /// use std::io::{BufRead, BufReader, Write};
    /// use std::process::ExitCode;
    ///
    /// fn main() -> ExitCode {
    ///     services::run(|service| {
    ///         service.single(|client| {
    ///             let mut line = String::new();
    ///             BufReader::new(&*client).read_line(&mut line)?;
    ///             client.write_all(line.to_uppercase().as_bytes())
    ///         })
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// The service cannot be prepared, or cannot accept clients any more.
    pub fn single(
        mut self,
        mut serve: impl FnMut(&mut Client) -> io::Result<()>,
    ) -> Result<(), Error> {
        let timeout = self.ipc_timeout()?;
        let log = self.log();
        if self.is_standard() {
            self.drop_privileges()?;
            return Ok(serve(&mut Client::standard(timeout))?);
        }
        let (transport, mut worker) = self.begin(&STREAMS)?;
        let listeners = worker.listeners();
        while let Some(index) = worker.next()? {
            let arrival = match accept(&listeners[index], transport, &log)? {
                Accepted::Client(arrival) => arrival,
                Accepted::Nobody => continue,
                Accepted::ShutDown => break,
            };
            let stays = worker.serve(|| {
                serve_one(arrival, timeout, &log, &mut serve);
                1
            });
            if !stays {
                break;
            }
        }
        Ok(())
    }
}

/// Accepts a client.
///
/// # Errors
/// This process cannot accept clients any more; the master's next child may be able to.
pub(crate) fn accept(
    listener: &OwnedFd,
    transport: Transport,
    log: &Log,
) -> Result<Accepted<Arrival>, Error> {
    Ok(match connection(listener, log)? {
        Accepted::Client(descriptor) => match arrive(descriptor, transport, log) {
            Some(arrival) => Accepted::Client(arrival),
            None => Accepted::Nobody,
        },
        Accepted::Nobody => Accepted::Nobody,
        Accepted::ShutDown => Accepted::ShutDown,
    })
}

/// Accepts a connection. This is the first part of [`accept`], and does not block.
///
/// # Errors
/// As [`accept`].
pub(crate) fn connection(listener: &OwnedFd, log: &Log) -> Result<Accepted<OwnedFd>, Error> {
    let accepted = sys::accept(listener).map_err(Error::system("accept connection"))?;
    if matches!(accepted, Accepted::ShutDown) {
        log.detail(SHUT_DOWN);
    }
    Ok(accepted)
}

/// Completes the connection. This is the second part of [`accept`]. It may wait for a process that
/// passes a client.
pub(crate) fn arrive(descriptor: OwnedFd, transport: Transport, log: &Log) -> Option<Arrival> {
    if transport != Transport::Pass {
        // A service of type unix may listen at TCP addresses, too; a local socket takes no notice.
        sys::keep_alive(&descriptor);
        return Some(Arrival {
            descriptor,
            attributes: BTreeMap::new(),
        });
    }
    match pass::receive(&descriptor) {
        Ok(arrival) => Some(arrival),
        Err(error) => {
            let reason = master::errors::describe_error(&error);
            log.warning(format!(
                "cannot receive a client that was handed on: {reason}"
            ));
            None
        }
    }
}

pub(crate) fn serve_one(
    arrival: Arrival,
    timeout: Duration,
    log: &Log,
    serve: &mut impl FnMut(&mut Client) -> io::Result<()>,
) {
    let mut client = match Client::new(arrival.descriptor, arrival.attributes, timeout) {
        Ok(client) => client,
        Err(error) => return log.error(master::errors::describe_error(&error)),
    };
    log.detail(format!("connect from {}", client.peer()));
    if let Err(error) = serve(&mut client) {
        log_client_error(log, client.peer(), &error);
    }
    log.detail(format!("disconnect from {}", client.peer()));
}

/// Logs the error of a client. A lost connection is not a warning.
pub(crate) fn log_client_error(log: &Log, peer: &crate::Peer, error: &io::Error) {
    let reason = master::errors::describe_error(error);
    if is_normal_disconnect(error) {
        log.info(format!("lost connection with {peer}: {reason}"))
    } else {
        log.warning(format!("{peer}: {reason}"))
    }
}
