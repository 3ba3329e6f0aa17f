//! The test's side of `programs/puppet.rs`: children that execute a test's commands.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use master::protocol::StatusReport;

use crate::instance::{Instance, SOON};
use crate::poll::{until, within};
use crate::process::Process;
use crate::programs::example;
use crate::standalone::Standalone;

/// Bytes in the puppets' hexadecimal form.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The socket to which a service's puppets connect.
pub struct Puppets {
    listener: UnixListener,
    path: PathBuf,
}

impl Puppets {
    /// Makes `puppet` a command of the instance, and creates a socket for its puppets.
    pub fn new(instance: &Instance, name: &str) -> Self {
        instance.install(&example("puppet"), "puppet");
        Self::at(instance.path(), name)
    }

    /// Puppets of a service of a stand-alone master, and their command for its table.
    pub fn of(standalone: &Standalone, name: &str) -> (Self, String) {
        let puppets = Self::at(standalone.path(), name);
        let program = standalone.install(&example("puppet"));
        let command = format!("{} {}", program.display(), puppets.arguments());
        (puppets, command)
    }

    /// Creates a socket in this directory for puppets of any user.
    pub fn at(directory: &Path, name: &str) -> Self {
        let path = directory.join(format!("{name}.control"));
        let listener = UnixListener::bind(&path).expect("a control socket");
        listener.set_nonblocking(true).expect("non-blocking");
        let all = fs::Permissions::from_mode(0o777);
        fs::set_permissions(&path, all).expect("a mode");
        Self { listener, path }
    }

    /// The arguments of `puppet` in the table.
    pub fn arguments(&self) -> String {
        format!("-o control={}", self.path.display())
    }

    /// Waits for the next puppet that the master starts.
    #[track_caller]
    pub fn next(&self) -> Puppet {
        until(SOON, "a child to be started", || self.arrived())
    }

    /// Waits for the next puppet; `None` if none is started within `limit`.
    pub fn next_within(&self, limit: Duration) -> Option<Puppet> {
        within(limit, || self.arrived())
    }

    fn arrived(&self) -> Option<Puppet> {
        let (stream, _) = self.listener.accept().ok()?;
        Some(Puppet::meet(stream))
    }
}

/// A child that executes commands.
pub struct Puppet {
    pub process: Process,
    pub generation: u32,
    /// Its arguments, the name first.
    pub arguments: Vec<String>,
    answers: BufReader<UnixStream>,
}

impl Puppet {
    fn meet(stream: UnixStream) -> Self {
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(SOON)).expect("a time limit");
        let mut puppet = Self {
            process: Process(0),
            generation: 0,
            arguments: Vec::new(),
            answers: BufReader::new(stream),
        };
        loop {
            let line = puppet.line();
            let (key, value) = line.split_once(' ').unwrap_or((&line, ""));
            match key {
                "pid" => puppet.process = Process(value.parse().expect("a process id")),
                "generation" => {
                    puppet.generation = u32::from_str_radix(value, 8).expect("an octal number");
                }
                "arg" => puppet.arguments.push(value.to_owned()),
                "ready" => return puppet,
                _ => panic!("a puppet says {line:?}"),
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("a puppet's line");
        line.trim_end().to_owned()
    }

    /// Sends a command without waiting for the answer.
    pub fn send(&mut self, command: &str) {
        let _ = writeln!(self.answers.get_mut(), "{command}");
    }

    /// Sends a command that does not end it, and returns its answer.
    #[track_caller]
    pub fn tell(&mut self, command: &str) -> String {
        self.send(command);
        let answer = self.line();
        match answer.strip_prefix("ok") {
            Some(text) => text.trim_start().to_owned(),
            None => panic!("{command:?}: the puppet answers {answer:?}"),
        }
    }

    /// Accepts a client and reports that it is taken, like a server of Postfix.
    #[track_caller]
    pub fn take_client(&mut self) {
        self.tell("accept");
        self.tell("report taken");
    }

    /// Closes the client's connection and reports that it is available.
    #[track_caller]
    pub fn finish_client(&mut self) {
        self.tell("hangup");
        self.tell("report available");
    }

    /// Its name and arguments, without those that make it a puppet.
    pub fn given(&self) -> String {
        let ours = |text: &String| text.starts_with("control=");
        let end = self.arguments.iter().position(ours).map(|at| at - 1);
        self.arguments[..end.expect("control=PATH")].join(" ")
    }

    /// A report with its process ID and generation.
    pub fn report(&self, available: i32) -> StatusReport {
        StatusReport {
            pid: self.process.0,
            generation: self.generation,
            available,
        }
    }

    /// Writes bytes to the status channel.
    #[track_caller]
    pub fn write_status(&mut self, bytes: &[u8]) {
        self.tell(&format!("raw {}", hex(bytes)));
    }

    /// Waits until the master has read its reports. Otherwise a child that ends could count as
    /// unused.
    #[track_caller]
    pub fn wait_until_heard(&mut self) {
        self.tell("heard");
    }

    #[track_caller]
    pub fn exit(mut self, status: i32) {
        self.send(&format!("exit {status}"));
        self.wait_for_end();
    }

    #[track_caller]
    pub fn die(mut self, signal: &str) {
        self.send(&format!("die {signal}"));
        self.wait_for_end();
    }

    #[track_caller]
    pub fn wait_for_end(&self) {
        until(SOON, "a puppet's end", || !self.process.runs());
    }
}
