//! The failure of a command: a message and an exit status.

use std::fmt;
use std::process::ExitCode;

/// The exit statuses, which are listed in masterctl(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    NoMaster = 3,
    WrongDirectory = 4,
    Forbidden = 5,
    UnknownService = 6,
    Gone = 7,
    Refused = 8,
}

/// A failure with its own exit status, for scripts.
#[derive(Debug)]
pub struct Failure {
    pub status: Status,
    message: String,
}

impl Failure {
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit status for an error; 2 if it has none of its own.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let failure = error.downcast_ref::<Failure>();
    ExitCode::from(failure.map_or(2, |failure| failure.status as u8))
}
