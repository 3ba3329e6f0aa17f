//! masterctl(1): sees and steers a running master(8).
//!
//! A command a module; `arguments` has the command line, `findings` shows what is wrong in a file.

#![forbid(unsafe_code)]

mod arguments;
mod check;
mod document;
mod findings;
#[cfg(test)]
#[path = "../../tests/common/documents.rs"]
mod testing;
mod top;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::stdout().lock();
    let result = match &arguments.command {
        Command::Check => check::run(&arguments, &mut out),
        Command::Top { once } => top::run(&arguments, *once, &mut out),
    };
    match result.and_then(|status| Ok(out.flush().map(|()| status)?)) {
        Ok(status) => status,
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody listens if not there.
            let _ = writeln!(io::stderr(), "masterctl: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whoever reads has seen enough, as `head` has.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
