//! What goes through the control socket: one service's pause, end of pause, other children and
//! wake-up, and how much the master logs.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use master::control::{Request, Target};

use crate::arguments::{Arguments, Level};
use crate::connection::Place;
use crate::names::{find, full_name, target};

/// Asks the master to do something with a service.
///
/// # Errors
/// There is no such service; the master's.
pub fn service(
    arguments: &Arguments,
    name: &str,
    request: fn(Target) -> Request,
    out: &mut impl Write,
) -> Result<ExitCode> {
    let place = Place::of(arguments)?;
    let look = place.look()?;
    let service = find(&look.document, name)?;
    let request = request(target(service));
    place.ask(request)?;
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

/// Has the master log more, or less.
///
/// # Errors
/// The master's.
pub fn log_level(arguments: &Arguments, level: Level) -> Result<ExitCode> {
    let verbose = level == Level::Verbose;
    Place::of(arguments)?.ask(Request::Verbose(verbose))?;
    Ok(ExitCode::SUCCESS)
}
