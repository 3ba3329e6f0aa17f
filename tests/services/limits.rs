//! When a process leaves.

use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::process::Process;
use testkit::programs::service;
use testkit::{layout, needs_ours, needs_root, test};

use crate::stage::Stage;

/// Waits until the service has no process.
#[track_caller]
pub fn wait_until_gone(stage: &Stage) {
    until(SOON, "the service's processes to leave", || {
        stage.processes().is_empty()
    });
}

/// The service's only process, after it has served a client.
#[track_caller]
fn only(stage: &Stage) -> Process {
    let processes = stage.processes();
    assert_eq!(processes.len(), 1, "{processes:?}");
    processes[0]
}

#[test]
fn a_process_serves_one_client_after_another() {
    needs_root("a mail system");
    let stage = Stage::new("echo", "-", "");
    assert_eq!(stage.ask("one"), "one");
    let first = only(&stage);
    until(SOON, "it to be idle", || first.is_idle());
    assert_eq!(stage.ask("two"), "two");
    assert_eq!(only(&stage), first);
}

#[test]
fn a_process_leaves_after_max_use_clients() {
    needs_root("a mail system");
    let stage = Stage::new("echo", "1", "-o max_use=2");
    assert_eq!(stage.ask("one"), "one");
    let first = only(&stage);
    assert_eq!(stage.ask("two"), "two");
    until(SOON, "it to leave", || !first.runs());
    // The next client does not wait for it.
    assert_eq!(stage.ask("three"), "three");
    assert_ne!(only(&stage), first);
    assert_eq!(stage.log_lines("warning: "), [""; 0]);
}

#[test]
fn a_process_leaves_when_no_client_has_come_for_max_idle() {
    needs_root("a mail system");
    let stage = Stage::new("echo", "-", "-o max_idle=1s");
    assert_eq!(stage.ask("one"), "one");
    wait_until_gone(&stage);
    assert_eq!(stage.ask("two"), "two");
}

#[test]
fn a_process_retires_when_it_is_old_enough() {
    needs_root("a mail system");
    let stage = Stage::new("echo", "-", "-r 1");
    assert_eq!(stage.ask("one"), "one");
    wait_until_gone(&stage);
}

#[test]
fn a_process_whose_master_is_killed_serves_its_client_to_the_end_and_leaves() {
    needs_root("a mail system");
    let stage = Stage::new("echo", "-", "");
    let (mut busy, mut idle) = (
        Client::connect(&stage.address()),
        Client::connect(&stage.address()),
    );
    for client in [&mut busy, &mut idle] {
        client.say("hello");
        assert_eq!(client.line(), "hello");
    }
    drop(idle);
    let processes = stage.processes();
    assert_eq!(processes.len(), 2);
    stage.master_process().signal(Signal::SIGKILL);
    let running = || processes.iter().filter(|process| process.runs()).count();
    until(SOON, "the idle process to leave", || running() == 1);
    busy.say("still here");
    assert_eq!(busy.line(), "still here");
    drop(busy);
    until(SOON, "the busy process to leave", || running() == 0);
}

#[test]
fn a_reload_lets_a_process_serve_its_client_to_the_end() {
    needs_root("a mail system");
    let mut stage = Stage::new("echo", "-", "");
    let mut client = Client::connect(&stage.address());
    client.say("hello");
    assert_eq!(client.line(), "hello");
    let old = only(&stage);
    stage.reload();
    client.say("still here");
    assert_eq!(client.line(), "still here");
    assert!(old.runs());
    drop(client);
    until(SOON, "the old process to leave", || !old.runs());
    assert_eq!(stage.ask("new"), "new");
}

#[test]
fn a_process_that_serves_a_client_for_too_long_is_ended() {
    needs_root("a mail system");
    let stage = Stage::new("echo", "-", "-o daemon_timeout=1s");
    // A process that had served no client would count as broken.
    assert_eq!(stage.ask("first"), "first");
    let process = only(&stage);
    until(SOON, "it to be idle", || process.is_idle());
    let mut client = Client::connect(&stage.address());
    client.wait_for_end();
    stage.wait_for_log("killed by signal 14");
    assert_eq!(stage.ask("next"), "next");
}

/// A service that is given time for its end: its type, its program with arguments, how many processes
/// three clients at a time need, and its settings.
#[derive(Clone, Copy, Debug)]
struct Shared(&'static str, &'static str, usize, &'static str);

impl Shared {
    /// A running master with the service, its name, and its processes, which are idle.
    fn start(self) -> (Instance, String, Vec<Process>) {
        let Self(kind, command, count, settings) = self;
        let program = command.split_whitespace().next().expect("a name");
        let mut instance = Instance::bare();
        instance.install(&service(program), program);
        let (name, address) = match kind {
            "inet" => (instance.address(), instance.address()),
            _ => (
                "a".to_owned(),
                instance.socket("public", "a").display().to_string(),
            ),
        };
        let limit = if kind == "unix-dgram" { 1 } else { 5 };
        instance.service(&format!("{name} {kind} n n n - {limit} {command}"));
        instance.service("b unix - n n - 1 true");
        let settings = format!("[service.\"{name}/{kind}\"]\nstop_timeout = 4\n{settings}");
        layout::replace(&instance.configuration().join("master.toml"), &settings);
        instance.start();
        let processes = || instance.children_named(program);
        if kind == "unix-dgram" {
            let client = UnixDatagram::unbound().expect("a socket");
            client.send_to(b"<6>hello", &address).expect("a listener");
        }
        let clients = (1..=3).filter(|_| kind != "unix-dgram").map(|nth| {
            let client = Client::connect(&address);
            let needed = nth.min(count);
            until(SOON, format_args!("process {needed}"), || {
                processes().len() >= needed
            });
            client
        });
        drop(clients.collect::<Vec<_>>());
        until(SOON, "processes that are idle", || {
            let processes = processes();
            !processes.is_empty() && processes.iter().all(|process| process.sleeps())
        });
        let processes = processes();
        (instance, name, processes)
    }
}

const SHARED: [Shared; 7] = [
    Shared("inet", "echo", 3, ""),
    Shared("unix", "echo", 3, ""),
    Shared("inet", "proxy to=/nowhere", 1, ""),
    Shared("unix", "proxy to=/nowhere", 1, ""),
    Shared("inet", "ordered", 3, "accept = \"ordered\"\nmax_idle = 5\n"),
    Shared("unix", "trigger-log", 3, ""),
    Shared("unix-dgram", "syslog-sink file=-", 1, ""),
];

/// The master shuts the listeners down, and then closes the status channels.
#[test]
fn processes_whose_listener_is_shut_down_leave_without_a_complaint() {
    needs_root("a mail system");
    needs_ours("the original has no stop_timeout");
    for shared in SHARED {
        for stops in [true, false] {
            let (mut instance, name, processes) = shared.start();
            if stops {
                instance.stop();
            } else {
                layout::replace(&instance.configuration().join("master.toml"), "");
                instance.without(&name, shared.0).reload();
            }
            until(SOON, "the processes to leave", || {
                processes.iter().all(|process| !process.runs())
            });
            for word in ["fatal: ", "exit status", "killed by"] {
                let lines = instance.log_lines(word);
                assert_eq!(lines, [""; 0], "{shared:?}, stops: {stops}");
            }
        }
    }
}
