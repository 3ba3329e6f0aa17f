//! Host names, looked up by a process of its own: the resolver may wait for the network, and can
//! neither be asked to be quick nor be interrupted.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;

use nix::sys::prctl;

use super::detached::{self, Side};
use super::{names, process};

/// A host's addresses in the resolver's order, or its words on why there are none.
pub type Answer = Result<Vec<IpAddr>, String>;

/// More than this is not taken of all answers together.
const ANSWERS_MAX: u64 = 1024 * 1024;
/// What stands before the words of an answer that is no address.
const FAILED: char = '!';

/// Host names that are being looked up. When this is dropped, nobody looks any more.
#[derive(Debug)]
pub struct Lookup {
    hosts: Vec<String>,
    connection: UnixStream,
    /// A line for each host, in their order, as far as they have come.
    answers: Vec<u8>,
}

impl Lookup {
    /// Has these looked up, one after the other.
    ///
    /// # Errors
    /// The system's: there can be no such process.
    pub fn start(hosts: Vec<String>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        match detached::copy()? {
            Side::Copy => look_up(hosts, theirs),
            Side::Original => Ok(Self {
                hosts,
                connection: ours,
                answers: Vec::new(),
            }),
        }
    }

    /// Takes what has been answered, and tells whether that is all there will be.
    ///
    /// # Errors
    /// The system's: there will be no more.
    pub fn read(&mut self) -> io::Result<bool> {
        let room = ANSWERS_MAX.saturating_sub(self.answers.len() as u64);
        match (&self.connection).take(room).read_to_end(&mut self.answers) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The host that is being looked up.
    pub fn current(&self) -> Option<&str> {
        let answered = self.answers.iter().filter(|&&byte| byte == b'\n').count();
        self.hosts.get(answered).map(String::as_str)
    }

    /// The answers, where those that have not come are `missing`.
    pub fn into_answers(self, missing: &str) -> BTreeMap<String, Answer> {
        let text = String::from_utf8_lossy(&self.answers).into_owned();
        let mut lines = text.split_inclusive('\n');
        let hosts = self.hosts.into_iter();
        let answers = hosts.map(|host| {
            let line = lines.next().and_then(|line| line.strip_suffix('\n'));
            let answer = line.and_then(decode);
            (host, answer.unwrap_or_else(|| Err(missing.to_owned())))
        });
        answers.collect()
    }
}

impl AsFd for Lookup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// What the other process does. It leaves when its answers are not wanted any more, which the end
/// of the connection tells: also where the resolver still waits, and where the master has died.
/// Signals remain blocked, so that what is for the whole process group does not meet it.
fn look_up(hosts: Vec<String>, mut connection: UnixStream) -> ! {
    let fd = connection.as_raw_fd();
    // SAFETY: this process is a copy that never goes back to the values which own these descriptors.
    unsafe {
        process::close_range(3, fd - 1);
        process::close_range(fd + 1, RawFd::MAX);
    }
    // Otherwise who signals masters by name would mean this, too.
    let _kept = prctl::set_name(c"names");
    let answering = connection.try_clone().and_then(|mut answers| {
        thread::Builder::new().spawn(move || {
            for host in &hosts {
                let answer = encode(names::host(host));
                if answers.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
            answers.shutdown(Shutdown::Write)
        })
    });
    if answering.is_ok() {
        let _end = connection.read(&mut [0]);
    }
    process::leave()
}

fn encode(answer: Answer) -> String {
    let words = match answer {
        Ok(addresses) => {
            let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            addresses.join(" ")
        }
        Err(words) => format!("{FAILED}{}", words.replace('\n', " ")),
    };
    words + "\n"
}

fn decode(line: &str) -> Option<Answer> {
    if let Some(words) = line.strip_prefix(FAILED) {
        return Some(Err(words.to_owned()));
    }
    let addresses = line.split_whitespace().map(str::parse);
    addresses.collect::<Result<_, _>>().ok().map(Ok)
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::sys::testing::in_own_process;

    /// Thousandths of a second.
    const SOON: u16 = 60_000;

    fn all(hosts: &[&str]) -> BTreeMap<String, Answer> {
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut lookup = Lookup::start(hosts).unwrap();
        while !lookup.read().unwrap() {
            let mut fds = [PollFd::new(lookup.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(SOON)), Ok(1));
        }
        lookup.into_answers("none came")
    }

    #[test]
    fn a_hosts_addresses_are_found() {
        if !in_own_process("sys::lookup::tests::a_hosts_addresses_are_found") {
            return;
        }
        let answers = all(&["localhost"]);
        let addresses = answers["localhost"].as_ref().unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        assert!(!addresses.is_empty());
    }

    #[test]
    fn a_host_without_an_address_keeps_no_other_from_having_one() {
        if !in_own_process(
            "sys::lookup::tests::a_host_without_an_address_keeps_no_other_from_having_one",
        ) {
            return;
        }
        let answers = all(&["no host", "localhost"]);
        let words = answers["no host"].as_ref().unwrap_err();
        assert_ne!(words, "none came");
        assert!(answers["localhost"].is_ok());
    }

    #[test]
    fn what_was_not_answered_is_missing() {
        let (connection, other) = UnixStream::pair().unwrap();
        let mut lookup = Lookup {
            hosts: ["a", "b", "c"].map(str::to_owned).to_vec(),
            connection,
            answers: Vec::new(),
        };
        (&other).write_all(b"127.0.0.1 ::1\nwhat?\n127.0").unwrap();
        assert_eq!(lookup.current(), Some("a"));
        drop(other);
        assert!(lookup.read().unwrap());
        assert_eq!(lookup.current(), Some("c"));
        let answers = lookup.into_answers("no answer");
        let both = ["127.0.0.1", "::1"].map(|address| address.parse().unwrap());
        assert_eq!(answers["a"], Ok(both.to_vec()));
        assert_eq!(answers["b"], Err("no answer".to_owned()));
        assert_eq!(answers["c"], Err("no answer".to_owned()));
    }

    #[test]
    fn what_is_written_can_be_read() {
        for answer in [
            Ok(vec![]),
            Ok(vec![
                "192.0.2.1".parse().unwrap(),
                "2001:db8::1".parse().unwrap(),
            ]),
            Err("no such host".to_owned()),
        ] {
            let line = encode(answer.clone());
            assert_eq!(decode(line.trim_end_matches('\n')), Some(answer));
        }
        assert_eq!(encode(Err("two\nlines".to_owned())), "!two lines\n");
    }
}
