//! `master-exec`: applies a service's limits and sandbox to itself, and then executes the service's
//! program, in the same process.
//!
//! The master starts it in place of the program of a service that has such settings, with the same
//! environment and descriptors. Its arguments, and the form of what it reads and writes, are told in
//! `master::sandbox`. All that needs memory or files is prepared first: the settings may leave little
//! of either.

mod apply;
mod calls;
mod files;
mod privileges;
mod sys;

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

use master::errors::describe_error;
use master::output::answer;
use master::sandbox::{Failure, SIZE_MAX, Sandbox};

use crate::apply::Prepared;
use crate::sys::Command;

/// The status of a child whose program could not be executed, as when the master's own exec fails.
const FAILED: u8 = 1;

const HELP: &str = "\
usage: master-exec [--help | --version]

Applies a service's limits and sandbox, and executes its program. master(8) starts this program by
itself, for a service with such settings in master.toml.
";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let descriptors = arguments.next().and_then(|number| descriptors(&number));
    let Some((settings, mut report)) = descriptors else {
        return without_master(arguments.next().as_deref());
    };
    let Err(failure) = run(&settings, arguments);
    // If the master has ended, the error has no reader.
    let _ = report.write_all(&failure.encode());
    ExitCode::from(FAILED)
}

/// What the program says when it is run by hand.
fn without_master(question: Option<&OsStr>) -> ExitCode {
    match question.and_then(OsStr::to_str) {
        Some("--help") => answer("master-exec", HELP),
        Some("--version") => {
            let version = concat!("master-exec ", env!("CARGO_PKG_VERSION"), "\n");
            answer("master-exec", version)
        }
        _ => {
            eprintln!("master-exec: master(8) starts this program, for a service with a sandbox");
            ExitCode::from(FAILED)
        }
    }
}

/// The descriptor with the settings, and the next one, for a failure.
fn descriptors(number: &OsStr) -> Option<(File, File)> {
    let number: RawFd = number.to_str()?.parse().ok().filter(|number| *number > 2)?;
    let settings = sys::take(number).ok()?;
    Some((settings, sys::take(number.checked_add(1)?).ok()?))
}

/// Executes the program.
fn run(settings: &File, arguments: impl Iterator<Item = OsString>) -> Result<Infallible, Failure> {
    let other = |reason: String| Failure {
        setting: None,
        reason,
    };
    let sandbox = read(settings).map_err(|why| other(format!("settings of the service: {why}")))?;
    let strings = arguments.map(|argument| CString::new(argument.into_vec()));
    let strings: Result<Vec<_>, _> = strings.collect();
    let command = strings.ok().and_then(Command::new);
    let command = command.ok_or_else(|| other("no program was named".to_owned()))?;
    if let Some(group) = &sandbox.control_group {
        // All else counts there already.
        let joined = fs::write(Path::new(group).join("cgroup.procs"), "0");
        apply::named("control_group", joined)?;
    }
    Prepared::new(sandbox)?.apply()?;
    Err(other(describe_error(&command.execute())))
}

/// The descriptor's place in the file is shared by all children, so it is not used.
fn read(settings: &File) -> Result<Sandbox, String> {
    let mut bytes = vec![0; SIZE_MAX + 1];
    let mut size = 0;
    while size < bytes.len() {
        match settings.read_at(&mut bytes[size..], size as u64) {
            Ok(0) => break,
            Ok(more) => size += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(describe_error(&error)),
        }
    }
    Sandbox::decode(&bytes[..size])
}
