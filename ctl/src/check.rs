//! `masterctl check`: what a reload would find wrong, and programs that are not there.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use master::config::{Config, Diagnostic, Diagnostics, Position, Service, Severity};
use master::files::Names;
use master::log::reason;

use crate::arguments::Arguments;
use crate::findings::Findings;

/// Reads the configuration and shows all findings; tells by the status whether it can be loaded.
///
/// # Errors
/// A file that cannot be read; the writer's.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    let location = arguments.location()?;
    let (findings, services) = match Config::parse(&location.read()?, &Names) {
        Ok(config) => {
            let missing = config
                .services
                .iter()
                .filter_map(|s| missing(s, location.table()));
            let findings = config.warnings.iter().cloned().chain(missing).collect();
            (findings, Some(config.services.len()))
        }
        Err(Diagnostics(findings)) => (findings, None),
    };
    show(&findings, out)?;
    let path = location.path().display();
    match services {
        Some(services) => {
            let services = counted(services, "service");
            writeln!(out, "{path}: {services}; a reload would succeed")?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let is_error = |finding: &&Diagnostic| finding.severity == Severity::Error;
            let errors = counted(findings.iter().filter(is_error).count(), "error");
            writeln!(out, "{path}: {errors}; a reload would change nothing")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn show(findings: &[Diagnostic], out: &mut impl Write) -> io::Result<()> {
    let mut shown = Findings::default();
    findings
        .iter()
        .try_for_each(|finding| shown.show(finding, out))
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// A reload does not look whether programs exist; the first client would find out.
fn missing(service: &Service, table: &Path) -> Option<Diagnostic> {
    let problem = match fs::metadata(&service.path) {
        Err(error) => reason(&error),
        Ok(metadata) if !metadata.is_file() => "not a file".to_owned(),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => "not executable".to_owned(),
        Ok(_) => return None,
    };
    Some(Diagnostic {
        severity: Severity::Warning,
        path: table.to_owned(),
        position: Some(Position {
            line: service.line,
            column: 1,
        }),
        message: format!("program {}: {problem}", service.path.display()),
    })
}
