//! Where log lines go: syslog, Postfix's postlogd, systemd's journal, a file, and the terminal while
//! there is one. Nothing here waits: a line that finds its way blocked takes the next way or counts
//! as lost, because a master that waits for its log serves no clients.
//!
//! Lines have the form of Postfix's (`msg_syslog.c`, `msg_logger.c`): a tag with the process ID, a
//! severity word unless it is for information, the text.
//!
//! [`Log`] is the logger, `entry` has the forms of a line, `output` chooses the way out, and each way
//! out has a file of its own. A new target needs a [`Target`], an `Output` and such a file.

mod entry;
mod file;
mod journal;
mod logger;
mod output;
mod postlog;
mod syslog;
mod terminal;
#[cfg(test)]
mod tests;
mod time;

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::errors::describe_error;

pub use journal::JOURNAL;
pub use logger::Log;
pub use syslog::facility_number;
pub use terminal::Terminal;

/// How grave a line is; Postfix's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Warning,
    Error,
    Fatal,
    Panic,
}

impl Severity {
    /// The word before the text, if any.
    fn word(self) -> &'static str {
        match self {
            Self::Info => "",
            Self::Warning => "warning: ",
            Self::Error => "error: ",
            Self::Fatal => "fatal: ",
            Self::Panic => "panic: ",
        }
    }

    /// The name in JSON lines.
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
            Self::Panic => "panic",
        }
    }

    /// The level of syslog(3).
    fn level(self) -> ::syslog::Severity {
        match self {
            Self::Info => ::syslog::Severity::LOG_INFO,
            Self::Warning => ::syslog::Severity::LOG_WARNING,
            Self::Error => ::syslog::Severity::LOG_ERR,
            Self::Fatal | Self::Panic => ::syslog::Severity::LOG_CRIT,
        }
    }
}

/// Where to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The system's log, under this facility of syslog(3), such as `mail`.
    Syslog { facility: String },
    /// systemd's journal, by its socket; the system's log when that does not take a line.
    Journal { socket: PathBuf, facility: String },
    /// Postfix's postlogd, by its socket; the file itself when postlogd does not take a line.
    Postlog {
        socket: PathBuf,
        /// None before the configuration is known.
        file: Option<PathBuf>,
        /// The mode of a file that has to be made.
        permissions: u32,
        hostname: String,
    },
}

impl Target {
    /// Whether lines go to standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(self, Self::Postlog { file: Some(file), .. } if file::is_stdout(file))
    }
}

/// Why lines that go to the system's log, or to the journal, are lost; `None` if a process takes them.
pub fn why_lost(journal: bool) -> Option<String> {
    let reach = |socket: &str| UnixDatagram::unbound()?.connect(socket);
    if journal && reach(JOURNAL).is_ok() {
        return None;
    }
    let error = reach(syslog::DEV_LOG).err()?;
    Some(format!("{}: {}", syslog::DEV_LOG, describe_error(&error)))
}

/// What a log is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `syslog_name/master`; what follows the last slash is the program.
    pub tag: String,
    pub target: Target,
    pub format: Format,
    pub terminal: Terminal,
}

impl Settings {
    /// The log until the configuration is known: that of the process which has started this program,
    /// as Postfix's programs tell each other (`maillog_client.c`), or else syslog under this
    /// facility. Without `MAIL_LOGTAG` the tag begins with `name`.
    pub fn inherited(
        variable: impl Fn(&str) -> Option<OsString>,
        name: &str,
        program: &str,
        facility: &str,
        terminal: Terminal,
    ) -> Self {
        let text = |name: &str| {
            variable(name)
                .map(|value| value.to_string_lossy().into_owned())
                .filter(|value| !value.is_empty())
        };
        let target = match text("POSTLOG_SERVICE") {
            Some(socket) => Target::Postlog {
                socket: socket.into(),
                file: None,
                permissions: 0o600,
                hostname: text("POSTLOG_HOSTNAME").unwrap_or_else(|| "amnesiac".into()),
            },
            None => Target::Syslog {
                facility: facility.into(),
            },
        };
        let tag = text("MAIL_LOGTAG").unwrap_or_else(|| name.into());
        Self {
            tag: format!("{tag}/{program}"),
            target,
            format: Format::Text,
            terminal,
        }
    }
}

/// The form of lines in a file and on the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// The service and the child that a line is about, for searches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About<'a> {
    /// The service table's first two columns.
    pub service: Option<(&'a str, &'a str)>,
    pub child: Option<i32>,
}
