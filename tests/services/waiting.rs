//! The cost of waiting processes.

use std::collections::BTreeMap;
use std::time::Duration;

use testkit::client::Client;
use testkit::instance::SOON;
use testkit::poll::{stays, until};
use testkit::process::Process;
use testkit::{needs_root, test};

use crate::stage::Stage;

/// Starts `size` processes of a service, which are idle then.
#[track_caller]
fn crowd(stage: &Stage, size: usize) -> Vec<Process> {
    let mut clients: Vec<Client> = (0..size)
        .map(|_| Client::connect(&stage.address()))
        .collect();
    for client in &mut clients {
        client.say("hello");
        assert_eq!(client.line(), "hello");
    }
    drop(clients);
    let processes = stage.processes();
    assert_eq!(processes.len(), size);
    wait_until_idle(&processes);
    processes
}

#[track_caller]
fn wait_until_idle(processes: &[Process]) {
    until(SOON, "all processes to be idle", || {
        processes.iter().all(|process| process.rests())
    });
}

/// How often each process has begun to wait.
fn waits(processes: &[Process]) -> BTreeMap<Process, u64> {
    let count = |process: &Process| (*process, process.voluntary_switches());
    processes.iter().map(count).collect()
}

/// Asserts that each connection wakes up one process only.
#[track_caller]
fn expect_one_to_wake_up(stage: &Stage, processes: &[Process]) {
    for _ in 0..10 {
        let before = waits(processes);
        assert_eq!(stage.ask("hello"), "hello");
        wait_until_idle(processes);
        let after = waits(processes);
        let woken = processes.iter().filter(|p| before[p] != after[p]).count();
        assert_eq!(woken, 1, "processes that a connection woke up");
    }
}

#[test]
fn a_connection_wakes_up_one_of_a_hundred_idle_processes() {
    needs_root("a mail system");
    let stage = Stage::new("echo", "100", "-o max_idle=1h");
    let processes = crowd(&stage, 100);
    expect_one_to_wake_up(&stage, &processes);
}

#[test]
fn a_connection_wakes_up_one_of_many_idle_processes_for_many_clients() {
    needs_root("a mail system");
    let stage = crate::multi::proxy("20", "-o max_idle=1h -o max_clients=1");
    let processes = crowd(&stage, 20);
    expect_one_to_wake_up(&stage, &processes);
}

#[test]
fn a_process_that_waits_does_nothing_else() {
    needs_root("a mail system");
    let stage = Stage::new("echo", "5", "-o max_idle=1h");
    let processes = crowd(&stage, 5);
    let before = waits(&processes);
    let period = Duration::from_secs(2);
    stays(period, "no process wakes up", || {
        waits(&processes) == before
    });
}
