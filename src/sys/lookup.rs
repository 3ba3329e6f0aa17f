//! Host names, looked up by a process of its own: the resolver may wait for the network, and can
//! neither be asked to be quick nor be interrupted.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use nix::sys::prctl;

use super::{detached, privilege, process};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Whether only root can change a file. The answer has no addresses.
    File(PathBuf),
    Host(String),
}

impl Question {
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// A host's addresses in the resolver's order, or its words on why there are none.
pub type Answer = Result<Vec<IpAddr>, String>;

/// More than this is not taken of all answers together.
const ANSWERS_MAX: u64 = 1024 * 1024;

/// Host names that are being looked up. When this is dropped, the other process ends.
#[derive(Debug)]
pub struct Lookup {
    questions: Vec<Question>,
    connection: UnixStream,
    /// A line for each host, in their order, as far as they have come.
    answers: Vec<u8>,
}

impl Lookup {
    /// Has these looked up by `resolve`, one after the other.
    ///
    /// # Errors
    /// The system's: there can be no such process.
    pub fn start(questions: Vec<Question>, resolve: fn(&Question) -> Answer) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        detached::run(|| look_up(&questions, resolve, theirs))?;
        Ok(Self {
            questions,
            connection: ours,
            answers: Vec::new(),
        })
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

    /// What is being looked up.
    pub fn current(&self) -> Option<&Question> {
        let answered = self.answers.iter().filter(|&&byte| byte == b'\n').count();
        self.questions.get(answered)
    }

    /// The answers, where those that have not come are `missing`.
    pub fn into_answers(self, missing: &str) -> BTreeMap<Question, Answer> {
        let mut lines = self.answers.split_inclusive(|&byte| byte == b'\n');
        let questions = self.questions.into_iter();
        let answers = questions.map(|question| {
            let answer = lines
                .next()
                .and_then(|line| serde_json::from_slice(line).ok());
            (question, answer.unwrap_or_else(|| Err(missing.to_owned())))
        });
        answers.collect()
    }
}

impl AsFd for Lookup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// What the other process does, for host names without root's rights: the C library reads what a name
/// server sends. It leaves when its answers are not wanted any more, which the end of the connection
/// tells: also where the resolver still waits, and where the master has died. Signals remain blocked,
/// so that it does not get those that are for the whole process group.
fn look_up(questions: &[Question], resolve: fn(&Question) -> Answer, mut connection: UnixStream) {
    let fd = connection.as_raw_fd();
    // SAFETY: this process is a copy that never goes back to the values which own these descriptors.
    unsafe { process::keep_only([fd]) };
    if !questions.iter().any(Question::is_file) {
        privilege::become_nobody();
    }
    // A signal to all processes with the master's name is not for this one.
    let _kept = prctl::set_name(c"names");
    let watched = connection.try_clone().and_then(|mut end| {
        thread::Builder::new().spawn(move || {
            let _end = end.read(&mut [0]);
            process::leave(0)
        })
    });
    if watched.is_ok() {
        let mut answers = questions.iter().map(|question| line(resolve(question)));
        // An error is the end, which the other thread finds, too.
        let _ = answers.try_for_each(|answer| connection.write_all(&answer));
    }
}

/// An answer on its way. Its form has no line end in it.
fn line(answer: Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::wait_until_readable;
    use crate::sys::testing::in_own_process;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(60);

    fn host(name: &str) -> Question {
        Question::Host(name.to_owned())
    }

    /// Knows two hosts.
    fn resolve(question: &Question) -> Answer {
        let Question::Host(host) = question else {
            return Ok(Vec::new());
        };
        match host.as_str() {
            "a" => Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
            "b" => Ok(Vec::new()),
            other => Err(format!("{other}:\nno such host")),
        }
    }

    #[test]
    fn what_another_process_finds_arrives_with_its_words() {
        let name = "sys::lookup::tests::what_another_process_finds_arrives_with_its_words";
        if !in_own_process(name) {
            return;
        }
        let hosts = ["a", "b", "c", "a"].map(host).to_vec();
        let mut lookup = Lookup::start(hosts, resolve).unwrap();
        while !lookup.read().unwrap() {
            assert!(wait_until_readable(lookup.as_fd(), SOON));
        }
        let answers = lookup.into_answers("none came");
        for name in ["a", "b", "c"].map(host) {
            assert_eq!(answers[&name], resolve(&name));
        }
    }

    #[test]
    fn what_was_not_answered_is_missing() {
        let (connection, other) = UnixStream::pair().unwrap();
        let mut lookup = Lookup {
            questions: ["a", "b", "c"].map(host).to_vec(),
            connection,
            answers: Vec::new(),
        };
        (&other).write_all(&line(resolve(&host("a")))).unwrap();
        (&other).write_all(b"what?\n{\"Ok\":[").unwrap();
        assert_eq!(lookup.current(), Some(&host("a")));
        drop(other);
        assert!(lookup.read().unwrap());
        assert_eq!(lookup.current(), Some(&host("c")));
        let answers = lookup.into_answers("no answer");
        assert_eq!(answers[&host("a")], resolve(&host("a")));
        assert_eq!(answers[&host("b")], Err("no answer".to_owned()));
        assert_eq!(answers[&host("c")], Err("no answer".to_owned()));
    }
}
