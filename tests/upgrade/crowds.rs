//! Upgrades of a master with very many services or children.

use std::fs;
use std::os::unix::process::CommandExt;

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::{read_document, service};
use testkit::poll::until;
use testkit::process::Process;
use testkit::programs::example;
use testkit::standalone::Standalone;
use testkit::test;
use testkit::vitals::kinds_at_rest;

use crate::stage::{expect_no_more, upgrade};

#[test]
fn five_thousand_services_are_carried_over() {
    let services = 5_000;
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let command = standalone.greeter();
    let line = |n| format!("s{n} unix n - - - 5 {command}\n");
    standalone.write_table(&(0..services).map(line).collect::<String>());
    let mut command = standalone.master(&["-d"]);
    standalone.run(command.process_group(0));
    until(3 * SOON, "a start", || {
        standalone.said().contains("daemon started -- version")
    });
    let process = standalone.process();
    let descriptors = || {
        let open = fs::read_dir(format!("/proc/{}/fd", process.0));
        open.expect("a process").count()
    };
    let before = (descriptors(), read_document(&standalone).services);
    for n in [0, services / 2, services - 1] {
        upgrade(&standalone);
        let socket = standalone.queue().join(format!("public/s{n}"));
        assert_eq!(Client::connect(&socket.to_string_lossy()).line(), "hello");
        let children = process.children();
        // The end of a child that has not reported its client yet would throttle the service.
        until(SOON, "a child that waits for the next client", || {
            children.iter().all(|child| child.waits())
        });
        // It ends, so that nothing is kept for it.
        for child in children {
            child.signal(Signal::SIGKILL);
        }
        until(SOON, "no child", || {
            process.children_and_zombies().is_empty()
        });
        upgrade(&standalone);
        let open = descriptors();
        assert!(open <= before.0, "{open} descriptors after {}", before.0);
    }
    let after = read_document(&standalone).services;
    assert_eq!(after.len(), services);
    let mut pairs = after.iter().zip(&before.1);
    assert!(pairs.all(|(is, was)| is.name == was.name && is.listening));
    let killed: u64 = after.iter().map(|service| service.killed).sum();
    assert_eq!(killed, 3);
    let reloaded = standalone.reload();
    let changes = format!("0 added, 0 removed, {services} kept");
    assert!(reloaded.contains(&changes), "{reloaded}");
}

#[test]
fn a_thousand_children_serve_on_and_are_known_afterwards() {
    const CHILDREN: usize = 1_000;
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the children are counted");
    let command = standalone.install(&example("hello"));
    let command = command.display();
    standalone.write_table(&format!("a unix n - - - 0 {command} serve\n"));
    standalone.start();
    let socket = standalone.queue().join("public/a");
    let socket = socket.to_string_lossy();
    let mut clients: Vec<_> = (0..CHILDREN).map(|_| Client::connect(&socket)).collect();
    let pid = |client: &mut Client| -> i32 {
        let line = client.line();
        let word = line.split_whitespace().next();
        word.and_then(|pid| pid.parse().ok()).expect("a process ID")
    };
    let mut pids: Vec<i32> = clients.iter_mut().map(pid).collect();
    let counts = || {
        let found = service(&standalone, "a");
        let [total, busy] = [found.total, found.busy].map(u64::from);
        [total, busy, found.started, found.ended, found.killed]
    };
    let all = CHILDREN as u64;
    until(SOON, "busy children", || counts() == [all, all, all, 0, 0]);
    let process = Process(read_document(&standalone).pid as i32);
    let kinds = kinds_at_rest(process);
    for _ in 0..2 {
        upgrade(&standalone);
        assert_eq!(counts(), [all, all, all, 0, 0]);
    }
    expect_no_more(&kinds, &kinds_at_rest(process));
    for client in &mut clients {
        client.say("x");
        assert_eq!(client.line(), "done");
    }
    // Half of the clients leave while the master is upgraded.
    drop(clients.split_off(CHILDREN / 2));
    upgrade(&standalone);
    let half = all / 2;
    until(SOON, "idle children", || counts() == [all, half, all, 0, 0]);
    // The ends of children during an upgrade are noticed after it.
    for pid in pids.drain(..CHILDREN / 2) {
        Process(pid).signal(Signal::SIGKILL);
    }
    upgrade(&standalone);
    until(SOON, "their ends", || counts() == [half, 0, all, 0, half]);
}
