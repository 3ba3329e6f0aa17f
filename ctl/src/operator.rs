//! The commands that use the control socket: pause, resume, replace children, wake up, and log
//! level.

use std::io::Write;
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

/// Sets how much the master logs.
///
/// # Errors
/// The master refuses or does not answer.
pub fn log_level(arguments: &Arguments, level: Level) -> Result<ExitCode> {
    let verbose = level == Level::Verbose;
    MasterClient::new(arguments)?.request(Request::Verbose(verbose))?;
    Ok(ExitCode::SUCCESS)
}
