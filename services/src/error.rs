//! Why a service cannot run.

use std::fmt;
use std::io;

use master::config::Diagnostics;
use master::errors::describe_error;

/// Why a service cannot run. [`run`](crate::run) logs it and ends the process with status 1.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The process was not started by a master, and without `-S`.
    ByHand {
        /// The name of the program.
        program: String,
    },
    /// An unknown option or argument on the command line.
    Usage(String),
    /// A parameter has an invalid value.
    Parameter(String),
    /// An entry in the service table that is not suitable for this program.
    Unsuitable(String),
    /// A failed system call.
    System {
        /// The failed operation.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// An error of the program itself.
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// For `map_err`: the operation `what` failed.
    pub fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }

    pub(crate) fn parameter(findings: Diagnostics) -> Self {
        Self::Parameter(findings.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByHand { program } => write!(
                f,
                "{program} is run by master(8), which gives it its listeners; to serve one client \
                 on standard input and output, use -S"
            ),
            Self::Usage(text) | Self::Parameter(text) | Self::Unsuitable(text) => f.write_str(text),
            Self::System { what, source } => write!(f, "{what}: {}", describe_error(source)),
            Self::Other(error) => f.write_str(&describe_error(error.as_ref())),
        }
    }
}

// `Display` already contains the cause, so `source` returns `None`.
impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Self::Other(text.into())
    }
}

impl From<&str> for Error {
    fn from(text: &str) -> Self {
        Self::Other(text.into())
    }
}
