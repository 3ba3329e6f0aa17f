//! Children that end at once, with status 0 and without a report. Postfix's master starts the next
//! one for the client that waits, without end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::client::Client;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::poll::{until, within};
use testkit::programs::example;
use testkit::{layout, needs_ours, needs_root, test};

use crate::lines::Line;

/// With delays of 0.1 s, 0.2 s, and so on from the fifth start on, this takes ten starts.
const TIME: Duration = Duration::from_secs(2);

/// Adds a service of short-lived children that are counted. The file that grows by a byte with each.
fn short_lived(postfix: &mut Instance, line: &str, option: &str) -> std::path::PathBuf {
    postfix.install(&example("puppet"), "puppet");
    let tally = postfix.path().join("tally");
    let tally_option = format!("tally={}", tally.display());
    postfix.service(&format!("{line} puppet -o {tally_option} {option}"));
    tally
}

fn starts(tally: &Path) -> u64 {
    fs::metadata(tally).map_or(0, |facts| facts.len())
}

/// How often a program is started in some seconds that does nothing for its client.
fn observe(tally: &Path) -> &'static str {
    until(SOON, "five starts", || starts(tally) >= 5);
    match within(TIME, || starts(tally) > 25) {
        Some(()) => MANY,
        None => FEW,
    }
}

const MANY: &str = "it is started again and again";
const FEW: &str = "each start waits longer than the one before";

fn differs_in(what: &str, scenario: impl Fn(&mut Instance) -> &'static str + Sync) {
    needs_root("to run a master");
    let expected = Observed {
        ours: FEW,
        original: MANY,
    };
    let what = format!("A program that ends at once with status 0 and leaves {what}.");
    differs(&what, expected, scenario);
}

#[test]
fn a_program_that_leaves_its_tcp_client_is_not_started_again_and_again() {
    differs_in("its TCP client", |postfix| {
        let address = postfix.address();
        let tally = short_lived(postfix, &format!("{address} inet n - n - -"), "");
        postfix.start();
        let _client = Client::connect(&address);
        observe(&tally)
    });
}

#[test]
fn a_program_that_leaves_its_local_client_is_not_started_again_and_again() {
    differs_in("its local client", |postfix| {
        let tally = short_lived(postfix, "a unix - - n - -", "");
        postfix.start();
        let _client = UnixStream::connect(postfix.socket("private", "a")).expect("a client");
        let seen = observe(&tally);
        if seen == FEW {
            // Not by `Line`, which is of the master under test: this is ours beside any.
            let line = Line::InVain.ours();
            postfix.wait_for_log(line);
            assert_eq!(postfix.log_lines(line).len(), 1);
            postfix.wait_for_log("service \"a\" (private/a): the last 5 processes");
            postfix.wait_for_log("puppet goes into the background, or does not accept clients");
        }
        seen
    });
}

#[test]
fn a_program_that_leaves_a_datagram_is_not_started_again_and_again() {
    differs_in("a datagram", |postfix| {
        let tally = short_lived(postfix, "a unix-dgram - - n - -", "");
        postfix.start();
        let sender = UnixDatagram::unbound().expect("a socket");
        let path = postfix.socket("private", "a");
        sender.send_to(b"hello", path).expect("a datagram");
        observe(&tally)
    });
}

#[test]
fn a_program_that_leaves_a_wake_up_in_its_fifo_is_not_started_again_and_again() {
    differs_in("a wake-up in its FIFO", |postfix| {
        let tally = short_lived(postfix, "a fifo - - n 1 -", "");
        postfix.start();
        observe(&tally)
    });
}

/// "A child that accepts a client and reports nothing is legal": each takes one, and there are
/// always others.
#[test]
fn children_that_take_a_client_without_a_report_are_started_without_delay() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let tally = short_lived(&mut postfix, "a unix - - n - -", "once");
    postfix.start();
    let path = postfix.socket("private", "a");
    let clients = || {
        for _ in 0..50 {
            let client = UnixStream::connect(&path).expect("a client");
            client.set_read_timeout(Some(SOON)).expect("a time limit");
            let mut answer = [0];
            let ended = std::io::Read::read(&mut &client, &mut answer).expect("its end");
            assert_eq!(ended, 0);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(clients);
        }
    });
    assert_eq!(starts(&tally), 200);
    let delays = postfix.log_lines(Line::InVain.ours());
    assert_eq!(delays, [""; 0]);
}

/// The same with many that wait at once.
#[test]
fn a_crowd_that_waits_is_served_by_children_that_take_one_client_each() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let address = postfix.address();
    let line = format!("{address} inet n - n - -");
    let tally = short_lived(&mut postfix, &line, "once");
    postfix.start();
    let _clients: Vec<_> = (0..60).map(|_| Client::connect(&address)).collect();
    until(SOON, "all to be taken", || starts(&tally) == 60);
    let delays = postfix.log_lines(Line::InVain.ours());
    assert_eq!(delays, [""; 0]);
}

#[test]
fn a_program_that_takes_its_client_again_is_started_without_delay() {
    needs_root("to run a master");
    needs_ours("the original has no delays");
    let mut postfix = Instance::bare();
    let tally = short_lived(&mut postfix, "a unix - - n - -", "");
    postfix.start();
    let path = postfix.socket("private", "a");
    let _clients: Vec<_> = (0..30).map(|_| UnixStream::connect(&path)).collect();
    Line::InVain.wait(&postfix, &[""; 0]);
    // The program is mended, without a reload.
    let puppet = postfix.daemons().join("puppet");
    let mended = format!(
        "#!/bin/sh\nexec {} -o tally={} once\n",
        example("puppet").display(),
        tally.display()
    );
    layout::replace(&puppet, &mended);
    fs::set_permissions(&puppet, fs::Permissions::from_mode(0o755)).expect("a mode");
    let before = starts(&tally);
    until(SOON, "all clients to be taken", || {
        starts(&tally) >= before + 30
    });
}

fn with_settings(postfix: &Instance, settings: &str) {
    let table = format!("[service.\"a/unix\"]\n{settings}");
    layout::replace(&postfix.configuration().join("master.toml"), &table);
}

#[test]
fn a_warm_child_that_ends_at_once_is_started_more_and_more_seldom() {
    needs_root("to run a master");
    needs_ours("the original has no master.toml");
    let mut postfix = Instance::bare();
    let tally = short_lived(&mut postfix, "a unix - - n - -", "");
    with_settings(&postfix, "min_idle = 1\n");
    postfix.start();
    assert_eq!(observe(&tally), FEW);
    Line::InVain.wait(&postfix, &[""; 0]);
}

#[test]
fn warm_children_that_take_a_client_each_are_started_without_delay() {
    needs_root("to run a master");
    needs_ours("the original has no master.toml");
    let mut postfix = Instance::bare();
    let tally = postfix.path().join("tally");
    let command = format!(
        "#!/usr/bin/python3\nimport socket\nlistener = socket.socket(fileno=6)\n\
         listener.setblocking(True)\nlistener.accept()\nopen('{}', 'a').write('.')\n",
        tally.display()
    );
    if !Path::new("/usr/bin/python3").exists() {
        testkit::skip("no python3");
    }
    let draft = postfix.path().join("one");
    fs::write(&draft, command).expect("a program");
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).expect("a mode");
    postfix.install(&draft, "one");
    postfix.service("a unix - - n - - one");
    with_settings(&postfix, "min_idle = 8\n");
    postfix.start();
    let path = postfix.socket("private", "a");
    for round in 1..=10 {
        let _clients: Vec<_> = (0..10).map(|_| UnixStream::connect(&path)).collect();
        until(SOON, "ten clients to be taken", || {
            starts(&tally) == 10 * round
        });
    }
    assert_eq!(Line::InVain.count(&postfix), 0);
}

#[test]
fn a_service_starts_no_more_children_in_a_period_than_its_start_limit() {
    needs_root("to run a master");
    needs_ours("the original has no master.toml");
    let mut postfix = Instance::bare();
    let tally = short_lived(&mut postfix, "a unix - - n - -", "once");
    with_settings(&postfix, "start_limit = \"5/3s\"\n");
    postfix.start();
    let path = postfix.socket("private", "a");
    let begin = Instant::now();
    let _clients: Vec<_> = (0..15).map(|_| UnixStream::connect(&path)).collect();
    Line::StartLimit.wait(&postfix, &["has started 5 processes in 3 s"]);
    assert_eq!(starts(&tally), 5);
    until(SOON, "all clients to be taken", || starts(&tally) == 15);
    assert!(
        begin.elapsed() > Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    // A reload changes it.
    with_settings(&postfix, "");
    postfix.reload();
    let _clients: Vec<_> = (0..30).map(|_| UnixStream::connect(&path)).collect();
    until(SOON, "as many as come", || starts(&tally) == 45);
}
