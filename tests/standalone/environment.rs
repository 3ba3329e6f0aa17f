//! Environment entries that no shell would create.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::execve;

use testkit::instance::SOON;
use testkit::poll::until;
use testkit::standalone::Standalone;
use testkit::test;

fn c_string(text: &OsStr) -> CString {
    CString::new(text.as_bytes()).expect("no null byte")
}

/// Adds arbitrary entries to a command's environment.
fn with_entries(mut command: Command, entries: &[&str]) -> Command {
    let program = c_string(command.get_program());
    let arguments: Vec<CString> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(c_string)
        .collect();
    let variables = command.get_envs().map(|(name, value)| {
        let mut entry = name.to_owned();
        entry.push("=");
        entry.push(value.unwrap_or_default());
        c_string(&entry)
    });
    let odd = entries.iter().map(|entry| c_string(OsStr::new(entry)));
    let environment: Vec<CString> = odd.chain(variables).collect();
    let run = move || {
        execve(&program, &arguments, &environment)
            .map(drop)
            .map_err(io::Error::from)
    };
    // SAFETY: between fork and exec the closure makes only one system call, with data that exists
    // already.
    unsafe { command.pre_exec(run) };
    command
}

#[test]
fn an_entry_without_a_proper_name_does_not_harm_the_master() {
    let mut standalone = Standalone::of_a_user();
    let facts = standalone.path().join("facts");
    let script = standalone.script(
        "witness",
        &format!(
            "env >{0}.new; mv {0}.new {0}; exec sleep 1000",
            facts.display()
        ),
    );
    standalone.write_table(&format!("woken fifo n - - 60 1 {}\n", script.display()));
    let mut master = standalone.master(&["-d"]);
    master.process_group(0);
    let mut master = with_entries(
        master,
        &["=A=b", "=", "", "noequals", "=C", "A=twice", "A=twice"],
    );
    standalone.start_as(&mut master);
    let environment = until(SOON, "the child's word", || {
        std::fs::read_to_string(&facts).ok()
    });
    assert!(environment.contains("MAIL_CONFIG="), "{environment}");
    assert!(!environment.contains("=A"), "{environment}");
    standalone.reload();
    assert!(
        standalone.said().contains("reload done"),
        "{}",
        standalone.said()
    );
}
