//! A child of the master that does as a test tells it.
//!
//! With `control=PATH` among its arguments it connects to that socket, says who it is (`pid N`,
//! `generation OCTAL`, one `arg TEXT` for each argument, `ready`), and obeys commands, one a line,
//! each answered with `ok`, `ok TEXT` or `error TEXT`. It leaves when its status channel becomes
//! readable, as children must, or when the test is gone.
//!
//! With `tally=PATH` it adds one byte to that file and leaves: a child that is quick and counted.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use master::proto::{GENERATION, LISTEN, STATUS, StatusReport};
use nix::errno::Errno;
use nix::libc::{TIOCOUTQ, c_int, ioctl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, raise, signal};
use nix::sys::socket::accept;
use nix::unistd::{close, getpid, write};

/// How long a command may wait, in milliseconds.
const PATIENCE: u16 = 10_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let found = arguments.iter().find_map(|text| text.strip_prefix(name));
        found.map(str::to_owned)
    };
    if let Some(path) = option("tally=") {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        return Ok(file.write_all(b".")?);
    }
    let path = option("control=").context("control=PATH or tally=PATH is needed")?;
    let Ok(control) = UnixStream::connect(&path) else {
        return Ok(()); // the test is over
    };
    Puppet::new(control, &arguments)?.obey()
}

struct Puppet {
    control: UnixStream,
    commands: BufReader<UnixStream>,
    /// Listeners are descriptors 6 to 6 + this - 1.
    listeners: i32,
    client: Option<BufReader<File>>,
    /// Whether it stays when the status channel becomes readable.
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
            stays: false,
        })
    }

    fn obey(&mut self) -> Result<()> {
        loop {
            // The status channel may have been closed by a command; poll(2) then calls it invalid.
            // SAFETY: nobody else has this descriptor; it is looked at only inside this block.
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
            if told(&ready[0]) {
                let mut line = String::new();
                if self.commands.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let answer = match self.command(line.trim_end()) {
                    Ok(text) => format!("ok {text}"),
                    Err(why) => format!("error {why:#}"),
                };
                writeln!(self.control, "{}", answer.trim_end())?;
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
            "hangup" => self.client = None,
            "report" => report(argument)?,
            "heard" => heard()?,
            "raw" => raw(&bytes(argument)?)?,
            "stay" => self.stays = true,
            "dismissal" => dismissal()?,
            "close" => close(argument.parse::<RawFd>()?)?,
            "exit" => exit(argument.parse()?),
            "die" => raise(Signal::from_str(argument)?)?,
            "ignore" => {
                // SAFETY: no handler of ours is involved.
                unsafe { signal(Signal::from_str(argument)?, SigHandler::SigIgn)? };
            }
            _ => bail!("what is {verb:?}?"),
        }
        Ok(String::new())
    }

    /// Takes one client of any listener.
    fn accept(&mut self) -> Result<()> {
        let listeners: Vec<RawFd> = (LISTEN..LISTEN + self.listeners).collect();
        let mut ready: Vec<PollFd> = listeners
            .iter()
            // SAFETY: the master opened them for us, and only a test's `close` ends that.
            .map(|fd| PollFd::new(unsafe { BorrowedFd::borrow_raw(*fd) }, PollFlags::POLLIN))
            .collect();
        poll(&mut ready, PATIENCE)?;
        let waiting = ready.iter().position(|fd| fd.any() == Some(true));
        let listener = listeners[waiting.context("no client came")?];
        let client = accept(listener)?;
        // SAFETY: accept(2) has just made it, and nobody else knows of it.
        self.client = Some(BufReader::new(unsafe { File::from_raw_fd(client) }));
        Ok(())
    }
}

/// Waits until the status channel is readable.
fn dismissal() -> Result<()> {
    // SAFETY: the master opened it for us, and only a test's `close` ends that.
    let status = unsafe { BorrowedFd::borrow_raw(STATUS) };
    match poll(&mut [PollFd::new(status, PollFlags::POLLIN)], PATIENCE)? {
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

/// Writes bytes to the status channel, as they are.
fn raw(bytes: &[u8]) -> Result<()> {
    // SAFETY: the master opened it for us, and only a test's `close` ends that.
    let status = unsafe { BorrowedFd::borrow_raw(STATUS) };
    let written = write(status, bytes)?;
    if written != bytes.len() {
        bail!("wrote {written} bytes of {}", bytes.len());
    }
    Ok(())
}

/// Waits until the master has read all reports that are in the status channel.
fn heard() -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(PATIENCE.into());
    while Instant::now() < deadline {
        let mut unread: c_int = 0;
        // SAFETY: the request writes one int, and nobody else looks at it meanwhile.
        let result = unsafe { ioctl(STATUS, TIOCOUTQ, &raw mut unread) };
        Errno::result(result)?;
        if unread == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(1));
    }
    bail!("the master has not read all reports")
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}
