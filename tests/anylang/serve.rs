//! Serving clients, and the number of children.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};
use testkit::client::Client;
use testkit::instance::{Instance, SOON};
use testkit::network::{LOOPBACK_2, in_own_network};
use testkit::poll::until;
use testkit::process::Process;
use testkit::{needs_root, skip, test};

use crate::examples::{
    MINIMAL, Stage, examples, examples_and_minimal, expect_no_complaint, expect_served, greeted,
    read_greeting,
};

const STRACE: &str = "/usr/bin/strace";

/// "Any language that has poll(2) will do."
#[test]
fn every_example_serves_clients_of_the_network_and_of_the_machine() {
    needs_root("to run a master");
    for example in examples() {
        let mut postfix = Instance::bare();
        let address = postfix.address();
        example.add(&mut postfix, &address, "inet n n n - -", "");
        example.add(&mut postfix, "a", "unix n n n - -", "");
        postfix.start();
        let path = postfix.socket("public", "a").display().to_string();
        for address in [address, path] {
            let (mut client, _) = greeted(&address);
            for _ in 0..3 {
                expect_served(&mut client);
            }
        }
        expect_no_complaint(&postfix);
    }
}

/// "Report 0 when a client was accepted": concurrent clients have a child each.
#[test]
fn clients_at_the_same_time_have_a_child_each() {
    needs_root("to run a master");
    for example in examples() {
        let stage = Stage::new(example, 20, "");
        let mut clients: Vec<_> = (0..8).map(|_| Client::connect(&stage.address)).collect();
        let children: BTreeSet<_> = clients.iter_mut().map(read_greeting).collect();
        assert_eq!(children.len(), clients.len(), "{example:?}");
        clients.iter_mut().for_each(expect_served);
        stage.expect_no_complaint();
    }
}

/// "And 1 when it has been": the child then takes the next client, and no other child is started.
#[test]
fn one_child_serves_one_client_after_the_other() {
    needs_root("to run a master");
    for example in examples() {
        let stage = Stage::new(example, 20, "");
        let master = stage.postfix.master_process();
        for _ in 0..5 {
            let (client, child) = stage.greeted();
            // The child closes the connection, reports, and sleeps.
            client.finish();
            until(SOON, "the child to sleep", || child.sleeps());
            until(SOON, "the master to have read it", || master.is_idle());
            assert_eq!(stage.postfix.children(), [child], "{example:?}");
        }
        stage.expect_no_complaint();
    }
}

/// Asserts that clients are served while strace(1) makes some of the child's system calls fail.
#[track_caller]
fn expect_service_in_spite_of(failures: &str) {
    if !Path::new(STRACE).exists() {
        skip(&format!("{STRACE} is needed, to make system calls fail"));
    }
    for example in examples_and_minimal() {
        let mut postfix = Instance::bare();
        example.add(&mut postfix, "a", "unix - n n - 1", "");
        let program = postfix.daemons().join(example.file);
        // With -D, the child is still a direct child of the master.
        let strace = format!("{STRACE} -D -qq -o /dev/null -e inject={failures}");
        let commands = format!("exec {strace} {} \"$@\"", program.display());
        postfix.install_script("failing", &commands);
        postfix.service("a unix - n n - 1 failing");
        postfix.start();
        let address = postfix.socket("private", "a").display().to_string();
        for _ in 0..3 {
            let mut client = Client::connect(&address);
            assert!(client.line().starts_with("hello"), "{example:?}");
        }
        expect_no_complaint(&postfix);
    }
}

/// "Accept may fail with EAGAIN, because a sibling was quicker: wait again."
#[test]
fn a_child_that_a_sibling_has_outrun_waits_again() {
    needs_root("to run a master");
    expect_service_in_spite_of("accept,accept4:error=EAGAIN:when=1+2");
}

/// "When the write fails [...] the client that was accepted is still to be served."
#[test]
fn a_client_whose_child_could_not_report_is_served() {
    needs_root("to run a master");
    for error in ["EPIPE", "ECONNRESET"] {
        expect_service_in_spite_of(&format!("write:error={error}:when=1"));
    }
}

/// "At the limit, connections wait in the queue of the listener."
#[test]
fn at_the_limit_a_client_waits_until_another_one_leaves() {
    needs_root("to run a master");
    for example in examples() {
        let stage = Stage::new(example, 2, "");
        let (first, child) = stage.greeted();
        let (mut second, other) = stage.greeted();
        assert_ne!(child, other, "{example:?}");
        let mut third = Client::connect(&stage.address);
        expect_served(&mut second);
        assert_eq!(stage.postfix.children().len(), 2, "{example:?}");
        drop(first);
        assert_eq!(read_greeting(&mut third), child, "{example:?}");
        expect_served(&mut third);
        stage.expect_no_complaint();
    }
}

/// "-s n: there are n listeners"
#[test]
fn a_child_serves_all_its_listeners() {
    needs_root("to make a network");
    in_own_network(|| {
        for example in examples_and_minimal() {
            let mut postfix = Instance::bare();
            postfix.set("inet_interfaces", format!("127.0.0.1, {LOOPBACK_2}"));
            let port = postfix.port();
            example.add(&mut postfix, &port.to_string(), "inet n n n - 1", "");
            postfix.start();
            for address in ["127.0.0.1", LOOPBACK_2, "127.0.0.1"] {
                let mut client = Client::connect(&format!("{address}:{port}"));
                assert!(client.line().starts_with("hello"), "{example:?}");
            }
            expect_no_complaint(&postfix);
        }
    });
}

/// "serve the client, whatever it does, and close the connection"
#[test]
fn a_client_that_has_said_all_sees_the_end() {
    needs_root("to run a master");
    for example in examples() {
        let stage = Stage::new(example, 1, "");
        let mut client = UnixStream::connect(&stage.address).expect("a listener");
        client.set_read_timeout(Some(SOON)).expect("a time limit");
        client.write_all(b"one\ntwo\n").expect("a reader");
        client.shutdown(Shutdown::Write).expect("an end");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the end");
        let (_, answer) = answer.split_once('\n').expect("a greeting");
        assert_eq!(answer, "ONE\nTWO\n", "{example:?}");
        stage.expect_no_complaint();
    }
}

/// "Give every client a time limit, so that a silent one cannot keep the child."
#[test]
fn a_silent_client_does_not_keep_the_next_one_waiting() {
    needs_root("to run a master");
    for example in examples() {
        let stage = Stage::new(example, 1, "-o timeout=1");
        let (mut silent, child) = stage.greeted();
        assert_eq!(stage.greeted().1, child, "{example:?}");
        assert_eq!(silent.line(), "", "{example:?}");
        stage.expect_no_complaint();
    }
}

/// "So no client may make a child fail": one that breaks the connection does not.
#[test]
fn a_client_that_breaks_the_connection_does_a_child_no_harm() {
    needs_root("to run a master");
    for example in examples_and_minimal() {
        let mut postfix = Instance::bare();
        let address = postfix.address();
        example.add(&mut postfix, &address, "inet n n n - 1", "");
        postfix.start();
        for _ in 0..5 {
            let stream = std::net::TcpStream::connect(&address).expect("a listener");
            let at_once = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&stream, sockopt::Linger, &at_once).expect("SO_LINGER");
        }
        let mut client = Client::connect(&address);
        assert!(client.line().starts_with("hello"), "{example:?}");
        expect_no_complaint(&postfix);
    }
}

/// The minimal child.
#[test]
fn the_minimal_child_greets_one_client_after_the_other() {
    needs_root("to run a master");
    MINIMAL.needs_language();
    let stage = Stage::new(MINIMAL, 1, "");
    let mut children = BTreeSet::new();
    for _ in 0..5 {
        let mut client = Client::connect(&stage.address);
        assert_eq!(client.line(), "hello");
        client.wait_for_end();
        children.extend(stage.postfix.children());
    }
    assert_eq!(children.len(), 1);
    stage.expect_no_complaint();
}

/// Every client is served, even if children live only briefly and are often told to leave.
#[test]
fn nobody_is_lost_while_children_come_and_go() {
    needs_root("to run a master");
    for example in examples() {
        let mut stage = Stage::new(example, 4, "-o max_use=2 -o max_idle=1");
        let address = stage.address.clone();
        thread::scope(|scope| {
            let address = &address;
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(move || {
                        for _ in 0..25 {
                            expect_served(&mut greeted(address).0);
                        }
                    })
                })
                .collect();
            for _ in 0..5 {
                stage.postfix.reload_while_busy();
            }
            clients
                .into_iter()
                .for_each(|client| client.join().expect("a client that is served"));
        });
        stage.expect_no_complaint();
    }
}

/// The same for the minimal child.
#[test]
fn nobody_is_lost_while_the_minimal_child_is_told_to_leave() {
    needs_root("to run a master");
    MINIMAL.needs_language();
    let mut stage = Stage::new(MINIMAL, 3, "");
    for _ in 0..20 {
        let mut clients: Vec<_> = (0..4).map(|_| Client::connect(&stage.address)).collect();
        stage.postfix.reload_while_busy();
        for client in &mut clients {
            assert_eq!(client.line(), "hello");
        }
    }
    stage.expect_no_complaint();
}

/// "a client comes [...] and waits until the child says something or closes the connection"
#[test]
fn a_wakeup_keeps_no_child() {
    needs_root("to run a master");
    for example in examples() {
        let mut postfix = Instance::bare();
        example.add(&mut postfix, "a", "unix - n n 1000 1", "");
        postfix.start();
        let woken: Process = until(SOON, "a child", || postfix.children().first().copied());
        let address = postfix.socket("private", "a").display().to_string();
        assert_eq!(greeted(&address).1, woken, "{example:?}");
        expect_no_complaint(&postfix);
    }
}
