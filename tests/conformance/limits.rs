//! The process limit.

use testkit::client::Client;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::puppet::Puppet;
use testkit::puppet_service::{PuppetService, one_service};
use testkit::{needs_ours, needs_root, test};

use crate::lines::Line;

/// Starts `number` children, each with a client.
#[track_caller]
fn busy(service: &PuppetService, number: usize) -> Vec<(Client, Puppet)> {
    (0..number).map(|_| service.serve()).collect()
}

/// "At the limit, connections wait in the queue of the listener."
#[test]
fn a_service_with_one_process_serves_one_client_after_the_other() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - 1");
    let (_first, puppet) = service.serve();
    let mut second = service.connect();
    service.expect_no_child();
    assert_eq!(postfix.children_named("puppet").len(), 1);
    puppet.exit(0);
    let mut next = service.next();
    next.take_client();
    next.tell("write hello");
    assert_eq!(second.line(), "hello");
}

/// "below the process limit (column maxproc)"
#[test]
fn no_more_children_are_started_than_maxproc() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - 3");
    let mut children = busy(&service, 3);
    let _waiting = service.connect();
    service.expect_no_child();
    let (_client, puppet) = children.remove(0);
    puppet.exit(0);
    service.next();
}

/// "`-` takes the default ([...] maxproc $default_process_limit [...])"
#[test]
fn default_process_limit_is_the_limit_of_services_without_one() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.set("default_process_limit", "2");
    postfix.start();
    let _children = busy(&service, 2);
    let _waiting = service.connect();
    service.expect_no_child();
}

/// "maxproc 0: no limit"
#[test]
fn with_maxproc_0_there_are_as_many_children_as_clients() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - 0");
    postfix.set("default_process_limit", "2");
    postfix.start();
    let children = busy(&service, 12);
    assert_eq!(postfix.children_named("puppet").len(), children.len());
}

/// "A child that was told to leave still counts in total"
#[test]
fn a_child_that_is_leaving_still_takes_a_place() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 1");
    let (_client, mut puppet) = service.serve();
    puppet.tell("stay");
    puppet.wait_until_heard();
    postfix.reload();
    puppet.tell("dismissal");
    let _waiting = service.connect();
    service.expect_no_child();
    puppet.exit(0);
    service.next();
}

/// "limits [...] replaced": with a higher limit, waiting clients are served.
#[test]
fn a_higher_limit_lets_those_in_who_wait() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 1");
    let (_client, _puppet) = service.serve();
    let _waiting = service.connect();
    service.expect_no_child();
    service.set(&mut postfix, "unix - - n - 2");
    postfix.reload();
    service.next();
}

/// "limits [...] replaced": a lower limit ends no child.
#[test]
fn a_lower_limit_waits_for_children_to_leave() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 3");
    let mut children = busy(&service, 3);
    for (_, puppet) in &mut children {
        puppet.tell("stay");
        puppet.wait_until_heard();
    }
    service.set(&mut postfix, "unix - - n - 1");
    postfix.reload();
    assert!(children.iter().all(|(_, puppet)| puppet.process.runs()));
    let _waiting = service.connect();
    for _ in 0..2 {
        let (_client, puppet) = children.remove(0);
        puppet.exit(0);
        until(SOON, "it to be reaped", || {
            postfix.children_named("puppet").len() == children.len()
        });
        service.expect_no_child();
    }
    let (_client, puppet) = children.remove(0);
    puppet.exit(0);
    service.next();
}

/// "default_process_limit" on reload
#[test]
fn a_reload_replaces_default_process_limit() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.set("default_process_limit", "1");
    postfix.start();
    let (_client, _puppet) = service.serve();
    let _waiting = service.connect();
    service.expect_no_child();
    postfix.set("default_process_limit", "2");
    postfix.reload();
    service.next();
}

/// "SERVICE has reached its process limit": the original says so only of services that remote
/// clients can reach.
#[test]
fn a_local_service_at_its_limit_is_told_of() {
    needs_root("to run a master");
    differs(
        "A service that only local clients can reach is told of when it is full.",
        Observed {
            ours: "a warning",
            original: "no warning",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - 2");
            postfix.start();
            let _children = busy(&service, 2);
            let _waiting = service.connect();
            service.expect_no_child();
            match Line::LimitReached.count(postfix) {
                0 => "no warning",
                _ => "a warning",
            }
        },
    );
}

#[test]
fn a_service_with_one_process_is_full_when_a_client_waits() {
    needs_root("to run a master");
    needs_ours("the original does not know that a client waits");
    let (postfix, service) = one_service("unix - - n - 1");
    let (_client, _puppet) = service.serve();
    let _waiting = service.connect();
    let words = ["warning: service \"a\" (private/a)", "process limit \"1\""];
    Line::LimitReached.wait(&postfix, &words);
}

/// "SERVICE: clients wait although N of its processes count as available"
#[test]
fn a_child_that_never_accepts_is_told_of() {
    needs_root("to run a master");
    needs_ours("the original does not know that a client waits");
    for columns in ["unix - - n - -", "inet n - n - 1", "fifo - - n 1 -"] {
        let mut postfix = Instance::bare();
        let kind = &columns[..4];
        let name = if kind == "inet" {
            postfix.address()
        } else {
            "a".to_owned()
        };
        let service = PuppetService::add(&mut postfix, &name, columns);
        postfix.start();
        let _client = (kind != "fifo").then(|| service.connect());
        let _puppet = service.next();
        let words = format!("service \"{name}\" (");
        Line::Stalled.wait(
            &postfix,
            &[&*words, "1 of its processes count as available"],
        );
        assert_eq!(Line::LimitReached.count(&postfix), 0);
    }
}

/// The limit counts children, not the processes that they leave behind.
#[test]
fn what_a_child_leaves_behind_takes_no_place() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - 1");
    let (_client, mut puppet) = service.serve();
    puppet.tell("grandchild");
    let _waiting = service.connect();
    puppet.exit(0);
    service.next();
}

/// "With -v, further lines tell of each service's counts [...], of children that were started"
#[test]
fn a_verbose_master_tells_of_counts_and_of_children() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - 4");
    postfix.start_in_foreground(&["-v"]);
    let (_client, puppet) = service.serve();
    let path = postfix.daemons().join("puppet").display().to_string();
    Line::Spawned.wait(&postfix, &[path, format!("pid {}", puppet.process.0)]);
    Line::Counts.wait(&postfix, &["avail 1 total 1 max 4"]);
    Line::Counts.wait(&postfix, &["avail 0 total 1 max 4"]);
}
