//! The client of a running master: its two sockets are below the queue directory.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use master::control::{self, Answer, Request};
use master::errors::describe_error;
use master::files::SocketPath;
use master::status::{self, Document};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{PeerCredentials, ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, getsockopt, recv, send,
    setsockopt, socket,
};
use nix::sys::time::TimeVal;

use crate::arguments::Arguments;
use crate::directory::Directory;
use crate::failure::{Failure, Status};
use crate::process;

/// Bytes of a reason that may follow an answer.
const REASON_MAX: usize = 4096;

/// Maximum time for an answer. A master normally answers at once, and later while it resolves
/// names.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(100);
/// Maximum size of a status document, in bytes.
const DOCUMENT_MAX: u64 = 256 << 20;

/// The client of the master that runs in a queue directory.
#[derive(Debug)]
pub struct MasterClient {
    queue: Directory,
    /// Maximum time for an answer.
    timeout: Duration,
}

/// A master's status.
#[derive(Debug)]
pub struct StatusReply {
    pub document: Document,
    /// The document, as received.
    pub text: String,
    /// The sender's process ID according to the kernel; 0 if the sender is in another PID
    /// namespace.
    pub pid: i32,
}

impl MasterClient {
    /// The master in the queue directory of the command line, or in the configuration's.
    ///
    /// # Errors
    /// The configuration does not name a queue directory.
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let queue = match &arguments.queue {
            Some(path) => Directory {
                path: path.clone(),
                doubt: None,
            },
            None => Directory::of(&arguments.location()?)?,
        };
        let timeout = ANSWER_TIMEOUT;
        Ok(Self { queue, timeout })
    }

    /// Sets another maximum time for an answer.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Requests the master's status.
    ///
    /// # Errors
    /// A [`Failure`].
    pub fn status(&self) -> Result<StatusReply> {
        // Other users' programs cannot delay the answer at the socket of the master's own user.
        let connection = self
            .connect(status::OWN_SOCKET, SockType::Stream)
            .or_else(|_| self.connect(status::SOCKET, SockType::Stream))?;
        let pid = getsockopt(&connection, PeerCredentials)?.pid();
        let mut text = String::new();
        let stream = UnixStream::from(connection);
        let read = stream.take(DOCUMENT_MAX).read_to_string(&mut text);
        read.map_err(|error| self.silent(&error))?;
        // Check the version first: another version may use the same fields with other meanings.
        let format: Format = serde_json::from_str(&text).map_err(|error| self.gone(&error))?;
        ensure!(
            format.format == status::FORMAT,
            "the master's status has format {}, and this masterctl reads format {}: use the \
             masterctl that belongs to the master",
            format.format,
            status::FORMAT
        );
        let document = serde_json::from_str(&text).context("the master's status")?;
        Ok(StatusReply {
            document,
            text,
            pid,
        })
    }

    /// Sends a request to the master.
    ///
    /// # Errors
    /// A [`Failure`], also when the master refuses the request.
    pub fn request(&self, request: Request) -> Result<()> {
        self.send(&request.encode())
    }

    /// Has another program go on in the master's place: this one, or the one by which it was started.
    ///
    /// # Errors
    /// A [`Failure`], also when that is not possible.
    pub fn upgrade(&self, program: Option<&Path>) -> Result<()> {
        let program = program.map(|path| path.as_os_str().as_bytes());
        self.send(&control::encode_upgrade(program))
    }

    fn send(&self, request: &[u8]) -> Result<()> {
        let connection = self.connect(control::SOCKET, SockType::SeqPacket)?;
        let fd = connection.as_raw_fd();
        let sent = send(fd, request, MsgFlags::MSG_NOSIGNAL);
        let mut message = [0; Answer::SIZE + REASON_MAX];
        // After a master has closed the connection, its answer can still be received.
        let received = match sent {
            Ok(_) | Err(Errno::EPIPE) => recv(fd, &mut message, MsgFlags::empty()),
            Err(errno) => Err(errno),
        };
        let length = received.map_err(|errno| self.silent(&io::Error::from(errno)))?;
        let (answer, reason) = message[..length].split_at(Answer::SIZE.min(length));
        let reason = String::from_utf8_lossy(reason);
        let answer = Answer::decode(answer);
        let answer = answer.ok_or_else(|| self.gone(&"an invalid answer"))?;
        match answer.refusal() {
            None => Ok(()),
            Some(why) => {
                let colon = if reason.is_empty() { "" } else { ": " };
                let why = format!("the master refuses: {why}{colon}{reason}");
                Err(Failure::new(Status::Refused, why).into())
            }
        }
    }

    /// The error that the master has ended during the command.
    pub fn gone(&self, why: &dyn std::fmt::Display) -> Failure {
        let queue = self.queue.path.display();
        let message = format!("the master in {queue} has ended, or does not answer: {why}");
        Failure::new(Status::Gone, message)
    }

    /// The error for a failed system call.
    fn silent(&self, error: &io::Error) -> Failure {
        match error.kind() {
            ErrorKind::WouldBlock => {
                let time = self.timeout.as_secs();
                let stopped = self.holder().filter(|pid| process::is_stopped(*pid));
                let reason = stopped.map(|pid| {
                    format!(": process {pid} is stopped: \"kill -CONT {pid}\" continues it")
                });
                let reason = reason.unwrap_or_default();
                self.gone(&format!("no answer within {time} s{reason}"))
            }
            _ => self.gone(&describe_error(error)),
        }
    }

    fn connect(&self, name: &str, kind: SockType) -> Result<OwnedFd> {
        let path = self.queue.path.join(name);
        let short = SocketPath::new(&path);
        let short = short.map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            self.cannot_connect(&path, errno)
        })?;
        let address = UnixAddr::new(short.as_path()).with_context(|| path.display().to_string())?;
        let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
        let timeout = TimeVal::new(self.timeout.as_secs() as i64, 0);
        setsockopt(&fd, ReceiveTimeout, &timeout)?;
        setsockopt(&fd, SendTimeout, &timeout)?;
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => Ok(fd),
            Err(errno) => Err(self.cannot_connect(&path, errno).into()),
        }
    }

    fn cannot_connect(&self, path: &Path, errno: Errno) -> Failure {
        let (queue, shown) = (self.queue.path.display(), path.display());
        let pid_directory = self.queue.path.join("pid");
        match errno {
            Errno::ENOENT | Errno::ENOTDIR if !pid_directory.is_dir() => self.no_master(
                Status::WrongDirectory,
                format!(
                    "{queue} is not a master's queue directory: name the configuration with -c, or \
                     the queue directory with --queue"
                ),
            ),
            Errno::ENOENT | Errno::ECONNREFUSED if self.holder().is_some() => Failure::new(
                Status::NoMaster,
                format!(
                    "the master in {queue} has no {shown}: it is Postfix's own, or could not make \
                     it and has said why in its log; if the socket was removed, a stop and a start \
                     make it again"
                ),
            ),
            Errno::ENOENT | Errno::ECONNREFUSED => {
                self.no_master(Status::NoMaster, format!("no master runs in {queue}"))
            }
            Errno::EACCES | Errno::EPERM => Failure::new(
                Status::Forbidden,
                format!(
                    "{shown}: permission denied: ask as root, or as the user that runs the master"
                ),
            ),
            Errno::EAGAIN => self.silent(&errno.into()),
            errno => {
                let error = io::Error::from(errno);
                Failure::new(Status::Gone, format!("{shown}: {}", describe_error(&error)))
            }
        }
    }

    /// The error that no master runs here. If the configuration has errors, they may be the reason.
    fn no_master(&self, status: Status, message: String) -> Failure {
        let message = match &self.queue.doubt {
            None => message,
            Some(finding) => format!(
                "{message}; or it is elsewhere, for the configuration cannot be read: {finding}: \
                 correct it, or name the queue directory with --queue"
            ),
        };
        Failure::new(status, message)
    }

    /// The process that has the master's lock in this directory. This does not take the lock, because a
    /// master that starts at the same time would fail.
    fn holder(&self) -> Option<i32> {
        let file = fs::metadata(self.queue.path.join("pid/master.pid")).ok()?;
        // In proc_locks(5), a lock's file is written as MAJOR:MINOR:INODE.
        let inode = format!(":{}", file.ino());
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let mut locks = locks.lines().map(str::split_whitespace);
        locks.find_map(|mut words| {
            // NUMBER: FLOCK ADVISORY WRITE PID FILE ...
            words.nth(1).filter(|kind| *kind == "FLOCK")?;
            let pid = words.nth(2)?.parse().ok()?;
            words.next()?.ends_with(&inode).then_some(pid)
        })
    }
}

/// The part of the document that is the same in all versions.
#[derive(serde_derive::Deserialize)]
struct Format {
    format: u32,
}

/// Repeats an attempt until it returns a value, for as long as a master may take.
///
/// # Errors
/// The attempt's error, or no value in time.
pub fn wait_for<T>(mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            let message = format!(
                "the master has not done it within {} s",
                ANSWER_TIMEOUT.as_secs()
            );
            return Err(Failure::new(Status::Gone, message).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::calm;
    use master::config::{Diagnostic, Severity};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use tempfile::TempDir;
    use testkit::instance::SOON;
    use testkit::poll::until;

    /// A queue directory with a socket, and a client that waits for at most one second.
    fn client() -> (TempDir, UnixListener, MasterClient) {
        let queue = tempfile::tempdir().expect("a directory");
        fs::create_dir(queue.path().join("pid")).expect("a directory");
        let listener = UnixListener::bind(queue.path().join(status::SOCKET)).expect("a socket");
        let client = MasterClient {
            queue: Directory {
                path: queue.path().to_owned(),
                doubt: None,
            },
            timeout: Duration::from_secs(1),
        };
        (queue, listener, client)
    }

    /// The result of a status request when the master sends `bytes`.
    fn told(bytes: Vec<u8>) -> Result<StatusReply> {
        let (_queue, listener, client) = client();
        let master = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.write_all(&bytes).expect("a reader");
        });
        let result = client.status();
        master.join().expect("an end");
        result
    }

    #[test]
    fn the_document_is_what_the_master_says() {
        let text = serde_json::to_vec(&calm()).expect("JSON");
        assert_eq!(told(text).expect("a document").document, calm());
    }

    #[test]
    fn what_is_cut_off_or_of_another_format_is_no_document() {
        let error = |bytes| format!("{:#}", told(bytes).expect_err("no document"));
        assert!(error(Vec::new()).contains("has ended, or does not answer"));
        assert!(error(b"{\"format\": 1".to_vec()).contains("has ended, or does not answer"));
        let mut later = calm();
        later.format = status::FORMAT + 1;
        let text = serde_json::to_vec(&later).expect("JSON");
        assert!(error(text).contains("use the masterctl that belongs to the master"));
    }

    #[test]
    fn a_master_that_does_not_answer_is_not_waited_for() {
        let (_queue, _listener, client) = client();
        let error = client.status().expect_err("silence").to_string();
        assert!(
            error.ends_with("does not answer: no answer within 1 s"),
            "{error}"
        );
    }

    #[test]
    fn a_master_that_is_stopped_is_told_from_one_that_has_ended() {
        let (queue, _listener, client) = client();
        let lock = queue.path().join("pid/master.pid");
        let mut command = Command::new("flock");
        let mut master = command
            .arg("--no-fork")
            .arg(lock)
            .args(["sleep", "600"])
            .spawn()
            .expect("flock(1)");
        let pid = master.id() as i32;
        until(SOON, "the lock", || client.holder() == Some(pid));
        kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("a child");
        until(SOON, "its stop", || process::is_stopped(pid));
        let error = client.status().expect_err("silence").to_string();
        master
            .kill()
            .and_then(|()| master.wait().map(drop))
            .expect("its end");
        let words =
            format!("within 1 s: process {pid} is stopped: \"kill -CONT {pid}\" continues it");
        assert!(error.ends_with(&words), "{error}");
    }

    #[test]
    fn without_a_master_the_mistake_is_told_that_may_be_why() {
        let (_queue, listener, mut client) = client();
        drop(listener);
        let failure = |client: &MasterClient| client.status().expect_err("no master").to_string();
        assert!(!failure(&client).contains("elsewhere"));
        client.queue.doubt = Some(Diagnostic {
            severity: Severity::Error,
            path: "/etc/x/master.toml".into(),
            position: None,
            message: "expected UTF-8".into(),
        });
        let told = failure(&client);
        assert!(told.starts_with("no master runs in /"), "{told}");
        assert!(
            told.contains("/etc/x/master.toml: expected UTF-8"),
            "{told}"
        );
    }
}
