//! One client at a time, on the master's order: a child of an ordered pool. The messages are
//! described in the master's `protocol/pool.rs`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use master::protocol::Availability;
use master::protocol::pool::{Assembler, Order, SIZE};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv};

use crate::single::{STREAMS, arrive, connection, serve_one};
use crate::status::Status;
use crate::sys::Accepted;
use crate::waiting::timeout;
use crate::worker::{Limits, Worker};
use crate::{Client, Error, Log, Service};

impl Service {
    /// Serves one client after another, each by a call of `serve`, like [`single`](Self::single),
    /// but the master decides when to accept. This is for processes that are expensive to start:
    /// expensive preparation belongs before this call, which reports that the process is ready.
    ///
    /// The service's type is `inet`, `unix` or `pass`, and the master's file `master.toml` makes it
    /// an ordered pool:
    ///
    /// ```toml
    /// [service."127.0.0.1:7000/inet"]
    /// accept = "ordered"
    /// ```
    ///
    /// The process ends after `max_use` clients, when the master ends, and on SIGINT or SIGTERM;
    /// the current client is served to the end. The master decides how many processes are idle, and
    /// for how long: there is no `max_idle`.
    ///
    /// ```no_run
    /// use std::collections::HashSet;
    /// use std::io::{BufRead, BufReader, Write};
    /// use std::process::ExitCode;
    ///
    /// fn main() -> ExitCode {
    ///     services::run(|service| {
    ///         let words = std::fs::read_to_string("/usr/share/dict/words")?;
    ///         let words: HashSet<&str> = words.lines().collect();
    ///         service.ordered(|client| {
    ///             let mut line = String::new();
    ///             BufReader::new(&*client).read_line(&mut line)?;
    ///             let known = words.contains(line.trim());
    ///             writeln!(client, "{known}")
    ///         })
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// The service cannot be prepared, is not an ordered pool, or cannot accept clients any more.
    pub fn ordered(
        mut self,
        mut serve: impl FnMut(&mut Client) -> io::Result<()>,
    ) -> Result<(), Error> {
        let silence = self.ipc_timeout()?;
        let log = self.log();
        if self.is_standard() {
            self.drop_privileges()?;
            return Ok(serve(&mut Client::standard(silence))?);
        }
        let (transport, mut worker) = self.begin_ordered(&STREAMS)?;
        let listeners = worker.listeners();
        let mut turn = 0;
        while worker.next_order()? {
            let connection = match accept_one(&listeners, &mut turn, &log)? {
                Accepted::Client(connection) => Some(connection),
                Accepted::Nobody => None,
                Accepted::ShutDown => break,
            };
            // Report even without a client (another child may have been faster): each order is
            // answered.
            let stays = worker.serve(|| {
                let Some(connection) = connection else {
                    return 0;
                };
                if let Some(arrival) = arrive(connection, transport, &log) {
                    serve_one(arrival, silence, &log, &mut serve);
                }
                1
            });
            if !stays {
                break;
            }
        }
        Ok(())
    }
}

/// Accepts a waiting client, if there is one. The search begins after the listener of the last
/// client, so that no listener starves.
fn accept_one(
    listeners: &[OwnedFd],
    turn: &mut usize,
    log: &Log,
) -> Result<Accepted<OwnedFd>, Error> {
    for at in (0..listeners.len()).map(|n| (*turn + n) % listeners.len()) {
        match connection(&listeners[at], log)? {
            Accepted::Nobody => {}
            accepted => {
                *turn = at + 1;
                return Ok(accepted);
            }
        }
    }
    Ok(Accepted::Nobody)
}

/// The source of orders: the status channel and two signals.
#[derive(Debug)]
pub(crate) struct Orders {
    assembler: Assembler,
    /// Signals that would end the process while it serves a client.
    signals: SignalFd,
}

/// The result of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Ordered,
    /// The master has ended, or a signal has arrived.
    ToldToLeave,
    /// The time is over.
    Retired,
}

impl Orders {
    fn new() -> io::Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        signals.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self {
            assembler: Assembler::default(),
            signals: SignalFd::with_flags(&signals, flags)?,
        })
    }

    /// Waits for an order, at most until `retire`. A pending order is executed before a signal:
    /// otherwise its client would have to wait for another child.
    fn wait(&mut self, status: &Status, retire: Option<Instant>) -> io::Result<Woken> {
        loop {
            let mut fds = [
                PollFd::new(status.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, timeout(retire)) {
                Ok(0) if retire.is_some_and(|at| at <= Instant::now()) => {
                    return Ok(Woken::Retired);
                }
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            if fds[0].any() == Some(false) {
                return Ok(Woken::ToldToLeave);
            }
            if let Some(woken) = self.read(status)? {
                return Ok(woken);
            }
        }
    }

    /// Reads a message. Pings are ignored.
    fn read(&mut self, status: &Status) -> io::Result<Option<Woken>> {
        let mut bytes = [0; SIZE];
        let channel = status.as_fd().as_raw_fd();
        let length = match recv(channel, &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(Some(Woken::ToldToLeave)),
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let Some(message) = self.assembler.take(&mut &bytes[..length]) else {
            return Ok(None);
        };
        match Order::decode(message) {
            Some(Order::Accept) => Ok(Some(Woken::Ordered)),
            Some(Order::Ping) => Ok(None),
            None => {
                let letter = message[0].escape_ascii();
                let what = format!("unknown order (it begins with \"{letter}\")");
                Err(io::Error::other(what))
            }
        }
    }
}

impl Worker<Orders> {
    /// Reports that the child is ready.
    pub(crate) fn begin_ordered(
        status: Status,
        listeners: Vec<OwnedFd>,
        limits: Limits,
        log: Log,
    ) -> Result<Self, Error> {
        let orders = Orders::new().map_err(Error::system("cannot wait for orders"))?;
        // A failure means that the master has ended; the next wait notices that, too.
        let _ = status.report(Availability::Available);
        Ok(Self::new(status, listeners, orders, limits, log))
    }

    /// Waits for an order to accept; false when it is time to leave.
    fn next_order(&mut self) -> Result<bool, Error> {
        let woken = self.waiting.wait(&self.status, self.limits.retire);
        match woken.map_err(Error::system("cannot wait for orders"))? {
            Woken::Ordered => return Ok(true),
            Woken::ToldToLeave => self.log.detail("dismissed by the master -- exiting"),
            Woken::Retired => self.log.detail("old enough -- exiting"),
        }
        Ok(false)
    }
}
