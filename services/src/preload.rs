//! The template of a preloaded service: it loads once, and forks a child whenever the master orders it
//! (`man/master-protocol.7`).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use master::errors::describe_error;
use master::protocol::template::{HELLO, KNOWN, LINE_MAX, Order, READY, SIZE, SOCKET};

use crate::service::Inherited;
use crate::status::Status;
use crate::{Error, Service, sys};

/// The socket through which children become known, if this process is a template.
///
/// # Errors
/// The variable is not what the master sets, or the descriptor is not open.
pub(crate) fn socket() -> Result<Option<OwnedFd>, Error> {
    let Some(path) = std::env::var_os(SOCKET) else {
        return Ok(None);
    };
    let number = Path::new(&path).strip_prefix("/proc/self/fd").ok();
    let number = number.and_then(|number| number.to_str()?.parse::<RawFd>().ok());
    let number = number.ok_or_else(|| {
        let path = path.to_string_lossy();
        Error::Usage(format!(
            "bad {SOCKET}: {path}: expected /proc/self/fd/NUMBER"
        ))
    })?;
    let what = format!("descriptor {number} from the master");
    sys::inherit(number).map(Some).map_err(Error::system(what))
}

impl Service {
    /// Makes the process that was started the template of its service, from which the master has its
    /// children forked, and returns in each child. What is loaded before this call is loaded once, and
    /// the children share its memory. The template never returns: it ends with the master, or when a
    /// reload has another one take its place.
    ///
    /// The master's file `master.toml` asks for it:
    ///
    /// ```toml
    /// [service."127.0.0.1:7000/inet"]
    /// preload = true
    /// ```
    ///
    /// Without that line this call has no effect, so that the program can be used in both ways. A
    /// method that serves follows; with `accept = "ordered"` that is [`ordered`](Self::ordered).
    ///
    /// ```no_run
    /// use std::collections::HashSet;
    /// use std::io::{BufRead, BufReader, Write};
    /// use std::process::ExitCode;
    ///
    /// fn main() -> ExitCode {
    ///     services::run(|mut service| {
    ///         let words = std::fs::read_to_string("/usr/share/dict/words")?;
    ///         let words: HashSet<&str> = words.lines().collect();
    ///         service.preload()?;
    ///         service.single(|client| {
    ///             let mut line = String::new();
    ///             BufReader::new(&*client).read_line(&mut line)?;
    ///             let known = words.contains(line.trim());
    ///             writeln!(client, "{known}")
    ///         })
    ///     })
    /// }
    /// ```
    ///
    /// Privileges are given up after this call, in each child. Threads are not copied, and neither are
    /// their locks released: start them after this call. Children share the connections that were made
    /// before it.
    ///
    /// # Errors
    /// The process has threads, or the master cannot be reached.
    pub fn preload(&mut self) -> Result<(), Error> {
        let Some(inherited) = self.inherited() else {
            return Ok(());
        };
        let Some(socket) = inherited.template.take() else {
            return Ok(());
        };
        let (order, connection) = inherited.fork_children(&socket)?;
        let status = Status::of_child(connection.into(), order.generation, order.ordered);
        self.forked(status, order.stress);
        Ok(())
    }
}

impl Inherited {
    /// Forks children on order. Returns in each child, with its order and its channel.
    fn fork_children(&self, socket: &OwnedFd) -> Result<(Order, UnixStream), Error> {
        let lost = || Error::system("cannot talk to the master");
        let channel = self.status.try_clone().map_err(lost())?;
        let mut master = UnixStream::from(channel);
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        // A program that has begun threads is to fail now, and not with the first client.
        sys::require_one_thread().map_err(Error::system("cannot fork children"))?;
        say(&mut master, "ready").map_err(lost())?;
        let mut orders = BufReader::new(master.try_clone().map_err(lost())?);
        loop {
            let mut line = String::new();
            let length = (&mut orders).take(LINE_MAX as u64).read_line(&mut line);
            if length.map_err(lost())? == 0 {
                // The master has ended, or has another template.
                std::process::exit(0);
            }
            let Some(order) = Order::decode(line.trim_end()) else {
                let line = line.trim_end().escape_debug();
                return Err(Error::Other(format!("unknown order: {line}").into()));
            };
            let forked = UnixStream::connect(&path)
                .and_then(|connection| Ok((sys::fork_sibling()?, connection)));
            match forked {
                Ok((true, connection)) => return Ok((order, become_known(connection))),
                Ok((false, _)) => say(&mut master, "forked"),
                Err(error) => say(&mut master, &format!("failed {}", describe_error(&error))),
            }
            .map_err(lost())?;
        }
    }
}

/// Writes a line of the template.
fn say(master: &mut UnixStream, line: &str) -> io::Result<()> {
    // The newline has its place, too.
    let line: Vec<u8> = line.bytes().take(LINE_MAX - 1).chain([b'\n']).collect();
    master.write_all(&line)
}

/// Has the master know this process, of which the connection is the channel from then on. A child that
/// the master does not want ends.
fn become_known(mut connection: UnixStream) -> UnixStream {
    let mut answer = [0; SIZE];
    let known = connection
        .write_all(&HELLO)
        .and_then(|()| connection.read_exact(&mut answer))
        .and_then(|()| match answer {
            KNOWN => connection.write_all(&READY),
            _ => Err(io::ErrorKind::InvalidData.into()),
        })
        .and_then(|()| connection.set_nonblocking(true));
    if known.is_err() {
        sys::leave();
    }
    connection
}
