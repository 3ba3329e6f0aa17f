//! Tests of `masterctl top` on a terminal, with a fake master that sends prepared documents.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use master::status::SOCKET;
use tempfile::TempDir;
use testkit::documents::{crowd, stressed};
use testkit::fake_master::FakeMaster;
use testkit::poll::until;
use testkit::run::{Finished, run};

const SOON: Duration = Duration::from_secs(20);

/// A configuration with its queue directory beside it.
fn configuration() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let queue = directory.path().join("queue");
    fs::create_dir_all(queue.join("pid")).expect("a directory");
    let main_cf = format!("queue_directory = {}\n", queue.display());
    fs::write(directory.path().join("main.cf"), main_cf).expect("a file");
    directory
}

fn master(configuration: &TempDir) -> FakeMaster {
    let socket = configuration.path().join("queue").join(SOCKET);
    FakeMaster::new(&socket, &stressed())
}

fn top(configuration: &TempDir, options: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_masterctl"));
    command.arg("-c").arg(configuration.path());
    run(command.arg("top").args(options), SOON)
}

#[test]
fn one_picture_is_printed_with_all_services() {
    let configuration = configuration();
    let master = master(&configuration);
    let shown = top(&configuration, &["--once"]).expect_success().stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[1], "7 services, 1 full, 1 stress");
    assert!(lines[3].starts_with("smtp/inet"), "{shown}");
    assert_eq!(lines.len(), 10);
    assert!(!shown.contains('\u{1b}'), "for a file, no colours: {shown}");
    master.say(&crowd(500));
    let shown = top(&configuration, &["--once"]).expect_success().stdout;
    assert!(shown.contains("\ntenant499/unix"), "{shown}");
}

#[test]
fn without_a_master_it_says_so() {
    let configuration = configuration();
    let failed = top(&configuration, &["--once"]).expect_failure();
    assert!(
        failed.stderr.starts_with("masterctl: no master runs in /"),
        "{failed:?}"
    );
    assert_eq!((failed.status.code(), &*failed.stdout), (Some(3), ""));
}

#[test]
fn a_wrong_directory_is_named() {
    let configuration = tempfile::tempdir().expect("a directory");
    let failed = top(&configuration, &["--once"]).expect_failure();
    assert!(failed.stderr.contains("main.cf"), "{failed:?}");
}

#[test]
fn a_picture_that_moves_needs_a_terminal() {
    let configuration = configuration();
    let _master = master(&configuration);
    let failed = top(&configuration, &[]).expect_failure();
    assert!(failed.stderr.contains("top needs a terminal"), "{failed:?}");
}

#[test]
fn on_a_terminal_it_follows_the_master_until_q_is_pressed() {
    let configuration = configuration();
    let master = master(&configuration);
    let said = configuration.path().join("said");
    let command = format!(
        "stty rows 24 cols 80; exec {} -c {} top",
        env!("CARGO_BIN_EXE_masterctl"),
        configuration.path().display()
    );
    // script(1) runs the command in a pseudo-terminal.
    let mut script = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &command])
        .arg(&said)
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("script(1)");
    let shows = |what: &str| {
        until(SOON, format!("{what} on the terminal"), || {
            let said = fs::read(&said).unwrap_or_default();
            String::from_utf8_lossy(&said).contains(what)
        });
    };
    shows("7 services, 1 full");
    master.say(&crowd(9));
    shows("tenant8/unix");
    master.vanish();
    shows("no master runs in ");
    let mut keys = script.stdin.take().expect("a pipe");
    keys.write_all(b"?").expect("a reader");
    shows("Keys");
    keys.write_all(b"?q").expect("a reader");
    let status = until(SOON, "the end", || script.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
    // The screen is restored.
    shows("\u{1b}[?1049l");
}
