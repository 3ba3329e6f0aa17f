//! Clients of a service.

use std::io::{BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::instance::SOON;
use crate::poll::until;

/// A connection to a service that sends and receives lines.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects to an address and port, or to a path.
    #[track_caller]
    pub fn connect(address: &str) -> Self {
        Self::try_connect(address).unwrap_or_else(|why| panic!("{address}: {why}"))
    }

    pub fn try_connect(address: &str) -> std::io::Result<Self> {
        if address.contains('/') {
            Self::on(UnixStream::connect(address)?.into())
        } else {
            Self::on(TcpStream::connect(address)?.into())
        }
    }

    /// A client on an existing connection.
    pub fn on(connection: OwnedFd) -> std::io::Result<Self> {
        // The type does not matter: all stream operations are the same for all families.
        let stream = TcpStream::from(connection);
        stream.set_read_timeout(Some(SOON))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// The next line from the service; empty at end of file.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.try_line().expect("a line")
    }

    /// The next line, or an error when the connection breaks or times out.
    pub fn try_line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// The next line; `None` if it takes longer than this.
    pub fn line_within(&mut self, limit: Duration) -> Option<String> {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(limit)).expect("a time limit");
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(SOON)).expect("a time limit");
        matches!(read, Ok(1..)).then(|| line.trim_end().to_owned())
    }

    /// Sends a line.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        self.try_say(line).expect("a listener");
    }

    /// Sends a line, or returns an error when the connection breaks.
    pub fn try_say(&mut self, line: &str) -> std::io::Result<()> {
        let text = format!("{line}\r\n");
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// Sends no more, and waits until the service closes the connection.
    #[track_caller]
    pub fn finish(mut self) {
        let said = self.stream.get_ref().shutdown(Shutdown::Write);
        said.expect("a connection");
        self.wait_for_end();
    }

    /// Waits until the service closes the connection.
    #[track_caller]
    pub fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the end");
    }
}

/// A client of a service that sends the process ID of the child and then what the client has said: the
/// child, if it has served the client completely.
pub fn talk(address: &str) -> Option<i32> {
    let mut client = Client::try_connect(address).ok()?;
    client.try_say("hello").ok()?;
    let child = client.try_line().ok()?.parse().ok()?;
    (client.try_line().ok()? == "hello").then_some(child)
}

/// Passes a connection to a service of type pass at a path, with attributes. Returns the other end
/// of the connection to that service.
#[track_caller]
pub fn hand_on(path: &str, connection: UnixStream, attributes: &[&str]) -> UnixStream {
    let mut service = UnixStream::connect(path).expect("a listener");
    let rights = [connection.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&rights)];
    let byte = [IoSlice::new(&[0])];
    sendmsg::<()>(service.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None).expect("a reader");
    let attributes = [attributes, &["", ""]].concat().join("\0");
    service.write_all(attributes.as_bytes()).expect("a reader");
    service
}

/// Asserts that a mail server greets its client.
#[track_caller]
pub fn expect_greeting(address: &str) -> Client {
    let mut client = Client::connect(address);
    let greeting = client.line();
    assert!(greeting.starts_with("220 "), "{address} says {greeting:?}");
    client
}

/// Waits until connections to an address are refused: a child that has the listener may need some
/// time to leave.
#[track_caller]
pub fn expect_refusal(address: &str) {
    until(SOON, format_args!("{address} to be refused"), || {
        let refused = TcpStream::connect(address).err().map(|why| why.kind());
        refused == Some(ErrorKind::ConnectionRefused)
    });
}
