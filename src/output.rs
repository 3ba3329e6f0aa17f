//! Standard output, for programs that answer there: what could not be written is an error.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use crate::errors::describe_error;

/// The exit status of a program that cannot write its answer to standard output.
pub const OUTPUT_FAILED: u8 = 9;

/// Standard output. `io::stdout` would hide that the descriptor is not open for writing.
///
/// # Errors
/// The system's.
pub fn standard_output() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Writes a program's answer to standard output.
pub fn answer(program: &str, text: &str) -> ExitCode {
    match standard_output().and_then(|mut output| output.write_all(text.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(program, &error),
    }
}

/// The exit status after standard output could not be written, which is said on standard error,
/// unless the reader has closed the output, as head(1) does.
pub fn fail(program: &str, error: &io::Error) -> ExitCode {
    if error.kind() != ErrorKind::BrokenPipe {
        let reason = describe_error(error);
        // If standard error cannot be written either, the exit status remains.
        let _ = writeln!(io::stderr(), "{program}: standard output: {reason}");
    }
    ExitCode::from(OUTPUT_FAILED)
}
