//! What processes cost that wait.

use std::collections::BTreeMap;

use crate::common::client::Client;
use crate::common::instance::SOON;
use crate::common::poll::until;
use crate::common::process::Process;
use crate::needs_root;
use crate::stage::Stage;

/// Has so many processes of a service started, which are idle then.
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
        processes.iter().all(|process| process.is_idle())
    });
}

/// How often each process has begun to wait.
fn waits(processes: &[Process]) -> BTreeMap<Process, u64> {
    let count = |process: &Process| (*process, process.voluntary_switches());
    processes.iter().map(count).collect()
}

#[test]
fn a_connection_wakes_up_one_of_a_hundred_idle_processes() {
    needs_root!("a mail system");
    let stage = Stage::new("echo", "100", "-o max_idle=1h");
    let processes = crowd(&stage, 100);
    for _ in 0..10 {
        let before = waits(&processes);
        assert_eq!(stage.ask("hello"), "hello");
        wait_until_idle(&processes);
        let after = waits(&processes);
        let woken = processes.iter().filter(|p| before[p] != after[p]).count();
        assert_eq!(woken, 1, "processes that a connection woke up");
    }
}
