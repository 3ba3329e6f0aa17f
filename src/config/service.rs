//! One line of the service table, resolved, and the command line that it gives its children.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The table's second column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Inet,
    Unix,
    UnixDgram,
    Fifo,
    Pass,
}

impl Kind {
    /// All types, in the order in which the manual names them.
    pub const ALL: [Self; 5] = [
        Self::Inet,
        Self::Unix,
        Self::UnixDgram,
        Self::Fifo,
        Self::Pass,
    ];

    /// The word of the table, which is also the child's `-t`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Unix => "unix",
            Self::UnixDgram => "unix-dgram",
            Self::Fifo => "fifo",
            Self::Pass => "pass",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// One listener for each address; never empty, no duplicates.
    Inet(Vec<SocketAddr>),
    /// A path relative to `queue_directory`, in `private/` or `public/`.
    Path(PathBuf),
}

impl Endpoint {
    /// The number of descriptors that a child finds from 6 on.
    pub fn listeners(&self) -> usize {
        match self {
            Self::Inet(addresses) => addresses.len(),
            Self::Path(_) => 1,
        }
    }
}

/// When a service is woken up although nobody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakeup {
    /// At least one second.
    pub every: Duration,
    /// Only once the service has been used (`?` in the table).
    pub conditional: bool,
}

/// A service: one line of `master.cf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The first column as written.
    pub name: String,
    pub kind: Kind,
    /// The endpoint's canonical name: `25`, `[127.0.0.1]:25`, `private/bounce`. Together with
    /// `kind` it is the service's identity across reloads, so `smtp` and `25` are one service.
    pub canonical: String,
    pub endpoint: Endpoint,
    pub unprivileged: bool,
    pub chroot: bool,
    pub wakeup: Option<Wakeup>,
    /// The most children at a time; 0 is no limit.
    pub max: u32,
    /// The command as written.
    pub command: String,
    /// The program: `daemon_directory/command`.
    pub path: PathBuf,
    /// The table's own arguments, braces removed.
    pub args: Vec<OsString>,
    /// The listener's queue: the larger of `max` and `default_process_limit`.
    pub backlog: u32,
    /// How long to wait before starting a command again that fails at its start.
    pub throttle_time: Duration,
    /// The line of the table on which the entry begins.
    pub line: u32,
}

/// What the master's own options add to its children's command lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The master runs with `-d`.
    pub attached: bool,
    /// The master runs with `-v`.
    pub verbose: bool,
}

impl Service {
    /// What makes two entries, of one table or of two, the same service.
    pub fn identity(&self) -> (Kind, &str) {
        (self.kind, &self.canonical)
    }

    /// Whether children are told of overload with `-o stress=yes`: clients from elsewhere can
    /// reach the service, and it may have more than one child (Postfix, `master_ent.c`).
    pub fn stress_eligible(&self) -> bool {
        let remote = match &self.endpoint {
            Endpoint::Inet(addresses) => addresses.iter().any(|a| !a.ip().is_loopback()),
            Endpoint::Path(_) => self.kind == Kind::Pass,
        };
        remote && self.max > 1
    }

    /// A child's command line, `argv[0]` included (Postfix, `master_ent.c`).
    pub fn argv(&self, options: RunOptions, stress: bool) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec![self.command.clone().into()];
        match self.max {
            0 => argv.push("-z".into()),
            1 => argv.push("-l".into()),
            _ => {}
        }
        let basename = self.command.rsplit('/').next().unwrap_or(&self.command);
        if basename != self.name {
            argv.extend(["-n".into(), self.name.clone().into()]);
        }
        argv.extend(["-t".into(), self.kind.as_str().into()]);
        if options.attached {
            argv.push("-d".into());
        }
        if options.verbose {
            argv.push("-v".into());
        }
        if self.unprivileged {
            argv.push("-u".into());
        }
        if self.chroot {
            argv.push("-c".into());
        }
        if self.stress_eligible() {
            let value = if stress { "stress=yes" } else { "stress=" };
            argv.extend(["-o".into(), value.into()]);
        }
        if self.endpoint.listeners() > 1 {
            argv.extend(["-s".into(), self.endpoint.listeners().to_string().into()]);
        }
        argv.extend(self.args.iter().cloned());
        argv
    }
}
