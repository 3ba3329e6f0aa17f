//! When a child leaves.

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::{layout, needs_ours, needs_root, test};

use crate::examples::{MINIMAL, Stage, examples, examples_and_minimal, expect_served};

/// "at once when descriptor 5 is readable", "only between two clients"
#[test]
fn a_reload_replaces_children_which_first_finish_with_their_client() {
    needs_root("to run a master");
    for example in examples() {
        let mut stage = Stage::new(example, 5, "");
        let (mut client, busy) = stage.greeted();
        let (other, idle) = stage.greeted();
        drop(other);
        stage.postfix.reload();
        until(SOON, "the idle child to leave", || !idle.runs());
        let (_next, child) = stage.greeted();
        assert!(child != busy && child != idle, "{example:?}");
        expect_served(&mut client);
        drop(client);
        until(SOON, "the busy child to leave", || !busy.runs());
        assert!(child.runs(), "{example:?}");
        stage.expect_no_complaint();
    }
}

/// "the master is gone"
#[test]
fn children_leave_when_the_master_was_killed() {
    needs_root("to run a master");
    for example in examples() {
        let stage = Stage::new(example, 5, "");
        let (mut client, busy) = stage.greeted();
        let (other, idle) = stage.greeted();
        drop(other);
        stage.postfix.master_process().signal(Signal::SIGKILL);
        until(SOON, "the idle child to leave", || !idle.runs());
        expect_served(&mut client);
        drop(client);
        until(SOON, "the busy child to leave", || !busy.runs());
        stage.expect_no_complaint();
    }
}

/// The minimal child, too.
#[test]
fn the_minimal_child_leaves_on_reload_and_when_the_master_was_killed() {
    needs_root("to run a master");
    MINIMAL.needs_language();
    let mut stage = Stage::new(MINIMAL, 1, "");
    for killed in [false, true] {
        let mut client = Client::connect(&stage.address);
        assert_eq!(client.line(), "hello");
        let child = stage.postfix.children()[0];
        if killed {
            stage.postfix.master_process().signal(Signal::SIGKILL);
        } else {
            stage.postfix.reload();
        }
        until(SOON, "the child to leave", || !child.runs());
    }
    stage.expect_no_complaint();
}

/// `max_idle`: an idle child leaves after this time, and the next client gets a new one.
#[test]
fn a_child_leaves_that_had_no_client_for_a_while() {
    needs_root("to run a master");
    for example in examples() {
        let stage = Stage::new(example, 1, "-o max_idle=1");
        let first = stage.greeted().1;
        until(SOON, "the idle child to leave", || !first.runs());
        let second = stage.greeted().1;
        assert_ne!(first, second, "{example:?}");
        stage.expect_no_complaint();
    }
}

/// An idle child uses no processor time.
#[test]
fn a_child_sleeps_while_it_waits() {
    needs_root("to run a master");
    for example in examples() {
        let stage = Stage::new(example, 1, "");
        let child = stage.greeted().1;
        until(SOON, "the child to sleep", || child.sleeps());
    }
}

/// `max_use`: a child leaves after this number of clients.
#[test]
fn a_child_leaves_that_has_served_its_number_of_clients() {
    needs_root("to run a master");
    for example in examples() {
        let stage = Stage::new(example, 1, "-o max_use=2");
        let served: Vec<_> = (0..6).map(|_| stage.greeted().1).collect();
        for pair in served.chunks(2) {
            assert_eq!(pair[0], pair[1], "{example:?}");
        }
        assert!(
            served[1] != served[2] && served[3] != served[4],
            "{served:?}"
        );
        until(SOON, "the last child to leave", || !served[5].runs());
        stage.expect_no_complaint();
    }
}

/// "With EINVAL the listener was shut down": the master does so before it closes descriptor 5.
#[test]
fn children_leave_without_a_complaint_when_the_listener_is_shut_down() {
    needs_root("to run a master");
    needs_ours("the original has no stop_timeout");
    for example in examples_and_minimal() {
        let mut postfix = Instance::bare();
        let (name, address) = (postfix.address(), postfix.address());
        example.add(&mut postfix, &name, "inet n n n - 5", "");
        // What they write on standard error is logged.
        let settings = "stop_timeout = 4\ncapture_output = true\n";
        let settings = format!("[service.\"{name}/inet\"]\n{settings}");
        layout::replace(&postfix.configuration().join("master.toml"), &settings);
        postfix.start();
        let children = || {
            let mut children = postfix.children();
            let own = |argument: &String| argument.ends_with(example.file);
            children.retain(|child| child.cmdline().iter().any(own));
            children
        };
        let clients = (1..=3).map(|count| {
            let mut client = Client::connect(&address);
            assert!(client.line().starts_with("hello"), "{count} {example:?}");
            client
        });
        drop(clients.collect::<Vec<_>>());
        until(SOON, "children that are idle", || {
            let children = children();
            !children.is_empty() && children.iter().all(|child| child.sleeps())
        });
        let children = children();
        postfix.stop();
        assert!(children.iter().all(|child| !child.runs()), "{example:?}");
        for word in ["fatal: ", "Traceback", "Error", "killed by"] {
            assert_eq!(postfix.log_lines(word), [""; 0], "{example:?}");
        }
    }
}
