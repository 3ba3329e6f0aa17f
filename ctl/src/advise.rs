//! `masterctl advise`: which settings the last day of the services suggests.
//!
//! `observed` is what is known of a service, `rules` what follows from it.

mod observed;
mod rules;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use master::errors::describe_error;
use master::files::open_unlinked;
use master::status::Document;
use master::status::day::Day;
use serde_derive::{Deserialize, Serialize};

use crate::arguments::Arguments;
use crate::connection::MasterClient;
use crate::names;
use crate::words::{counted, time};
use observed::Observed;
use rules::Advice;

/// The largest history that is read, in bytes.
const FILE_MAX: u64 = 64 << 20;
/// The oldest history that is used, in seconds since statusd has saved it.
const OLD: f64 = 900.0;

/// What is advised on.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The service, by its name: "smtp", "private/smtp" or "smtp/unix"; by default all
    name: Option<String>,
    /// The file in which statusd leaves its history; by default the one of the master's statusd, or
    /// statusd.history in the data directory
    #[arg(long, value_name = "PATH")]
    history: Option<PathBuf>,
    /// Show JSON
    #[arg(long)]
    json: bool,
}

/// Times are in seconds.
#[derive(Debug, Serialize)]
struct Report {
    source: Source,
    services: Vec<ServiceReport>,
}

/// Where the numbers are from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    /// The day that statusd keeps.
    History { path: PathBuf },
    /// The master's counters since its start, and why there is nothing better.
    Start { seconds: f64, reason: String },
}

#[derive(Debug, Serialize)]
struct ServiceReport {
    service: String,
    /// How long it was seen.
    seconds: f64,
    advice: Vec<Advice>,
    /// What is missing for more.
    missing: Option<String>,
}

/// The part of statusd's file that counts here.
#[derive(Deserialize)]
struct SavedHistory {
    #[serde(default)]
    day: Day,
}

/// Shows what is advised.
///
/// # Errors
/// There is no master or no such service, a named history cannot be read, or the output fails.
pub fn run(arguments: &Arguments, options: &Options, out: &mut impl Write) -> Result<ExitCode> {
    let document = MasterClient::new(arguments)?.status()?.document;
    let only = match &options.name {
        Some(name) => Some(names::full_name(names::find(&document, name)?)),
        None => None,
    };
    let (day, source) = source(&document, options.history.as_deref())?;
    let mut report = report(&document, day.as_ref(), source);
    report
        .services
        .retain(|service| only.as_ref().is_none_or(|only| *only == service.service));
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        show(&report, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(document: &Document, day: Option<&Day>, source: Source) -> Report {
    let services = document.services.iter().map(|service| {
        let observed = Observed::new(document, service, day);
        let advice = rules::advise(&observed);
        let missing = observed.missing().filter(|_| advice.is_empty());
        ServiceReport {
            service: names::full_name(service),
            seconds: observed.seconds,
            advice,
            missing,
        }
    });
    Report {
        services: services.collect(),
        source,
    }
}

/// The day of this master's services, if statusd keeps one.
///
/// # Errors
/// A named file cannot be read, or has no history that is of use.
fn source(document: &Document, named: Option<&Path>) -> Result<(Option<Day>, Source)> {
    let path = named.map_or_else(|| usual_path(document), Path::to_owned);
    match read(&path).and_then(|day| usable(day, document)) {
        Ok(day) => Ok((Some(day), Source::History { path })),
        Err(error) if named.is_some() => Err(error.context(path.display().to_string())),
        Err(error) => {
            let reason = format!("{}: {error:#}", path.display());
            let seconds = document.time - document.started;
            Ok((None, Source::Start { seconds, reason }))
        }
    }
}

fn usable(day: Day, document: &Document) -> Result<Day> {
    let age = document.time - day.time();
    anyhow::ensure!(!day.services.is_empty(), "it holds no day of services");
    anyhow::ensure!(
        (-1.0..=OLD).contains(&age),
        "statusd has left it {} ago, and does not run",
        time(age)
    );
    Ok(day)
}

fn read(path: &Path) -> Result<Day> {
    let file = open_unlinked(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!("statusd has left no history there"),
        _ => anyhow::anyhow!(describe_error(&error)),
    })?;
    let mut text = Vec::new();
    File::take(file, FILE_MAX).read_to_end(&mut text)?;
    let saved: SavedHistory = serde_json::from_slice(&text).context("it is no history")?;
    Ok(saved.day)
}

/// Where the master's statusd leaves its history.
fn usual_path(document: &Document) -> PathBuf {
    let is_statusd = |program: &str| Path::new(program).ends_with("statusd");
    let mut services = document.services.iter();
    let arguments = services
        .find(|service| is_statusd(&service.program))
        .map_or(&[][..], |service| &service.arguments);
    let named = arguments
        .iter()
        .filter_map(|argument| {
            argument
                .trim_start_matches("-o")
                .strip_prefix("statusd_history_file=")
        })
        .next_back();
    let data = document.settings.get("data_directory");
    let usual = || Path::new(data.map_or("", String::as_str)).join("statusd.history");
    named.map_or_else(usual, PathBuf::from)
}

fn show(report: &Report, out: &mut impl Write) -> Result<()> {
    match &report.source {
        Source::History { path } => writeln!(out, "by the last day in {}", path.display())?,
        Source::Start { seconds, reason } => writeln!(
            out,
            "by the counters since the master's start {} ago ({reason})",
            time(*seconds)
        )?,
    }
    let (advised, others): (Vec<_>, Vec<_>) = report
        .services
        .iter()
        .partition(|service| !service.advice.is_empty());
    for service in advised {
        writeln!(out, "{}", service.service)?;
        for advice in &service.advice {
            show_advice(advice, out)?;
        }
    }
    let (unknown, fine): (Vec<&ServiceReport>, Vec<&ServiceReport>) = others
        .into_iter()
        .partition(|service| service.missing.is_some());
    if !fine.is_empty() {
        let services = counted(fine.len(), "service needs", "services need");
        writeln!(out, "{services} no other setting")?;
    }
    if !unknown.is_empty() {
        writeln!(out, "too little is known of:")?;
        for service in unknown {
            let missing = service.missing.as_deref().unwrap_or_default();
            writeln!(out, "  {}: {missing}", service.service)?;
        }
    }
    Ok(())
}

fn show_advice(advice: &Advice, out: &mut impl Write) -> Result<()> {
    let Advice {
        setting,
        value,
        proposal,
        reason,
        simulated,
    } = advice;
    match (value, proposal) {
        (Some(value), Some(proposal)) => writeln!(out, "  {setting}: {value} -> {proposal}")?,
        (None, Some(proposal)) => writeln!(out, "  {setting}: {proposal}")?,
        _ => writeln!(out, "  {setting}")?,
    }
    writeln!(out, "    {reason}")?;
    if let Some(simulated) = simulated {
        writeln!(out, "    simulated: {simulated}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
