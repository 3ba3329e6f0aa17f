//! Standard error, while it is a terminal or a file that an operator reads.

use std::env;
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::AsFd;
use std::sync::LazyLock;

use serde_derive::{Deserialize, Serialize};

use super::entry::{Clean, Entry};
use super::{Format, Severity};
use crate::sys::poll::can_write;

/// Which lines also go to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Terminal {
    /// None: there is no terminal any more.
    Nothing,
    /// Those that could not be written elsewhere: another process may read standard error.
    Lost,
    /// Those that are not for information: start-up says nothing when all is well.
    Problems,
    Everything,
}

impl Terminal {
    fn shows(self, severity: Severity) -> bool {
        match self {
            Self::Nothing | Self::Lost => false,
            Self::Problems => severity > Severity::Info,
            Self::Everything => true,
        }
    }
}

/// Whether standard error is a terminal that shows colours, and whose user has not asked for none
/// (<https://no-color.org>).
static COLOURS: LazyLock<bool> = LazyLock::new(|| {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stderr().is_terminal() && !is_set("NO_COLOR") && !dumb
});

/// Finds out whether there are colours, before the environment is cut down to what children may
/// have.
pub(super) fn detect_colours() {
    LazyLock::force(&COLOURS);
}

/// The escape sequence that has a terminal show the severity word in yellow, or in bold red.
fn colour(severity: Severity) -> Option<&'static str> {
    match severity {
        Severity::Info => None,
        Severity::Warning => Some("\x1b[33m"),
        Severity::Error | Severity::Fatal | Severity::Panic => Some("\x1b[1;31m"),
    }
}

/// Writes a line to standard error if it is one of those that go there and there is room. A line
/// that cannot be shown is still in the log.
pub(super) fn show(entry: &Entry<'_>, terminal: Terminal, format: Format) {
    if terminal.shows(entry.severity) && can_write(io::stderr().as_fd()) {
        let line = match format {
            Format::Json => entry.to_json().unwrap_or_default(),
            Format::Text => text(entry),
        };
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Writes a line of another program to standard error, unless there is no terminal any more.
pub(super) fn show_plain(line: &Clean<'_>, terminal: Terminal) {
    if terminal.shows(Severity::Info) && can_write(io::stderr().as_fd()) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// `PROGRAM: severity: text`
fn text(entry: &Entry<'_>) -> String {
    let (word, message) = (entry.severity.word(), &entry.message);
    let program = entry.tag.rsplit('/').next().unwrap_or_default();
    match COLOURS.then(|| colour(entry.severity)).flatten() {
        Some(colour) => format!("{program}: {colour}{word}\x1b[0m{message}"),
        None => format!("{program}: {word}{message}"),
    }
}
