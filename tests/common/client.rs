//! Clients of a service.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::instance::SOON;
use super::poll::until;

/// A connection to a service, where lines are spoken.
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
        let stream = match address.contains('/') {
            // Nothing that we do with a stream depends on its family.
            true => TcpStream::from(OwnedFd::from(UnixStream::connect(address)?)),
            false => TcpStream::connect(address)?,
        };
        stream.set_read_timeout(Some(SOON))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// The next line that the service says, empty at its end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.try_line().expect("a line")
    }

    pub fn try_line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// The next line, unless it takes longer than this.
    pub fn line_within(&mut self, limit: Duration) -> Option<String> {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(limit)).expect("a time limit");
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(SOON)).expect("a time limit");
        matches!(read, Ok(1..)).then(|| line.trim_end().to_owned())
    }

    /// Says a line.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        self.try_say(line).expect("a listener");
    }

    pub fn try_say(&mut self, line: &str) -> std::io::Result<()> {
        let text = format!("{line}\r\n");
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// Waits for the service to close the connection.
    #[track_caller]
    pub fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the end");
    }
}

/// Asserts that a mail server greets who connects.
#[track_caller]
pub fn expect_greeting(address: &str) -> Client {
    let mut client = Client::connect(address);
    let greeting = client.line();
    assert!(greeting.starts_with("220 "), "{address} says {greeting:?}");
    client
}

/// Waits until nobody listens at an address: a child that has the listener may take a moment to
/// leave.
#[track_caller]
pub fn expect_refusal(address: &str) {
    until(SOON, format_args!("{address} to be refused"), || {
        let refused = TcpStream::connect(address).err().map(|why| why.kind());
        refused == Some(ErrorKind::ConnectionRefused)
    });
}
