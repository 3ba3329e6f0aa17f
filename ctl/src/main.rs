//! masterctl(1): shows and controls a running master(8).
//!
//! Each command has a module. `arguments` is the command line, `connection` the client of the
//! master, `findings` shows errors in files.

#![forbid(unsafe_code)]

mod advise;
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
mod output;
mod plan;
mod process;
mod sandbox;
mod signals;
mod simulate;
mod status;
mod table;
#[cfg(test)]
mod testing;
mod top;
mod words;

#[cfg(test)]
use testkit::documents as pictures;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use master::control::Request;

use arguments::{Arguments, Command};
use output::Output;

/// The exit status when the command line is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match Output::standard() {
        Ok(mut out) => {
            let result = parse_and_run(&mut out);
            match out.finish() {
                Some(error) => master::output::fail("masterctl", &error),
                None => result.unwrap_or_else(|error| complain(&error)),
            }
        }
        Err(error) => complain(&error),
    }
}

fn complain(error: &anyhow::Error) -> ExitCode {
    // If standard error cannot be written, the message is lost.
    let words = master::errors::describe_error(error.as_ref());
    let _ = writeln!(io::stderr(), "masterctl: {words}");
    failure::exit_code(error)
}

fn parse_and_run(out: &mut Output) -> Result<ExitCode> {
    match Arguments::try_parse() {
        Ok(arguments) => run(&arguments, out),
        Err(error) if error.use_stderr() => {
            // If standard error cannot be written, the message is lost.
            let _ = error.print();
            Ok(ExitCode::from(USAGE))
        }
        Err(answer) => {
            // On a terminal, in colour.
            let written = if io::stdout().is_terminal() {
                answer.print()
            } else {
                write!(out, "{answer}")
            };
            written?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    match &arguments.command {
        Command::Status { name, json } => status::run(arguments, name.as_deref(), *json, out),
        Command::Check => check::run(arguments, out),
        Command::Top { once } => top::run(arguments, *once, out),
        Command::Plan => plan::run(arguments, out),
        Command::Sandbox { name } => sandbox::run(arguments, name, out),
        Command::Reload { name: None } => signals::reload(arguments, out),
        Command::Reload { name: Some(name) } => {
            operator::service(arguments, name, Request::Replace, out)
        }
        Command::Stop => signals::stop(arguments, out),
        Command::Upgrade { program } => operator::upgrade(arguments, program.as_deref(), out),
        Command::Pause { name } => operator::service(arguments, name, Request::Pause, out),
        Command::Resume { name } => operator::service(arguments, name, Request::Resume, out),
        Command::Wake { name } => operator::service(arguments, name, Request::Wake, out),
        Command::LogLevel { level } => operator::log_level(arguments, *level),
        Command::Simulate(options) => simulate::run(arguments, options, out),
        Command::Advise(options) => advise::run(arguments, options, out),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            // The function panics if it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "masterctl", &mut script);
            out.write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
