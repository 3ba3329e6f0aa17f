//! `--help` and `--version` of every program, and output that cannot be written.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use testkit::instance::SOON;
use testkit::programs::{executor, master, masterctl, service, statusd};
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::{file, test};

/// The status when standard output cannot be written.
const OUTPUT_FAILED: Option<i32> = Some(9);

/// Every program of the project, by its name.
fn programs() -> Vec<(String, PathBuf)> {
    let sources = std::fs::read_dir(file("services/src/bin")).expect("a directory");
    let names = sources.map(|source| source.expect("a file").path());
    let name = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into();
    let mut programs: Vec<(String, PathBuf)> = names
        .map(name)
        .map(|name: String| (name.clone(), service(&name)))
        .collect();
    programs.extend([
        ("master".into(), master()),
        ("masterctl".into(), masterctl()),
        ("master-exec".into(), executor()),
        ("statusd".into(), statusd()),
    ]);
    programs
}

fn command(program: &PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env_remove("GENERATION").args(arguments);
    command
}

#[test]
fn every_program_answers_help_and_version_on_standard_output() {
    for (name, program) in programs() {
        let version = run(&mut command(&program, &["--version"]), SOON).expect_success();
        assert_eq!(
            version.stdout,
            format!("{name} {}\n", env!("CARGO_PKG_VERSION"))
        );
        assert_eq!(version.stderr, "");
        let help = run(&mut command(&program, &["--help"]), SOON).expect_success();
        assert!(help.stdout.contains(&format!("{name} ")), "{help:?}");
        assert!(help.stdout.contains("--version"), "{help:?}");
        assert_eq!(help.stderr, "");
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    for (name, program) in programs() {
        for question in ["--help", "--version"] {
            let full = OpenOptions::new().write(true).open("/dev/full");
            for (output, reason) in [
                (full, "No space left on device"),
                // Not open for writing.
                (File::open("/dev/null"), "Bad file descriptor"),
            ] {
                let mut asked = command(&program, &[question]);
                let asked = asked.stdout(output.expect("a device")).output();
                let asked = asked.expect("a program");
                assert_eq!(asked.status.code(), OUTPUT_FAILED, "{asked:?}");
                let said = String::from_utf8_lossy(&asked.stderr);
                assert_eq!(said, format!("{name}: standard output: {reason}\n"));
            }
        }
    }
}

#[test]
fn what_masterctl_cannot_write_is_an_error_of_its_own() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    standalone.write_table("a unix n - - - 6 true\n");
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["status", "a"],
        &["top", "--once"],
        &["check"],
        &["plan"],
        &["pause", "a"],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["help", "status"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full");
        let mut command = standalone.masterctl(arguments);
        let finished = command.stdout(full.expect("a device")).output();
        let finished = finished.expect("masterctl");
        assert_eq!(finished.status.code(), OUTPUT_FAILED, "{finished:?}");
        let said = String::from_utf8_lossy(&finished.stderr);
        let expected = "masterctl: standard output: No space left on device\n";
        assert_eq!(said, expected, "{arguments:?}");
    }
}

#[test]
fn a_reader_that_leaves_early_gets_no_message() {
    let standalone = Standalone::of_a_user();
    for arguments in [&["completions", "bash"][..], &["--help"]] {
        let mut command = standalone.masterctl(arguments);
        let (reader, writer) = UnixStream::pair().expect("a connection");
        drop(reader);
        let finished = command
            .stdout(OwnedFd::from(writer))
            .output()
            .expect("masterctl");
        assert_eq!(finished.status.code(), OUTPUT_FAILED, "{finished:?}");
        assert!(finished.stderr.is_empty(), "{finished:?}");
    }
}

#[test]
fn a_reader_that_leaves_after_a_line_has_the_line() {
    let mut standalone = Standalone::of_a_user();
    // More than a pipe holds.
    let table: String = (0..2000)
        .map(|n| format!("s{n} unix n - - - 5 true\n"))
        .collect();
    standalone.write_table(&table).start();
    let mut command = standalone.masterctl(&["status"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("masterctl");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    let version = concat!("master ", env!("CARGO_PKG_VERSION"), ": pid ");
    assert!(line.starts_with(version), "{line}");
    drop(lines);
    let mut said = String::new();
    let mut errors = child.stderr.take().expect("a pipe");
    errors.read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("an end").code(), OUTPUT_FAILED);
    assert_eq!(said, "");
}

#[test]
fn in_a_service_table_a_question_is_an_invalid_option() {
    let mut echo = Command::new(service("echo"));
    echo.env("GENERATION", "1").args(["--help", "-V"]);
    let finished = run(&mut echo, SOON).expect_failure();
    assert_eq!(finished.status.code(), Some(1));
    assert_eq!(finished.stdout, "");
}
