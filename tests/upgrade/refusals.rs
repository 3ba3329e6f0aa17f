//! Programs and states that are refused: the master serves on, and says why.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use testkit::client::Client;
use testkit::operator::{masterctl, read_document, told};
use testkit::standalone::Standalone;
use testkit::test;

/// A master with a service that sends a line to each client.
fn serving() -> Standalone {
    let mut standalone = Standalone::of_a_user();
    let command = standalone.greeter();
    standalone.write_table(&format!("a unix n - - - 5 {command}\n"));
    standalone.start();
    standalone
}

/// Asks for an upgrade to a program that cannot be upgraded to, for this reason.
fn refused(standalone: &mut Standalone, program: &Path, why: &str) {
    let pid = standalone.process().0;
    let path = program.to_string_lossy();
    let finished = masterctl(standalone, &["upgrade", "--program", &path]).expect_failure();
    assert!(finished.stderr.contains(why), "{path}: {finished:?}");
    standalone.wait_for_line(&format!(
        "upgrade refused, and nothing has changed: {path}: "
    ));
    assert!(standalone.said().contains(why), "{path}");
    let document = read_document(standalone);
    assert_eq!((document.pid as i32, document.upgrades), (pid, 0));
    let socket = standalone.queue().join("public/a");
    assert_eq!(Client::connect(&socket.to_string_lossy()).line(), "hello");
}

/// Makes a file with this mode, and returns its path.
fn file(standalone: &Standalone, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
    let path = standalone.path().join(name);
    fs::write(&path, bytes).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    path
}

#[test]
fn what_is_no_program_is_refused_before_anything_is_run() {
    let mut standalone = serving();
    let missing = standalone.path().join("missing");
    refused(&mut standalone, &missing, "No such file or directory");
    let directory = standalone.path().to_owned();
    refused(&mut standalone, &directory, "it is a directory");
    let text = file(&standalone, "text", b"#!/bin/sh\n", 0o644);
    refused(&mut standalone, &text, "it is not executable");
    let garbage = file(
        &standalone,
        "garbage",
        &[0x7f, b'E', b'L', b'F', 9, 9, 9, 9],
        0o755,
    );
    refused(
        &mut standalone,
        &garbage,
        "it is not a program of this machine",
    );
    let interpreter = file(&standalone, "bang", b"#!/nonexistent/sh\n", 0o755);
    refused(&mut standalone, &interpreter, "No such file or directory");
}

#[test]
fn other_programs_and_older_ones_are_refused() {
    let mut standalone = serving();
    refused(
        &mut standalone,
        Path::new("/bin/true"),
        "ends with status 0 and says nothing",
    );
    refused(
        &mut standalone,
        Path::new("/bin/cat"),
        "unrecognized option",
    );
    let words = "echo 'master: fatal: unknown option --resume-check' >&2; exit 1";
    let old = standalone.script("old", words);
    refused(&mut standalone, &old, "unknown option --resume-check");
    let chatty = standalone.script("chatty", "exec yes");
    refused(&mut standalone, &chatty, "killed by signal");
}

#[test]
fn programs_that_crash_or_hang_are_refused() {
    let mut standalone = serving();
    let crashing = standalone.script("crashing", "kill -SEGV $$");
    refused(&mut standalone, &crashing, "killed by signal 11");
    let hanging = standalone.script("hanging", "exec sleep 1000");
    let why = "it has not said within 5 s whether it understands the state";
    refused(&mut standalone, &hanging, why);
}

#[test]
fn a_program_without_memory_or_descriptors_is_refused() {
    let mut standalone = serving();
    let master = standalone.path().join("master");
    let master = master.display();
    let words = format!("ulimit -v 2000; exec {master} \"$@\"");
    let poor = standalone.script("poor", &words);
    refused(&mut standalone, &poor, "killed by signal");
    let words = format!("exec {master} --resume-check 1000");
    let blind = standalone.script("blind", &words);
    refused(&mut standalone, &blind, "cannot read the state");
}

#[test]
fn a_program_that_says_that_it_refuses_is_refused_with_its_reason() {
    let mut standalone = serving();
    let words = "echo 'resume-check: refused: the state of version 9 has format 9'; exit 1";
    let older = standalone.script("older", words);
    refused(
        &mut standalone,
        &older,
        "the state of version 9 has format 9",
    );
    let words = "echo 'resume-check: understood by version 9'; exit 3";
    let liar = standalone.script("liar", words);
    refused(&mut standalone, &liar, "ends with status 3");
}

#[test]
fn a_script_that_executes_the_master_can_go_on() {
    let mut standalone = serving();
    let words = format!("exec {}/master \"$@\"", standalone.path().display());
    let script = standalone.script("wrapper", &words);
    let pid = standalone.process().0;
    told(
        &standalone,
        &["upgrade", "--program", &script.to_string_lossy()],
    );
    assert_eq!(read_document(&standalone).pid as i32, pid);
}

#[test]
fn a_program_that_cannot_be_executed_after_it_was_checked_is_refused() {
    let mut standalone = serving();
    let shell = standalone.path().join("shell");
    fs::copy("/bin/sh", &shell).expect("a shell");
    let (interpreter, master) = (shell.display(), standalone.path().join("master"));
    let words = format!(
        "#!{interpreter}\n{} \"$@\"\nrm {interpreter}\n",
        master.display()
    );
    let program = file(&standalone, "brief", words.as_bytes(), 0o755);
    refused(&mut standalone, &program, "No such file or directory");
    assert!(standalone.said().contains("upgrading from "));
    // Signals, children and further upgrades are as before.
    assert!(standalone.reload().contains("reload done"));
    let pid = standalone.process().0;
    told(&standalone, &["upgrade"]);
    assert_eq!(read_document(&standalone).pid as i32, pid);
}
