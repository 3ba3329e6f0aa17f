//! `masterctl check`: the findings of a reload, and missing programs.

use std::fs;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use master::config::{
    Config, Diagnostic, Diagnostics, ListenAddress, LogFormat, Position, Service, Severity, Sources,
};
use master::errors::describe_error;
use master::files::{Location, Names, beside_this_program, check_executor};
use master::groups::find_delegated;
use master::log;
use master::sandbox;
use master::status::Document;

use crate::arguments::Arguments;
use crate::connection::MasterClient;
use crate::findings::Findings;
use crate::words::counted;

/// Reads the configuration and shows all findings. The exit status tells whether it can be loaded.
///
/// # Errors
/// A file cannot be read, or the output fails.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    let location = arguments.location()?;
    let sources = location.read()?;
    let config = match Config::parse_to_replace(&sources, true, &Names) {
        Ok(config) => config,
        Err(findings) => return refuse(&location, &findings, out),
    };
    let services = config.services.iter();
    let missing = services.flat_map(|service| {
        let places = service.listen_addresses();
        let places = places.filter_map(|place| missing_place(place, service, &config, &sources));
        places.chain(missing_program(service, &sources))
    });
    let findings = config.warnings.iter().cloned().chain(missing);
    let findings = findings.chain(no_way_out(&location, &config));
    let findings: Vec<_> = findings.chain(no_groups(arguments, &config)).collect();
    show(&findings, out)?;
    if let Some(error) = missing_executor(&config, &location, &sources) {
        return refuse(&location, &Diagnostics(vec![error]), out);
    }
    let path = location.path().display();
    let services = counted(config.services.len(), "service", "services");
    writeln!(out, "{path}: {services}; a reload would succeed")?;
    Ok(ExitCode::SUCCESS)
}

/// A service is to have a control group, and has none; or would have none if the master were started
/// where this program is.
fn no_groups(arguments: &Arguments, config: &Config) -> Option<Diagnostic> {
    let mut services = config.services.iter();
    let first = services.clone().find(|service| service.group().is_some())?;
    let running = MasterClient::new(arguments).and_then(|master| master.status());
    let (service, fault) = match running {
        Ok(reply) => {
            let lacks = |service: &&Arc<Service>| {
                let key = match service.group() {
                    None => return false,
                    Some([]) => "control_group",
                    Some([setting, ..]) => &setting.name,
                };
                reply.document.services.iter().any(|known| {
                    known.name == service.name
                        && known.kind == service.kind.as_str()
                        && known.settings.contains_key(key)
                        && known.processor_time.is_none()
                })
            };
            let fault = "the running master has logged the reason at its start or reload";
            (services.find(lacks)?, fault.to_owned())
        }
        Err(_) => (first, find_delegated("self").err()?),
    };
    Some(Diagnostic {
        severity: Severity::Warning,
        path: service.table.to_path_buf(),
        position: Some(Position {
            line: service.line,
            column: 1,
        }),
        message: format!(
            "service \"{}\" has no control group, so its limits are without effect: {fault}",
            service.name
        ),
    })
}

/// Reads a configuration as the master that sent `document` does on a reload.
///
/// # Errors
/// Why the reload would fail.
pub fn parse(sources: &Sources, document: &Document) -> Result<Config, Diagnostics> {
    Config::parse_to_replace(sources, !document.services.is_empty(), &Names)
}

/// Shows why a reload would fail.
///
/// # Errors
/// The output fails.
pub fn refuse(
    location: &Location,
    Diagnostics(findings): &Diagnostics,
    out: &mut impl Write,
) -> Result<ExitCode> {
    show(findings, out)?;
    let path = location.path().display();
    let is_error = |finding: &&Diagnostic| finding.severity == Severity::Error;
    let errors = findings.iter().filter(is_error).count();
    let errors = counted(errors, "error", "errors");
    writeln!(out, "{path}: {errors}; a reload would change nothing")?;
    Ok(ExitCode::FAILURE)
}

/// Shows findings with their positions.
///
/// # Errors
/// The output fails.
pub fn show(findings: &[Diagnostic], out: &mut impl Write) -> io::Result<()> {
    let mut shown = Findings::default();
    findings
        .iter()
        .try_for_each(|finding| shown.show(finding, out))
}

/// A master in the background would log to nothing.
pub fn no_way_out(location: &Location, config: &Config) -> Option<Diagnostic> {
    let parameters = &config.parameters;
    if !parameters.maillog_file.is_empty() {
        return None;
    }
    let reason = log::why_lost(parameters.log_format == LogFormat::Journal)?;
    let advice = "start a process that takes them, or set maillog_file";
    Some(Diagnostic {
        severity: Severity::Warning,
        path: location.path().to_owned(),
        position: None,
        message: format!("log lines are lost, unless the master runs with -d: {reason}: {advice}"),
    })
}

/// What keeps the master from starting services with a sandbox: the program for that, beside the
/// master. Under Postfix that is the daemon directory; without it, masterctl is beside the master, too.
fn missing_executor(config: &Config, location: &Location, sources: &Sources) -> Option<Diagnostic> {
    config.services.iter().find(|s| s.sandbox().is_some())?;
    let path = if location.is_stand_alone() {
        beside_this_program(sandbox::PROGRAM)
    } else {
        config.parameters.daemon_directory.join(sandbox::PROGRAM)
    };
    let error = check_executor(&path)
        .and_then(|()| same_version(&path))
        .err()?;
    Some(Diagnostic {
        severity: Severity::Error,
        path: sources.master_toml.as_ref()?.path.clone(),
        position: None,
        message: format!("{error:#}"),
    })
}

/// Checks that the program that starts services with a sandbox understands this version's settings.
/// Others cannot have changed it.
fn same_version(executor: &Path) -> Result<()> {
    let output = Command::new(executor).arg("--version").output();
    let output = output.with_context(|| format!("{} --version", executor.display()))?;
    let found = String::from_utf8_lossy(&output.stdout);
    let expected = concat!("master-exec ", env!("CARGO_PKG_VERSION"));
    ensure!(
        found.trim() == expected,
        "{}: its version is {:?}, expected {expected:?}: install both programs from one release, and \
         restart the master",
        executor.display(),
        found.lines().next().unwrap_or_default()
    );
    Ok(())
}

/// The position of a service's command: the eighth word, perhaps on a further line.
fn command_position(text: &str, line: u32) -> Position {
    let lines = text.lines().zip(1..).skip(line as usize - 1);
    let has_text = |text: &str| !matches!(text.trim_start().chars().next(), None | Some('#'));
    let mut words = lines
        .filter(|(text, _)| has_text(text))
        .flat_map(|(text, line)| {
            text.split_whitespace().map(move |word| {
                let before = &text[..word.as_ptr() as usize - text.as_ptr() as usize];
                let column = before.chars().count() as u32 + 1;
                Position { line, column }
            })
        });
    words.nth(7).unwrap_or(Position { line, column: 1 })
}

/// The master finds out only when it listens there: a start then fails, and so does a reload that adds
/// the place. One that listens there already goes on.
fn missing_place(
    place: ListenAddress<'_>,
    service: &Service,
    config: &Config,
    sources: &Sources,
) -> Option<Diagnostic> {
    let problem = match place {
        ListenAddress::Inet(mut address) if !config.parameters.bind_missing_addresses => {
            address.set_port(0);
            let error = UdpSocket::bind(address).err()?;
            if error.kind() != io::ErrorKind::AddrNotAvailable {
                return None;
            }
            "no network interface of this machine has that address: a start fails, unless \
             bind_missing_addresses is set to yes"
                .to_owned()
        }
        ListenAddress::Path(path) if path.is_absolute() => {
            let directory = path.parent()?;
            let error = fs::metadata(directory).err()?;
            if error.kind() != io::ErrorKind::NotFound {
                return None;
            }
            let directory = directory.display();
            format!("the directory {directory} is missing, and a start fails: make it")
        }
        _ => return None,
    };
    let table = sources.tables().find(|table| table.path == *service.table);
    let line = service.line;
    Some(Diagnostic {
        severity: Severity::Warning,
        path: service.table.to_path_buf(),
        position: table.map(|_| Position { line, column: 1 }),
        message: format!("cannot listen on {place}: {problem}"),
    })
}

/// A reload does not check that programs exist, so a missing one would be noticed only by the first
/// client.
fn missing_program(service: &Service, sources: &Sources) -> Option<Diagnostic> {
    let problem = match fs::metadata(&service.path) {
        Err(error) => describe_error(&error),
        Ok(metadata) if !metadata.is_file() => "not a file".to_owned(),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => "not executable".to_owned(),
        Ok(_) => return None,
    };
    let table = sources.tables().find(|table| table.path == *service.table);
    let position = table.map(|table| {
        let text = String::from_utf8_lossy(&table.text);
        command_position(&text, service.line)
    });
    Some(Diagnostic {
        severity: Severity::Warning,
        path: service.table.to_path_buf(),
        position,
        message: format!("program {}: {problem}", service.path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_shown_where_the_table_names_it() {
        let text = "# c\na unix n - - - - true\nb  unix n - -\n\n# c\n  - - \u{fc}b x\n";
        let place = |line| {
            let Position { line, column } = command_position(text, line);
            (line, column)
        };
        assert_eq!(place(2), (2, 18));
        assert_eq!(place(3), (6, 7));
    }
}
