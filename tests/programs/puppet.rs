//! A child of the master that executes a test's commands.
//!
//! With the argument `control=PATH` it connects to that socket and writes `pid N`, `generation
//! OCTAL`, one `arg TEXT` for each argument, and `ready`. Then it executes commands, one per line,
//! and answers each with `ok`, `ok TEXT` or `error TEXT`. It leaves when its status channel becomes
//! readable, as children must, or when the test has ended.
//!
//! Bytes are written in hexadecimal. The commands are the arms of [`Puppet::command`].
//!
//! With `tally=PATH` it appends one byte to that file and leaves: a short-lived child that is
//! counted. With `once` beside it, it first accepts a client, if one waits, and reports nothing.
//!
//! With `serve` it serves one client after the other, like a daemon: it sends its process ID, waits
//! for a line, and sends `done`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, IoSliceMut, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use master::protocol::{GENERATION, LISTEN, STATUS, StatusReport};
use nix::errno::Errno;
use nix::libc::{TIOCOUTQ, c_int, ioctl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, Signal, raise, signal};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, Shutdown, accept, getsockopt, recvmsg, shutdown, sockopt,
};
use nix::unistd::{ForkResult, close, fork, getpid, getppid, write};

/// Maximum time of a command, in milliseconds.
const TIMEOUT: u16 = 10_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let found = arguments.iter().find_map(|text| text.strip_prefix(name));
        found.map(str::to_owned)
    };
    if let Some(path) = option("tally=") {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        if arguments.iter().any(|text| text == "once") {
            let _ = accept(LISTEN);
        }
        return Ok(file.write_all(b".")?);
    }
    if arguments.iter().any(|text| text == "serve") {
        return serve();
    }
    let path = option("control=").context("control=PATH, tally=PATH or serve is needed")?;
    let Ok(control) = UnixStream::connect(&path) else {
        return Ok(()); // the test is over
    };
    Puppet::new(control, &arguments)?.obey()
}

/// Serves until the status channel is readable, or broken.
fn serve() -> Result<()> {
    // SAFETY: the master opened both for this process, which never closes them.
    let [listener, status] = unsafe { [LISTEN, STATUS].map(|fd| BorrowedFd::borrow_raw(fd)) };
    loop {
        let mut ready = [status, listener].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut ready, PollTimeout::NONE)?;
        if ready[0].any() == Some(true) {
            return Ok(());
        }
        let client = match accept(LISTEN) {
            // SAFETY: accept(2) has just returned it, so nothing else owns it.
            Ok(client) => unsafe { File::from_raw_fd(client) },
            // Another child was faster, or the client has disconnected.
            Err(Errno::EAGAIN | Errno::ECONNABORTED) => continue,
            Err(why) => return Err(why.into()),
        };
        // If the master does not read, the child is told to leave, which is checked above. A lost
        // client is not an error.
        let _ = report("taken");
        let _ = attend(client);
        let _ = report("available");
    }
}

fn attend(mut client: File) -> Result<()> {
    client.write_all(format!("{}\n", getpid()).as_bytes())?;
    let mut byte = [0];
    while byte != *b"\n" {
        client.read_exact(&mut byte)?;
    }
    Ok(client.write_all(b"done\n")?)
}

struct Puppet {
    control: UnixStream,
    commands: BufReader<UnixStream>,
    /// The listeners are descriptors 6 to 6 + `listeners` - 1.
    listeners: i32,
    client: Option<BufReader<File>>,
    /// The descriptor that a client of type pass has sent.
    passed: Option<File>,
    /// Whether it ignores that the status channel is readable.
    stays: bool,
}

impl Puppet {
    fn new(mut control: UnixStream, arguments: &[String]) -> Result<Self> {
        let sockets = arguments.iter().position(|text| text == "-s");
        let listeners = match sockets.and_then(|at| arguments.get(at + 1)) {
            Some(number) => number.parse().context("-s")?,
            None => 1,
        };
        let mut text = format!("pid {}\n", getpid());
        text += &format!("generation {}\n", std::env::var(GENERATION)?);
        for argument in arguments {
            text += &format!("arg {argument}\n");
        }
        control.write_all((text + "ready\n").as_bytes())?;
        Ok(Self {
            commands: BufReader::new(control.try_clone()?),
            control,
            listeners,
            client: None,
            passed: None,
            stays: false,
        })
    }

    fn obey(&mut self) -> Result<()> {
        loop {
            // A command may have closed the status channel; poll(2) then reports POLLNVAL.
            // SAFETY: the descriptor is borrowed only within this block, and nothing closes it
            // there.
            let status = unsafe { BorrowedFd::borrow_raw(STATUS) };
            let mut ready = vec![PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
            if !self.stays {
                ready.push(PollFd::new(status, PollFlags::POLLIN));
            }
            match poll(&mut ready, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let told = |fd: &PollFd| {
                let events = fd.revents().unwrap_or(PollFlags::empty());
                events.intersects(PollFlags::POLLIN | PollFlags::POLLHUP)
            };
            if ready.get(1).is_some_and(told) {
                return Ok(());
            }
            if told(&ready[0]) && !self.obey_commands()? {
                return Ok(());
            }
        }
    }

    /// Executes all pending commands; false when the test has ended.
    fn obey_commands(&mut self) -> Result<bool> {
        loop {
            let mut line = String::new();
            if self.commands.read_line(&mut line)? == 0 {
                return Ok(false);
            }
            let answer = match self.command(line.trim_end()) {
                Ok(text) => format!("ok {text}"),
                Err(why) => format!("error {why:#}"),
            };
            writeln!(self.control, "{}", answer.trim_end())?;
            if self.commands.buffer().is_empty() {
                return Ok(true);
            }
        }
    }

    fn command(&mut self, line: &str) -> Result<String> {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "accept" => self.accept()?,
            "read" => {
                let client = self.client.as_mut().context("no client")?;
                let mut line = String::new();
                client.read_line(&mut line)?;
                return Ok(line.trim_end().to_owned());
            }
            "write" => {
                let client = self.client.as_mut().context("no client")?;
                writeln!(client.get_mut(), "{argument}")?;
            }
            "receive" => {
                let client = self.client.as_mut().context("no client")?;
                return receive(client.get_mut());
            }
            "adopt" => {
                let client = self.client.as_mut().context("no client")?;
                let passed = passed_descriptor(client.get_ref())?;
                self.passed = Some(passed);
            }
            "receive-passed" => return receive(self.passed.as_mut().context("nothing passed")?),
            "is-open" => {
                let client = self.client.as_ref().context("no client")?.get_ref();
                return is_open(self.passed.as_ref().unwrap_or(client));
            }
            "hangup" => {
                self.client = None;
                self.passed = None;
            }
            "receive-from" => return receive(&mut borrowed(argument.parse()?)),
            "send-to" => {
                let (number, hex) = argument.split_once(' ').context("what?")?;
                borrowed(number.parse()?).write_all(&bytes(hex)?)?;
            }
            "fill" => return fill(argument.parse()?),
            "option" => return option_of(LISTEN, argument),
            "report" => report(argument)?,
            "heard" => heard()?,
            "raw" => raw(&bytes(argument)?)?,
            "stay" => self.stays = true,
            "dismissal" => dismissal()?,
            "shutdown" => shutdown(argument.parse::<RawFd>()?, Shutdown::Both)?,
            "stop-reading" => shutdown(argument.parse::<RawFd>()?, Shutdown::Read)?,
            "close" => close(argument.parse::<RawFd>()?)?,
            "exit" => exit(argument.parse()?),
            "die" => raise(Signal::from_str(argument)?)?,
            "grandchild" => return grandchild(&bytes(argument)?, false),
            "orphan" => return grandchild(&bytes(argument)?, true),
            "block" => {
                let mut signals = SigSet::empty();
                signals.add(Signal::from_str(argument)?);
                signals.thread_block()?;
            }
            "ignore" => {
                // SAFETY: this installs no handler.
                unsafe { signal(Signal::from_str(argument)?, SigHandler::SigIgn)? };
            }
            _ => bail!("what is {verb:?}?"),
        }
        Ok(String::new())
    }

    /// Accepts one client from any listener.
    fn accept(&mut self) -> Result<()> {
        let listeners: Vec<RawFd> = (LISTEN..LISTEN + self.listeners).collect();
        let mut ready: Vec<PollFd> = listeners
            .iter()
            // SAFETY: the master opened them for this process; only a test's command `close` closes
            // them.
            .map(|fd| PollFd::new(unsafe { BorrowedFd::borrow_raw(*fd) }, PollFlags::POLLIN))
            .collect();
        poll(&mut ready, TIMEOUT)?;
        let waiting = ready.iter().position(|fd| fd.any() == Some(true));
        let listener = listeners[waiting.context("no client came")?];
        let client = accept(listener)?;
        // SAFETY: accept(2) has just returned it, so nothing else owns it.
        self.client = Some(BufReader::new(unsafe { File::from_raw_fd(client) }));
        Ok(())
    }
}

/// A descriptor from the master as a file that is not closed on drop.
fn borrowed(number: RawFd) -> ManuallyDrop<File> {
    // SAFETY: the master opened it for this process, and `ManuallyDrop` does not close it.
    ManuallyDrop::new(unsafe { File::from_raw_fd(number) })
}

/// The next data, in hexadecimal.
fn receive(from: &mut File) -> Result<String> {
    let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, TIMEOUT)? == 0 {
        bail!("nothing came");
    }
    let mut buffer = [0; 64];
    let length = from.read(&mut buffer)?;
    Ok(hex(&buffer[..length]))
}

/// Whether nothing can be read, and will be later perhaps.
fn is_open(from: &File) -> Result<String> {
    let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    Ok((poll(&mut ready, PollTimeout::ZERO)? == 0).to_string())
}

/// Writes until the buffer is full, and returns the number of bytes.
fn fill(number: RawFd) -> Result<String> {
    let mut file = borrowed(number);
    let mut written = 0;
    loop {
        match file.write(&[0; 4096]) {
            Ok(length) => written += length,
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(written.to_string()),
            Err(why) => return Err(why.into()),
        }
    }
}

/// The descriptor that arrives over a connection.
fn passed_descriptor(client: &File) -> Result<File> {
    let mut data = [0; 1];
    let mut space = nix::cmsg_space!(RawFd);
    let mut iov = [IoSliceMut::new(&mut data)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(client.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            let number = descriptors.first().context("no descriptor")?;
            // SAFETY: recvmsg(2) has just returned it, so nothing else owns it.
            return Ok(unsafe { File::from_raw_fd(*number) });
        }
    }
    bail!("no descriptor was passed")
}

/// The value of a socket option.
fn option_of(number: RawFd, name: &str) -> Result<String> {
    let socket = borrowed(number);
    let value = match name {
        "reuseaddr" => getsockopt(&*socket, sockopt::ReuseAddr)?.into(),
        "reuseport" => getsockopt(&*socket, sockopt::ReusePort)?.into(),
        "v6only" => getsockopt(&*socket, sockopt::Ipv6V6Only)?.into(),
        "sndbuf" => getsockopt(&*socket, sockopt::SndBuf)?,
        _ => bail!("what is {name:?}?"),
    };
    Ok(value.to_string())
}

/// Forks a process that keeps all descriptors. It writes `status` to the status channel, if not
/// empty, now or after its parent has ended, and stays until that channel is readable or broken.
/// Returns its process ID when the bytes are written, or when it waits.
fn grandchild(status: &[u8], orphaned: bool) -> Result<String> {
    let (mut begun, begin) = UnixStream::pair()?;
    let parent = getpid();
    // SAFETY: this process has one thread.
    if let ForkResult::Parent { child } = unsafe { fork()? } {
        drop(begin);
        begun.read_to_end(&mut Vec::new())?;
        return Ok(child.to_string());
    }
    let begin = Some(begin).filter(|_| !orphaned);
    while orphaned && getppid() == parent {
        sleep(Duration::from_millis(1));
    }
    if !status.is_empty() {
        let _ = raw(status);
    }
    drop(begin);
    while dismissal().is_err() {}
    exit(0)
}

/// Waits until the status channel is readable.
fn dismissal() -> Result<()> {
    // SAFETY: the master opened it for this process; only a test's command `close` closes it.
    let status = unsafe { BorrowedFd::borrow_raw(STATUS) };
    match poll(&mut [PollFd::new(status, PollFlags::POLLIN)], TIMEOUT)? {
        0 => bail!("the status channel is not readable"),
        _ => Ok(()),
    }
}

fn report(availability: &str) -> Result<()> {
    let report = StatusReport {
        pid: getpid().as_raw(),
        generation: u32::from_str_radix(&std::env::var(GENERATION)?, 8)?,
        available: match availability {
            "taken" => 0,
            "available" => 1,
            _ => bail!("{availability:?} is neither taken nor available"),
        },
    };
    raw(&report.encode())
}

/// Writes bytes to the status channel unchanged.
fn raw(bytes: &[u8]) -> Result<()> {
    // SAFETY: the master opened it for this process; only a test's command `close` closes it.
    let status = unsafe { BorrowedFd::borrow_raw(STATUS) };
    let written = write(status, bytes)?;
    if written != bytes.len() {
        bail!("wrote {written} bytes of {}", bytes.len());
    }
    Ok(())
}

/// Waits until the master has read all reports that are in the status channel.
fn heard() -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(TIMEOUT.into());
    while Instant::now() < deadline {
        let mut unread: c_int = 0;
        // SAFETY: the request writes one int to a local variable.
        let result = unsafe { ioctl(STATUS, TIOCOUTQ, &raw mut unread) };
        Errno::result(result)?;
        if unread == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(1));
    }
    bail!("the master has not read all reports")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}
