//! The errors of masterctl: their messages and exit statuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::{masterctl, service};
use testkit::poll::until;
use testkit::process::Process;
use testkit::run::{Finished, Running, run};
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

/// All commands that need a running master.
const COMMANDS: [&[&str]; 10] = [
    &["status"],
    &["top", "--once"],
    &["plan"],
    &["reload"],
    &["reload", "a"],
    &["stop"],
    &["pause", "a"],
    &["resume", "a"],
    &["wake", "a"],
    &["log-level", "verbose"],
];

#[track_caller]
fn expect(finished: &Finished, status: i32, words: &str) {
    assert_eq!(finished.status.code(), Some(status), "{finished:?}");
    assert!(finished.stderr.contains(words), "{words:?} in {finished:?}");
}

#[test]
fn without_a_master_every_command_says_so() {
    for mut standalone in Standalone::all() {
        standalone.write_table("a unix n - - - 5 true\n").start();
        // After a normal end the sockets are removed, after a kill they remain.
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            standalone.stop_by(signal);
            for command in COMMANDS {
                expect(&masterctl(&standalone, command), 3, "no master runs in /");
            }
            standalone.start();
        }
    }
}

#[test]
fn a_master_without_these_sockets_is_not_called_none() {
    for mut standalone in Standalone::all() {
        standalone.write_table("a unix n - - - 5 true\n").start();
        for name in [master::status::OWN_SOCKET, master::status::SOCKET] {
            masterctl(&standalone, &["status"]).expect_success();
            fs::remove_file(standalone.queue().join(name)).unwrap();
        }
        let status = masterctl(&standalone, &["status"]);
        expect(&status, 3, "it is Postfix's own, or could not make it");
        expect(
            &status,
            3,
            "if the socket was removed, a stop and a start make it",
        );
    }
}

#[test]
fn a_directory_that_is_no_queue_directory_is_named() {
    let standalone = Standalone::of_a_user();
    let path = standalone.path().display().to_string();
    for command in COMMANDS {
        let arguments = [&["--queue", &path], command].concat();
        let finished = masterctl(&standalone, &arguments);
        expect(&finished, 4, "is not a master's queue directory");
    }
}

#[test]
fn a_stranger_may_neither_look_nor_steer() {
    needs_root("to have a stranger");
    let mut standalone = Standalone::new();
    standalone.write_table("a unix n - - - 5 true\n").start();
    for command in COMMANDS {
        let mut command = standalone.masterctl(command);
        let refused = run(command.uid(4711).gid(4711), SOON);
        expect(&refused, 5, "permission denied");
    }
}

#[test]
fn who_may_only_look_is_told_so_when_steering() {
    needs_root("to run a process with the mail owner's group");
    let mut standalone = Standalone::new();
    standalone.write_table("a unix n - - - 5 true\n").start();
    let socket = fs::metadata(standalone.queue().join(master::status::SOCKET)).unwrap();
    let group = std::os::unix::fs::MetadataExt::gid(&socket);
    let ask = |command: &[&str]| run(standalone.masterctl(command).uid(4711).gid(group), SOON);
    ask(&["status"]).expect_success();
    ask(&["plan"]).expect_success();
    expect(&ask(&["pause", "a"]), 5, "permission denied");
    expect(&ask(&["reload"]), 5, "is another user's: ask as root");
    expect(&ask(&["stop"]), 5, "is another user's: ask as root");
}

#[test]
fn a_service_that_is_not_there_or_not_clear_is_told() {
    let mut standalone = Standalone::of_a_user();
    // One path cannot have two types.
    standalone
        .write_table("hello unix n - - - 5 true\nhello fifo - - - - 5 true\n")
        .start();
    for verb in ["status", "reload", "pause", "resume", "wake"] {
        let unknown = masterctl(&standalone, &[verb, "helo"]);
        expect(
            &unknown,
            6,
            "there is no service \"helo\": did you mean \"hello\"?",
        );
        let several = masterctl(&standalone, &[verb, "hello"]);
        expect(
            &several,
            6,
            "\"hello\" could be hello/unix or hello/fifo: say which",
        );
    }
    // By the configuration.
    let simulate = ["simulate", "--rate=1", "--time=1s", "--service"];
    for command in [&["sandbox"][..], &simulate] {
        let ask = |name| masterctl(&standalone, &[command, &[name]].concat());
        expect(
            &ask("helo"),
            6,
            "there is no service \"helo\": did you mean \"hello\"?",
        );
        expect(
            &ask("xyzzy"),
            6,
            "there is no service \"xyzzy\": see the first column",
        );
        expect(
            &ask("hello"),
            6,
            "\"hello\" could be hello/unix or hello/fifo: say which",
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told_in_words() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n");
    let file = standalone.table().with_file_name("master.toml");
    std::os::unix::fs::symlink("/nonexistent", &file).unwrap();
    let checked = masterctl(&standalone, &["check"]);
    expect(&checked, 2, "master.toml: No such file or directory\n");
}

#[test]
fn a_master_that_dies_meanwhile_is_told_from_none() {
    for command in COMMANDS {
        let mut standalone = Standalone::of_a_user();
        standalone.write_table("a unix n - - - 5 true\n").start();
        standalone.process().signal(Signal::SIGSTOP);
        let asking = Running::start(&mut standalone.masterctl(command));
        let process = Process(asking.pid());
        until(SOON, "masterctl to wait for the master", || process.waits());
        standalone.stop_by(Signal::SIGKILL);
        expect(&asking.finish(SOON), 7, "has ended, or does not answer");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(
        "a unix n - - - 5 false\nb unix n - - - 5 true\nc unix-dgram n - - - 1 true\n",
    );
    standalone.write_toml("service_throttle_time = \"600s\"\n");
    let script = standalone.script("fails", "exit 1");
    let table = fs::read_to_string(standalone.table())
        .unwrap()
        .replace("false", &script.display().to_string());
    standalone.write_table(&table).start();
    let socket = standalone.queue().join("public/a");
    let _client = Client::connect(&socket.to_string_lossy());
    until(SOON, "the service to be throttled", || {
        service(&standalone, "a").throttled_until.is_some()
    });
    expect(
        &masterctl(&standalone, &["wake", "a"]),
        8,
        "the service is throttled",
    );
    masterctl(&standalone, &["pause", "b"]).expect_success();
    expect(
        &masterctl(&standalone, &["wake", "b"]),
        8,
        "the service is paused",
    );
    expect(
        &masterctl(&standalone, &["wake", "c"]),
        8,
        "datagram service",
    );
    standalone.wait_for_line("wake up service \"b\" (public/b): refused to uid ");
}

#[test]
fn a_control_socket_that_cannot_be_made_keeps_nobody_from_serving() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    standalone.stop_by(Signal::SIGTERM);
    for name in [master::status::SOCKET, master::control::SOCKET] {
        fs::create_dir(standalone.queue().join(name)).unwrap();
    }
    standalone.start();
    standalone.wait_for_line("warning: no status socket: pid/master.status: Is a directory");
    standalone.wait_for_line("warning: no control socket: pid/master.control: Is a directory");
    let mode = fs::metadata(standalone.queue().join("public/a")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o666);
}
