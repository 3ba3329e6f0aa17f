//! `masterctl sandbox`: what a child of a service may do, by the configuration.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use master::config::{Config, Service};
use master::files::Names;
use master::sandbox::{Sandbox, call_name};

use crate::arguments::Arguments;
use crate::check;
use crate::names;

/// Shows the limits and the sandbox of a service, as the configuration has them now.
///
/// # Errors
/// A file cannot be read, no service has this name, or the output fails.
pub fn run(arguments: &Arguments, name: &str, out: &mut impl Write) -> Result<ExitCode> {
    let location = arguments.location()?;
    let config = match Config::parse_to_replace(&location.read()?, true, &Names) {
        Ok(config) => config,
        Err(findings) => return check::refuse(&location, &findings, out),
    };
    let service = names::configured(&config, name)?;
    write!(out, "{}", described(service))?;
    Ok(ExitCode::SUCCESS)
}

fn described(service: &Service) -> String {
    let name = format!("{}/{}", service.name, service.kind);
    let program = service.path.display();
    let Some(sandbox) = service.sandbox() else {
        return format!(
            "{name}: {program} has no limits and no sandbox: it may do what the master may\n"
        );
    };
    let mut text = format!("{name}: {program}\n");
    let shown = sandbox.shown();
    let apart = ["read_only_paths", "read_write_paths", "system_call_filter"];
    for (key, value) in shown.iter().filter(|(key, _)| !apart.contains(&&**key)) {
        text += &format!("  {key:<24}{value}\n");
    }
    let files = &sandbox.files;
    if files.are_restricted() {
        list(&mut text, "can read and execute beneath", &files.read_only);
        list(
            &mut text,
            "can read, write and execute beneath",
            &files.read_write,
        );
    } else {
        text += "  can open each file that its user may open\n";
    }
    text += &calls(sandbox);
    text
}

fn list(text: &mut String, title: &str, items: &[String]) {
    *text += &format!("  {title}\n");
    for item in items {
        *text += &format!("    {item}\n");
    }
    if items.is_empty() {
        *text += "    nothing\n";
    }
}

/// The system calls, by their names in lines of some length.
fn calls(sandbox: &Sandbox) -> String {
    let Some(filter) = &sandbox.system_call_filter else {
        return "  can use each system call\n".to_owned();
    };
    let what = if sandbox.system_call_kill {
        "ends the process"
    } else {
        "fails with EPERM"
    };
    let mut text = String::new();
    if filter.allowed.is_empty() {
        text += &format!("  each of these system calls {what}\n");
        wrap(&mut text, &filter.denied);
    } else {
        text += &format!("  each system call {what} but\n");
        let is_allowed = |call: &&u32| !filter.denied.contains(call);
        let allowed: Vec<_> = filter.allowed.iter().filter(is_allowed).copied().collect();
        wrap(&mut text, &allowed);
    }
    text + "  clone3 fails with ENOSYS, and clone when it is to make namespaces\n"
}

fn wrap(text: &mut String, calls: &[u32]) {
    const WIDTH: usize = 78;
    let mut names: Vec<_> = calls.iter().map(|call| call_name(*call)).collect();
    names.sort_unstable();
    let mut line = String::new();
    for name in names {
        if line.len() + name.len() + 5 > WIDTH {
            *text += &format!("   {line}\n");
            line.clear();
        }
        line = line + " " + &name;
    }
    *text += &format!("   {line}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    const TABLE: &str = "a unix - - - - - a\n";

    fn shown(settings: &str) -> String {
        let toml = format!("[service.\"a/unix\"]\n{settings}\n");
        described(&config(TABLE, &toml).services[0])
    }

    #[test]
    fn a_free_service_is_said_to_be_free() {
        let text =
            "a/unix: /usr/libexec/a has no limits and no sandbox: it may do what the master may\n";
        assert_eq!(shown(""), text);
        assert_eq!(shown("sandbox = \"none\""), text);
    }

    #[test]
    fn limits_files_and_calls_are_shown() {
        let text = shown("limit_core = 0\nsystem_call_filter = \"baseline\"");
        assert!(
            text.starts_with("a/unix: /usr/libexec/a\n  limit_core              0:0\n"),
            "{text}"
        );
        for part in [
            "can open each file that its user may open",
            "each of these system calls fails with EPERM\n",
            " ptrace",
            "clone3 fails with ENOSYS",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = shown(
            "system_call_filter = [\"execve\", \"read\", \"~read\"]\nsystem_call_error_number = \"kill\"",
        );
        assert!(
            text.contains("each system call ends the process but\n    execve\n"),
            "{text}"
        );
    }

    #[test]
    fn a_preset_shows_what_it_consists_of() {
        let text = shown("sandbox = \"network-service\"");
        for part in [
            "no_new_privileges       true",
            "signals abstract_sockets",
            " memfd_create",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
