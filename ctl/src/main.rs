//! masterctl(1): shows and controls a running master(8).
//!
//! Each command has a module. `arguments` is the command line, `connection` the client of the
//! master, `findings` shows errors in files.

#![forbid(unsafe_code)]

mod arguments;
mod check;
mod connection;
mod directory;
mod failure;
mod findings;
#[cfg(test)]
mod manual;
mod names;
mod operator;
mod plan;
mod process;
mod signals;
mod status;
mod table;
#[cfg(test)]
mod testing;
mod top;
mod words;

#[cfg(test)]
use testkit::documents as pictures;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use master::control::Request;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::stdout().lock();
    let result = run(&arguments, &mut out);
    match result.and_then(|status| Ok(out.flush().map(|()| status)?)) {
        Ok(status) => status,
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            // If standard error cannot be written, the message is lost.
            let _ = writeln!(io::stderr(), "masterctl: {error:#}");
            failure::exit_code(&error)
        }
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    match &arguments.command {
        Command::Status { name, json } => status::run(arguments, name.as_deref(), *json, out),
        Command::Check => check::run(arguments, out),
        Command::Top { once } => top::run(arguments, *once, out),
        Command::Plan => plan::run(arguments, out),
        Command::Reload { name: None } => signals::reload(arguments, out),
        Command::Reload { name: Some(name) } => {
            operator::service(arguments, name, Request::Replace, out)
        }
        Command::Stop => signals::stop(arguments, out),
        Command::Pause { name } => operator::service(arguments, name, Request::Pause, out),
        Command::Resume { name } => operator::service(arguments, name, Request::Resume, out),
        Command::Wake { name } => operator::service(arguments, name, Request::Wake, out),
        Command::LogLevel { level } => operator::log_level(arguments, *level),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(*shell, &mut command, "masterctl", out);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whether the reader of the output has closed it, as head(1) does. That is not an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
