//! What children that wait cost, and when the wait ends.

use std::collections::BTreeMap;

use crate::common::client::Client;
use crate::common::instance::{Instance, SOON};
use crate::common::poll::until;
use crate::common::ports::Port;
use crate::common::process::Process;
use crate::common::puppet::service;
use crate::needs_root;

/// An instance with the echo service, and its address.
fn echo(maxproc: u32, options: &str) -> (Instance, String, Port) {
    let port = Port::reserve();
    let mut postfix = Instance::bare();
    postfix.install(&service("echo"), "echo");
    postfix.service(&format!(
        "127.0.0.1:{port} inet n - n - {maxproc} echo {options}"
    ));
    postfix.start();
    let address = format!("127.0.0.1:{port}");
    (postfix, address, port)
}

/// Has a service start so many children, which are idle then.
#[track_caller]
fn crowd(postfix: &Instance, address: &str, size: usize) -> Vec<Process> {
    let mut clients: Vec<Client> = (0..size).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.say("hello");
        assert_eq!(client.line(), "hello");
    }
    drop(clients);
    until(SOON, "all children to be idle", || {
        let children = postfix.children_named("echo");
        (children.len() == size && children.iter().all(|child| child.is_idle())).then_some(children)
    })
}

/// How often each process has begun to wait.
fn waits(children: &[Process]) -> BTreeMap<Process, u64> {
    let count = |child: &Process| (*child, child.voluntary_switches());
    children.iter().map(count).collect()
}

#[test]
fn a_connection_wakes_up_one_of_a_hundred_idle_children() {
    needs_root!("a mail system");
    let (postfix, address, _port) = echo(100, "-o max_idle=1h");
    let children = crowd(&postfix, &address, 100);
    for _ in 0..10 {
        let before = waits(&children);
        let mut client = Client::connect(&address);
        client.say("hello");
        assert_eq!(client.line(), "hello");
        drop(client);
        until(SOON, "the child to be idle", || {
            children.iter().all(|child| child.is_idle())
        });
        let after = waits(&children);
        let woken = children.iter().filter(|c| before[c] != after[c]).count();
        assert_eq!(woken, 1, "children that a connection woke up");
    }
}
