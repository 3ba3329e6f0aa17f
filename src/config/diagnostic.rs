//! What is wrong, where, and what was expected.

use std::fmt;
use std::path::PathBuf;

/// Where in a file; lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Position {
    /// Where one is after `written`, which contains no line end and begins here.
    pub(super) fn after(self, written: &[u8]) -> Self {
        // A character of UTF-8 has one byte that is no continuation byte; other encodings are
        // counted by bytes, nearly.
        let characters = written.iter().filter(|&&b| b & 0xc0 != 0x80).count();
        Self {
            column: self.column.saturating_add(count(characters)),
            ..self
        }
    }
}

/// A number of lines or columns; no file that fits into memory has more than the type can hold.
pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// What a finding points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) position: Option<Position>,
}

/// Whether a finding stands in the way of using a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Warning,
    Error,
}

/// One finding in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub path: PathBuf,
    /// Nothing when the finding is about the file as a whole, or about what it lacks.
    pub position: Option<Position>,
    /// What is wrong and what was expected, without file and place.
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
            message,
        }
    }
}

/// `FILE: line N: column C: MESSAGE`, the form that scripts know from Postfix with the column added.
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
    /// Whether any finding stands in the way.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Brings the findings into the order of `files` and of lines. The same finding can be met
    /// more than once when several parameters refer to one that is wrong; once is enough.
    pub(super) fn tidy(&mut self, files: &[PathBuf]) {
        let file = |d: &Diagnostic| files.iter().position(|file| *file == d.path);
        self.0.sort_by(|a, b| {
            let places = (file(a), a.position).cmp(&(file(b), b.position));
            places.then_with(|| a.message.cmp(&b.message))
        });
        self.0.dedup();
    }
}

/// One finding a line.
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
