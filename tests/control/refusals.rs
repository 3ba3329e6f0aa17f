//! What masterctl cannot do, and how it says so: in clear words, and by its exit status.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use nix::sys::signal::Signal;

use super::common::client::Client;
use super::common::instance::SOON;
use super::common::poll::until;
use super::common::process::Process;
use super::common::run::{Finished, Running, run};
use super::common::world::World;
use super::stage::{masterctl, service};
use crate::needs_root;

/// All that ask a running master for something.
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
    for mut world in World::all() {
        world.write_table("a unix n - - - 5 true\n").start();
        // One that ended well leaves nothing, one that was killed leaves its sockets.
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            world.stop_by(signal);
            for command in COMMANDS {
                expect(&masterctl(&world, command), 3, "no master runs in /");
            }
            world.start();
        }
    }
}

#[test]
fn a_master_without_these_sockets_is_not_called_none() {
    for mut world in World::all() {
        world.write_table("a unix n - - - 5 true\n").start();
        fs::remove_file(world.queue().join(master::status::SOCKET)).unwrap();
        let status = masterctl(&world, &["status"]);
        expect(&status, 3, "it is Postfix's own, or could not make it");
    }
}

#[test]
fn a_directory_that_is_no_queue_directory_is_named() {
    let world = World::of_a_user();
    let path = world.path().display().to_string();
    for command in COMMANDS {
        let arguments = [&["--queue", &path], command].concat();
        let finished = masterctl(&world, &arguments);
        expect(&finished, 4, "is not a master's queue directory");
    }
}

#[test]
fn a_stranger_may_neither_look_nor_steer() {
    needs_root!("to have a stranger");
    let mut world = World::new();
    world.write_table("a unix n - - - 5 true\n").start();
    for command in COMMANDS {
        let mut command = world.masterctl(command);
        let refused = run(command.uid(4711).gid(4711), SOON);
        expect(&refused, 5, "permission denied");
    }
}

#[test]
fn who_may_only_look_is_told_so_when_steering() {
    needs_root!("to have somebody of the mail owner's group");
    let mut world = World::new();
    world.write_table("a unix n - - - 5 true\n").start();
    let socket = fs::metadata(world.queue().join(master::status::SOCKET)).unwrap();
    let group = std::os::unix::fs::MetadataExt::gid(&socket);
    let ask = |command: &[&str]| run(world.masterctl(command).uid(4711).gid(group), SOON);
    ask(&["status"]).expect_success();
    ask(&["plan"]).expect_success();
    expect(&ask(&["pause", "a"]), 5, "permission denied");
    expect(&ask(&["reload"]), 5, "is another user's: ask as root");
    expect(&ask(&["stop"]), 5, "is another user's: ask as root");
}

#[test]
fn a_service_that_is_not_there_or_not_clear_is_told() {
    let mut world = World::of_a_user();
    // One path cannot have two types.
    world
        .write_table("hello unix n - - - 5 true\nhello fifo - - - - 5 true\n")
        .start();
    for verb in ["status", "reload", "pause", "resume", "wake"] {
        let unknown = masterctl(&world, &[verb, "helo"]);
        expect(
            &unknown,
            6,
            "there is no service \"helo\": did you mean \"hello\"?",
        );
        let several = masterctl(&world, &[verb, "hello"]);
        expect(
            &several,
            6,
            "\"hello\" could be hello/unix or hello/fifo: say which",
        );
    }
}

#[test]
fn a_master_that_dies_meanwhile_is_told_from_none() {
    for command in COMMANDS {
        let mut world = World::of_a_user();
        world.write_table("a unix n - - - 5 true\n").start();
        world.process().signal(Signal::SIGSTOP);
        let asking = Running::start(&mut world.masterctl(command));
        let process = Process(asking.pid());
        until(SOON, "masterctl to wait for the master", || process.waits());
        world.stop_by(Signal::SIGKILL);
        expect(&asking.finish(SOON), 7, "has ended, or does not answer");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = World::of_a_user();
    world.write_table(
        "a unix n - - - 5 false\nb unix n - - - 5 true\nc unix-dgram n - - - 1 true\n",
    );
    world.write_toml("service_throttle_time = \"600s\"\n");
    let script = world.script("fails", "exit 1");
    let table = fs::read_to_string(world.table()).unwrap();
    let table = table.replace("false", &script.display().to_string());
    world.write_table(&table).start();
    let socket = world.queue().join("public/a");
    let _client = Client::connect(&socket.to_string_lossy());
    until(SOON, "the service to be throttled", || {
        service(&world, "a").throttled_until.is_some()
    });
    expect(
        &masterctl(&world, &["wake", "a"]),
        8,
        "the service is throttled",
    );
    masterctl(&world, &["pause", "b"]).expect_success();
    expect(
        &masterctl(&world, &["wake", "b"]),
        8,
        "the service is paused",
    );
    expect(&masterctl(&world, &["wake", "c"]), 8, "datagram service");
    world.wait_for_line("wake up service \"b\" (public/b): refused to uid ");
}

#[test]
fn a_control_socket_that_cannot_be_made_keeps_nobody_from_serving() {
    let mut world = World::of_a_user();
    world.write_table("a unix n - - - 5 true\n").start();
    world.stop_by(Signal::SIGTERM);
    for name in [master::status::SOCKET, master::control::SOCKET] {
        fs::create_dir(world.queue().join(name)).unwrap();
    }
    world.start();
    world.wait_for_line("warning: no status socket: pid/master.status: Is a directory");
    world.wait_for_line("warning: no control socket: pid/master.control: Is a directory");
    let mode = fs::metadata(world.queue().join("public/a")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o666);
}
