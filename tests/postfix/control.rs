//! postfix(1), and the sudden death of a master.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::client::expect_greeting;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::run::{Running, run};
use testkit::{needs_root, test};

/// `postfix stop` gives up after this.
const STOP: Duration = Duration::from_secs(5);

#[test]
fn postfix_start_status_reload_stop_and_abort_work() {
    needs_root("to run a mail system");
    let postfix = Instance::mail();
    postfix.write_configuration();
    let command = |postfix: &Instance, name: &str| run(&mut postfix.postfix(&[name]), SOON);
    let expect_stopped = |postfix: &Instance| {
        until(STOP, "the lock", || {
            run(&mut postfix.master(&["-t"]), SOON).success()
        });
        until(SOON, "all processes' end", || {
            postfix.processes().is_empty()
        });
        command(postfix, "status").expect_failure();
    };

    command(&postfix, "status").expect_failure();
    for end in ["stop", "abort"] {
        command(&postfix, "start").expect_success();
        let master = postfix.master_process();
        command(&postfix, "status").expect_success();
        postfix.wait_for_log(&format!("is running: PID: {}", master.0));
        expect_greeting(&postfix.address());
        command(&postfix, "start").expect_failure();

        let mark = postfix.log().len();
        command(&postfix, "reload").expect_success();
        postfix.wait_for_reload_after(mark);
        expect_greeting(&postfix.address());
        assert_eq!(
            postfix.master_process(),
            master,
            "the master after a reload"
        );

        command(&postfix, end).expect_success();
        expect_stopped(&postfix);
    }
    for without_master in ["stop", "abort", "reload"] {
        command(&postfix, without_master).expect_failure();
    }
}

#[test]
fn postfix_start_fg_stays_in_the_foreground_until_postfix_stop() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    let mut start = postfix.postfix(&["start-fg"]);
    postfix.run_in_foreground(&mut start);
    expect_greeting(&postfix.address());
    assert!(!postfix.foreground().has_ended(), "start-fg has ended");
    run(&mut postfix.postfix(&["stop"]), SOON).expect_success();
    postfix.finish();
    run(&mut postfix.master(&["-t"]), SOON).expect_success();
}

#[test]
fn the_signals_that_stop_the_master_stop_its_children_and_are_what_it_dies_of() {
    needs_root("to run a mail system");
    for (signal, name) in [
        (Signal::SIGTERM, "SIGTERM"),
        (Signal::SIGINT, "SIGINT"),
        (Signal::SIGQUIT, "SIGQUIT"),
    ] {
        let mut postfix = Instance::new();
        // Without postlogd the master writes the log itself, so that the last line is not lost.
        postfix.without("postlog", "unix-dgram");
        postfix.install_script("inert", "exec sleep 1000");
        postfix.service("inert unix - - n 60 1 inert");
        postfix.start_in_foreground(&["-s"]);
        until(SOON, "a child", || {
            !postfix.children_named("sleep").is_empty()
        });
        let children = postfix.children();

        postfix.master_process().signal(signal);
        let finished = postfix.finish();
        assert_eq!(finished.status.signal(), Some(signal as i32), "{name}");
        postfix.wait_for_log(&format!("terminating on signal {}", signal as i32));
        until(
            STOP,
            format_args!("the children's end after {name}"),
            || !children.iter().any(|child| child.runs()),
        );
    }
}

#[test]
fn a_killed_masters_children_leave_and_a_new_master_starts_at_once() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    postfix.start();
    drop(expect_greeting(&postfix.address()));
    let (master, children) = (postfix.master_process(), postfix.children());
    assert!(children.len() >= 3, "smtpd, qmgr, pickup: {children:?}");

    master.signal(Signal::SIGKILL);
    until(SOON, "the master's end", || !master.runs());
    let mut next = Running::start(&mut postfix.master(&["-w"]));
    until(Duration::from_secs(2), "the children's end", || {
        !children.iter().any(|child| child.runs())
    });
    until(SOON, "the next master", || next.has_ended());
    next.finish(SOON).expect_success();
    assert_ne!(postfix.master_process(), master, "the next master");
    expect_greeting(&postfix.address());
}
