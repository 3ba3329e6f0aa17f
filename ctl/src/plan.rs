//! `masterctl plan`: what a reload would change. It compares the status document with the files.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use master::config::{Base, Config, Sources};
use master::status::{Document, Service, Settings, parameters};

use crate::arguments::Arguments;
use crate::check;
use crate::connection::{MasterClient, StatusReply};
use crate::names::full_name;
use crate::process;
use crate::words::{counted, cut};

/// Parameters that a reload cannot change.
const FIXED: [&str; 2] = ["queue_directory", "data_directory"];

/// Shows the plan. The exit status tells whether a reload would succeed.
///
/// # Errors
/// The master does not answer, the files cannot be read, or the output fails.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    let reply = MasterClient::new(arguments)?.status()?;
    let location = arguments.location_of(&reply)?;
    let sources = sources(location.read()?, &reply);
    let config = match check::parse(&sources, &reply.document) {
        Ok(config) => config,
        Err(findings) => return check::refuse(&location, &findings, out),
    };
    check::show(&config.warnings, out)?;
    Plan::new(&reply.document, &config).show(out)?;
    Ok(ExitCode::SUCCESS)
}

/// The files, with the running master's defaults instead of this program's: the master's program
/// may be in another directory and run as another user.
pub fn sources(mut sources: Sources, reply: &StatusReply) -> Sources {
    if let Base::StandAlone(base) = &mut sources.base {
        let program = fs::read_link(format!("/proc/{}/exe", reply.pid));
        let directory = program.ok().and_then(|p| p.parent().map(PathBuf::from));
        if let Some(user) = process::user(reply.pid) {
            base.user = Some(user).filter(|user| user.uid != 0);
        }
        let in_force = |name: &str| reply.document.settings.get(name).map(PathBuf::from);
        let keep = |path: &mut PathBuf, running: Option<PathBuf>| {
            if let Some(running) = running {
                *path = running;
            }
        };
        keep(
            &mut base.daemon_directory,
            directory.or_else(|| in_force("daemon_directory")),
        );
        keep(
            &mut base.queue_directory,
            Some((&reply.document.queue_directory).into()),
        );
        keep(&mut base.data_directory, in_force("data_directory"));
    }
    sources
}

/// A change: the name, the current value and the new value.
type Change = (String, String, String);

/// The changes that a reload would make.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    added: Vec<String>,
    removed: Vec<(String, u32)>,
    changed: Vec<(String, Vec<Change>)>,
    unchanged: usize,
    /// The number of children that would leave after their current client.
    replaced: usize,
    parameters: Vec<Change>,
    /// Changed parameters that need a restart of the master.
    fixed: Vec<Change>,
}

impl Plan {
    fn new(document: &Document, config: &Config) -> Self {
        let mut plan = Self::default();
        let services = config.services.iter();
        let wanted: Vec<Service> = services.map(|s| Service::configured(0, s)).collect();
        let same = |a: &Service, b: &Service| a.kind == b.kind && a.endpoint == b.endpoint;
        for service in &wanted {
            let running = document
                .services
                .iter()
                .find(|running| same(running, service));
            match running {
                None => plan.added.push(full_name(service)),
                Some(running) => plan.compare(running, service),
            }
        }
        for running in &document.services {
            if !wanted.iter().any(|service| same(service, running)) {
                plan.removed.push((full_name(running), running.total));
            }
        }
        plan.compare_parameters(document, config);
        plan
    }

    fn compare(&mut self, running: &Service, wanted: &Service) {
        self.replaced += running.total as usize;
        let mut changes = differences(&running.settings, &wanted.settings);
        let columns = columns(running).into_iter().zip(columns(wanted));
        let differing = columns.filter(|(before, after)| before != after);
        changes.splice(
            0..0,
            differing.map(|((name, before), (_, after))| (name.to_owned(), before, after)),
        );
        if running.backlog_limit != wanted.backlog_limit && running.listeners == wanted.listeners {
            let (before, after) = (running.backlog_limit, wanted.backlog_limit);
            let name = format!("queue length of {}", full_name(running));
            self.fixed
                .push((name, before.to_string(), after.to_string()));
        }
        if changes.is_empty() {
            self.unchanged += 1;
        } else {
            self.changed.push((full_name(wanted), changes));
        }
    }

    fn compare_parameters(&mut self, document: &Document, config: &Config) {
        let with_queue = |settings: &Settings, queue: String| {
            let mut settings = settings.clone();
            settings.insert("queue_directory".to_owned(), queue);
            settings
        };
        let queue = config.parameters.queue_directory.display().to_string();
        let after = with_queue(&parameters(&config.parameters), queue);
        let before = with_queue(&document.settings, document.queue_directory.clone());
        let changes = differences(&before, &after);
        let (fixed, free): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|(name, ..)| FIXED.contains(&name.as_str()));
        self.fixed.extend(fixed);
        self.parameters = free;
    }

    fn show(&self, out: &mut impl Write) -> io::Result<()> {
        for name in &self.added {
            writeln!(out, "+ {}", cut(name, usize::MAX))?;
        }
        for (name, children) in &self.removed {
            let children = counted(*children as usize, "child ends", "children end");
            writeln!(out, "- {}: {children}", cut(name, usize::MAX))?;
        }
        for (name, changes) in &self.changed {
            writeln!(out, "~ {}", cut(name, usize::MAX))?;
            show_changes(changes, out)?;
        }
        show_section("parameters:", &self.parameters, out)?;
        show_section(
            "not changed by a reload, only when the master is stopped and started:",
            &self.fixed,
            out,
        )?;
        let kept = self.changed.len() + self.unchanged;
        let counts = [
            (self.added.len(), "added"),
            (self.removed.len(), "removed"),
            (self.changed.len(), "changed"),
            (self.unchanged, "unchanged"),
        ]
        .map(|(n, what)| format!("{n} {what}"))
        .join(", ");
        let children = counted(self.replaced, "child", "children");
        let kept = counted(kept, "service", "services");
        writeln!(out, "services: {counts}")?;
        writeln!(
            out,
            "{children} of {kept} that stay would leave when they have finished with their client"
        )
    }
}

fn show_section(title: &str, changes: &[Change], out: &mut impl Write) -> io::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    writeln!(out, "{title}")?;
    show_changes(changes, out)
}

fn show_changes(changes: &[Change], out: &mut impl Write) -> io::Result<()> {
    changes.iter().try_for_each(|(name, before, after)| {
        let [before, after] = [before, after].map(|text| cut(text, usize::MAX));
        writeln!(out, "    {name}: {before} -> {after}")
    })
}

/// The values of the table's columns, in the table's format.
fn columns(service: &Service) -> [(&'static str, String); 8] {
    let yes = |flag: bool| if flag { "y" } else { "n" }.to_owned();
    let wakeup = service
        .wakeup
        .map_or_else(|| "never".to_owned(), |every| format!("{every}s"));
    let words = std::iter::once(&service.program).chain(&service.arguments);
    [
        ("name", service.name.clone()),
        ("listeners", service.listeners.join(" ")),
        ("unprivileged", yes(service.unprivileged)),
        ("chroot", yes(service.chroot)),
        ("wakeup", wakeup),
        ("maxproc", service.maximum.to_string()),
        ("command", words.cloned().collect::<Vec<_>>().join(" ")),
        ("accept", service.accept.clone()),
    ]
}

/// The settings that differ.
fn differences(before: &Settings, after: &Settings) -> Vec<Change> {
    let value = |settings: &Settings, name: &str| {
        let value = settings.get(name).cloned();
        value.unwrap_or_else(|| "default".to_owned())
    };
    let added = after.keys().filter(|name| !before.contains_key(*name));
    let names = before.keys().chain(added);
    let changes = names.map(|name| (name.clone(), value(before, name), value(after, name)));
    changes
        .filter(|(_, before, after)| before != after)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{config, document};

    fn shown(before: &Document, table: &str, toml: &str) -> String {
        let mut out = Vec::new();
        let plan = Plan::new(before, &config(table, toml));
        plan.show(&mut out).expect("a vector takes all");
        String::from_utf8(out).expect("text")
    }

    const TABLE: &str = "a unix - - - - - a\nb unix - - - 60 5 b -x\n";

    #[test]
    fn the_same_configuration_changes_nothing() {
        let mut document = document(TABLE);
        document.services[1].total = 3;
        assert_eq!(
            shown(&document, TABLE, ""),
            "services: 0 added, 0 removed, 0 changed, 2 unchanged\n\
             3 children of 2 services that stay would leave when they have finished with their client\n"
        );
    }

    #[test]
    fn services_come_and_go() {
        let mut document = document(TABLE);
        document.services[0].total = 1;
        let text = shown(
            &document,
            "b unix - - - 60 5 b -x\nb fifo n - - - - b\n",
            "",
        );
        assert!(
            text.starts_with("+ b/fifo\n- a/unix: 1 child ends\n"),
            "{text}"
        );
        assert!(
            text.contains("services: 1 added, 1 removed, 0 changed, 1 unchanged\n"),
            "{text}"
        );
    }

    #[test]
    fn changes_are_named_with_what_was_and_what_will_be() {
        let table = "a unix - - - - - a\nb unix - n - 60? 9 b -y\n";
        let text = shown(&document(TABLE), table, "");
        assert!(
            text.starts_with(
                "~ b/unix\n\
                 \x20   unprivileged: y -> n\n\
                 \x20   maxproc: 5 -> 9\n\
                 \x20   command: /usr/libexec/b -x -> /usr/libexec/b -y\n\
                 \x20   wakeup_once_used: default -> yes\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn what_master_toml_says_of_a_service_is_a_change_too() {
        let toml = "[service.\"b/unix\"]\nmin_idle = 2\n";
        let text = shown(&document(TABLE), TABLE, toml);
        assert!(
            text.starts_with("~ b/unix\n    min_idle: default -> 2\n"),
            "{text}"
        );
        let toml = "service_throttle_time = \"5s\"\n";
        let text = shown(&document(TABLE), TABLE, toml);
        assert!(text.contains("throttle_time: 60s -> 5s\n"), "{text}");
    }

    #[test]
    fn what_needs_a_restart_is_told_apart() {
        let toml = "queue_directory = \"/elsewhere\"\nservice_kill_time = \"3s\"\n\
                    default_process_limit = 500\n";
        let text = shown(
            &document("b unix - - - - 5 b\n"),
            "b unix - - - - 5 b\n",
            toml,
        );
        let expected = "parameters:\n\
             \x20   service_kill_time: 10s -> 3s\n\
             not changed by a reload, only when the master is stopped and started:\n\
             \x20   queue length of b/unix: 100 -> 500\n\
             \x20   queue_directory: /run/master -> /elsewhere\n";
        assert!(text.starts_with(expected), "{text}");
    }
}
