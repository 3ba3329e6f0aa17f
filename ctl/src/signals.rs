//! `masterctl reload` and `masterctl stop`: send a signal and report the result.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::arguments::Arguments;
use crate::check;
use crate::connection::{MasterClient, StatusReply, wait_for};
use crate::failure::{Failure, Status};
use crate::plan;
use crate::process::{began, is_attached_master};

/// Checks the files, signals the master to reload them, and reports the result.
///
/// # Errors
/// The files cannot be read, the master does not answer, or the output fails.
pub fn reload(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    let client = MasterClient::new(arguments)?;
    let before = client.status()?;
    let location = arguments.location_of(&before)?;
    let sources = plan::sources(location.read()?, &before);
    let config = match check::parse(&sources, &before.document) {
        Ok(config) => config,
        Err(findings) => return check::refuse(&location, &findings, out),
    };
    if !is_attached_master(before.pid) {
        check::show(check::no_way_out(&location, &config).as_slice(), out)?;
    }
    let earlier = before.document.reloads;
    send(&before, Signal::SIGHUP)?;
    let reload = wait_for(|| {
        let now = client.status()?;
        if now.pid != before.pid {
            return Err(client.gone(&"another one runs there now").into());
        }
        let later = now.document.reloads != earlier;
        Ok(now.document.last_reload.filter(|_| later))
    })?;
    for finding in &reload.findings {
        writeln!(out, "{finding}")?;
    }
    if reload.succeeded {
        writeln!(out, "reloaded")?;
        Ok(ExitCode::SUCCESS)
    } else {
        writeln!(out, "the reload failed and changed nothing")?;
        Ok(ExitCode::FAILURE)
    }
}

/// Stops the master and waits until it has ended.
///
/// # Errors
/// The master does not answer, or the output fails.
pub fn stop(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    let reply = MasterClient::new(arguments)?.status()?;
    let since = began(reply.pid);
    send(&reply, Signal::SIGTERM)?;
    wait_for(|| {
        let runs = since.is_some() && began(reply.pid) == since;
        Ok((!runs).then_some(()))
    })?;
    writeln!(out, "stopped")?;
    Ok(ExitCode::SUCCESS)
}

fn send(reply: &StatusReply, signal: Signal) -> Result<()> {
    ensure!(
        reply.pid > 0,
        "the master runs where its process cannot be seen from here: signal it there"
    );
    match kill(Pid::from_raw(reply.pid), signal) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => Err(Failure::new(
            Status::Forbidden,
            format!(
                "the master, pid {}, is another user's: ask as root, or as that user",
                reply.pid
            ),
        )
        .into()),
        Err(errno) => Err(Failure::new(
            Status::Gone,
            format!("the master, pid {}: {}", reply.pid, errno.desc()),
        )
        .into()),
    }
}
