//! Findings in configuration files: what is wrong, where, and what was expected.

use std::fmt;
use std::path::PathBuf;

use serde_derive::{Deserialize, Serialize};

use super::characters::visible;

/// A position in a file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Position {
    /// The position after `written`, which begins here and contains no line end.
    pub(super) fn after(self, written: &[u8]) -> Self {
        // Count the bytes that begin a UTF-8 character. In other encodings this is an
        // approximation.
        let characters = written.iter().filter(|&&b| b & 0xc0 != 0x80).count();
        Self {
            column: self.column.saturating_add(count(characters)),
            ..self
        }
    }
}

/// A number of lines or columns, limited to what the type can hold.
pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The file, and the position in it, that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) position: Option<Position>,
}

/// Whether a finding prevents the use of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    Warning,
    Error,
}

/// One finding in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub path: PathBuf,
    /// `None` when the finding is about the whole file, or about a missing entry.
    pub position: Option<Position>,
    /// What is wrong and what was expected, without file and position.
    pub message: String,
}

impl Diagnostic {
    pub(super) fn error(place: Place, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, place, message.into())
    }

    pub(super) fn warning(place: Place, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, place, message.into())
    }

    fn new(severity: Severity, place: Place, message: String) -> Self {
        Self {
            severity,
            path: place.path,
            position: place.position,
            message: visible(message),
        }
    }
}

/// `FILE: line N: column C: MESSAGE`: Postfix's format, which scripts know, plus the column.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "line {line}: column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// All findings of one configuration, in the order of files and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Whether any finding is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Sorts the findings by file (in the order of `files`) and line, and removes duplicates:
    /// several parameters can refer to the same wrong one.
    pub(super) fn tidy(&mut self, files: &[PathBuf]) {
        let file = |d: &Diagnostic| files.iter().position(|file| *file == d.path);
        self.0.sort_by(|a, b| {
            let places = (file(a), a.position).cmp(&(file(b), b.position));
            places.then_with(|| a.message.cmp(&b.message))
        });
        self.0.dedup();
    }
}

/// One finding per line.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
