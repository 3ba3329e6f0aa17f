//! The commands that use the control socket: pause, resume, replace children, wake up, and log
//! level.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use master::control::{Request, Target};

use crate::arguments::{Arguments, Level};
use crate::connection::MasterClient;
use crate::names::{find, full_name, target};

/// Sends a request for a service.
///
/// # Errors
/// The service does not exist, or the master refuses or does not answer.
pub fn service(
    arguments: &Arguments,
    name: &str,
    request: fn(Target) -> Request,
    out: &mut impl Write,
) -> Result<ExitCode> {
    let client = MasterClient::new(arguments)?;
    let reply = client.status()?;
    let service = find(&reply.document, name)?;
    let request = request(target(service));
    client.request(request)?;
    writeln!(out, "{}: {}", full_name(service), done(request))?;
    Ok(ExitCode::SUCCESS)
}

fn done(request: Request) -> &'static str {
    match request {
        Request::Pause(_) => "paused",
        Request::Resume(_) => "resumed",
        Request::Replace(_) => "its children are being replaced",
        Request::Wake(_) => "woken up",
        Request::Verbose(_) => "done",
    }
}

/// Has another program go on in the master's place, and tells its version.
///
/// # Errors
/// The program cannot go on, or the master does not answer.
pub fn upgrade(
    arguments: &Arguments,
    program: Option<&Path>,
    out: &mut impl Write,
) -> Result<ExitCode> {
    let program = program.map(std::path::absolute).transpose()?;
    let client = MasterClient::new(arguments)?;
    client.upgrade(program.as_deref())?;
    let version = client.status()?.document.version;
    writeln!(out, "upgraded: version {version} serves")?;
    Ok(ExitCode::SUCCESS)
}

/// Sets how much the master logs.
///
/// # Errors
/// The master refuses or does not answer.
pub fn log_level(arguments: &Arguments, level: Level) -> Result<ExitCode> {
    let verbose = level == Level::Verbose;
    MasterClient::new(arguments)?.request(Request::Verbose(verbose))?;
    Ok(ExitCode::SUCCESS)
}
