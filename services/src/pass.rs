//! Connections that another process passes (type `pass`; Postfix, `pass_accept.c`,
//! `recv_pass_attr.c`). That process connects and sends the client's descriptor and, if it is a
//! socket, the client's attributes: names and values that end with null bytes.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};

use crate::sys;

/// Maximum time for the process to send everything.
const TIMEOUT: Duration = Duration::from_secs(100);
/// Maximum size of the attributes, in bytes.
const ATTRIBUTES_MAX: usize = 64 * 1024;

/// A client that has been accepted or passed, and is not served yet.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) descriptor: OwnedFd,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Receives a passed client.
///
/// # Errors
/// The system's error; `TimedOut` when the process is too slow.
pub(crate) fn receive(connection: &OwnedFd) -> io::Result<Arrival> {
    let deadline = Instant::now() + TIMEOUT;
    wait(connection, deadline)?;
    let descriptor = sys::receive_descriptor(connection)?
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no descriptor was handed on"))?;
    // A pipe is a wake-up, and has no attributes.
    let attributes = if is_socket(&descriptor)? {
        attributes(connection, deadline)?
    } else {
        BTreeMap::new()
    };
    Ok(Arrival {
        descriptor,
        attributes,
    })
}

fn is_socket(descriptor: &OwnedFd) -> io::Result<bool> {
    let kind = SFlag::from_bits_truncate(fstat(descriptor)?.st_mode) & SFlag::S_IFMT;
    Ok(kind == SFlag::S_IFSOCK)
}

fn wait(connection: &OwnedFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reads the attributes up to the empty name that ends them.
fn attributes(connection: &OwnedFd, deadline: Instant) -> io::Result<BTreeMap<String, String>> {
    let mut text = Vec::new();
    loop {
        if let Some(attributes) = parse(&text) {
            return Ok(attributes);
        }
        if text.len() >= ATTRIBUTES_MAX {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "too much is said of a client",
            ));
        }
        wait(connection, deadline)?;
        let mut buffer = [0; 4096];
        match nix::unistd::read(connection, &mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The attributes, if they are complete. Some programs put them in braces.
fn parse(text: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut attributes = BTreeMap::new();
    let mut strings = text
        .split_inclusive(|&b| b == 0)
        .map(|s| s.strip_suffix(&[0]));
    loop {
        let name = String::from_utf8_lossy(strings.next()??);
        match &*name {
            "" => return Some(attributes),
            "{" | "}" => {}
            _ => {
                let value = String::from_utf8_lossy(strings.next()??);
                attributes.insert(name.into_owned(), value.into_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_end_with_an_empty_name() {
        let expected = BTreeMap::from([
            ("client_name".to_owned(), "host.test".to_owned()),
            ("client_port".to_owned(), String::new()),
        ]);
        let plain = b"client_name\0host.test\0client_port\0\0\0";
        assert_eq!(parse(plain), Some(expected.clone()));
        let braced = b"{\0client_name\0host.test\0client_port\0\0}\0\0";
        assert_eq!(parse(braced), Some(expected));
        assert_eq!(parse(b"\0"), Some(BTreeMap::new()));
    }

    #[test]
    fn an_end_that_has_not_come_yet_is_waited_for() {
        let whole = b"client_name\0host.test\0\0";
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
    }
}
