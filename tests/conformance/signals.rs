//! Signals to the master, and the signal state of children.

use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::poll::{until, within};
use testkit::puppet_service::{PuppetService, one_service};
use testkit::run::{Running, run};
use testkit::{is_original, needs_root, test};

use crate::lines::Line;

/// The signals that end a master normally.
const STOP: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// "SIGTERM, SIGINT, SIGQUIT: process group gets SIGTERM, `terminating on signal N`, and the master
/// dies by that signal"
#[test]
fn the_master_dies_of_the_signal_that_stops_it_and_its_children_get_sigterm() {
    needs_root("to run a master");
    for signal in STOP {
        let mut postfix = Instance::bare();
        let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
        postfix.start_in_foreground(&[]);
        let (_client, mut puppet) = service.serve();
        puppet.tell("stay");
        puppet.tell("block SIGTERM");
        postfix.master_process().signal(signal);
        let finished = postfix.finish();
        assert_eq!(finished.status.signal(), Some(signal as i32), "{signal}");
        Line::Terminating.wait(&postfix, &[format!("signal {}", signal as i32)]);
        assert!(puppet.process.has_pending(Signal::SIGTERM), "{signal}");
    }
}

/// "`postfix stop` expects the lock to be free within 5 s", whatever the children do.
#[test]
fn the_master_does_not_wait_for_its_children() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let (_client, mut puppet) = service.serve();
    puppet.tell("ignore SIGTERM");
    puppet.tell("stay");
    let master = postfix.master_process();
    master.signal(Signal::SIGTERM);
    until(SOON, "the lock", || {
        run(&mut postfix.master(&["-t"]), SOON).success()
    });
    assert!(puppet.process.runs());
    assert!(!master.runs());
    // The child sees that the master has ended.
    puppet.tell("dismissal");
}

/// "SIGKILL of the master: children notice descriptor 5 and leave."
#[test]
fn a_killed_masters_children_find_descriptor_5_readable() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let (mut client, mut busy) = service.serve();
    busy.tell("stay");
    let (_other, idle) = service.serve();
    postfix.master_process().signal(Signal::SIGKILL);
    idle.wait_for_end();
    busy.tell("dismissal");
    assert!(!busy.process.has_pending(Signal::SIGTERM));
    busy.tell("write hello");
    assert_eq!(client.line(), "hello");
}

/// "finish with their client and leave, and another master can start at once": with the same
/// listeners, while a child of the first master still has them.
#[test]
fn a_killed_masters_child_keeps_no_other_from_starting() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let address = postfix.address();
    let inet = PuppetService::add(&mut postfix, &address, "inet n - n - -");
    let unix = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.start();
    let mut children = [inet.serve(), unix.serve()];
    for (_, puppet) in &mut children {
        puppet.tell("stay");
    }
    let first = postfix.master_process();
    first.signal(Signal::SIGKILL);
    until(SOON, "its end", || !first.runs());
    postfix.start();
    assert_ne!(postfix.master_process(), first);
    unix.serve();
    assert!(has_all_clients(&inet) || is_original(), "new clients wait");
    for (client, puppet) in &mut children {
        puppet.tell("write hello");
        assert_eq!(client.line(), "hello");
    }
}

/// Whether the master starts a child for each of many clients, which a listener of a former master
/// would get half of.
fn has_all_clients(service: &PuppetService) -> bool {
    let mut served = Vec::new();
    (0..20).all(|_| {
        let client = service.connect();
        let puppet = service.next_within(Duration::from_secs(2));
        puppet.is_some_and(|mut puppet| {
            puppet.take_client();
            served.push((client, puppet));
            true
        })
    })
}

const ALL_SERVED: &str = "all new clients are served";

/// Serves a client with a child that stays, ends the master, waits for the lock, and starts another.
fn has_all_clients_after(postfix: &mut Instance, end: impl FnOnce(&Instance)) -> &'static str {
    let address = postfix.address();
    let service = PuppetService::add(postfix, &address, "inet n - n - -");
    postfix.start();
    let (mut client, mut puppet) = service.serve();
    puppet.tell("ignore SIGTERM");
    puppet.tell("stay");
    end(postfix);
    until(SOON, "the lock", || {
        run(&mut postfix.master(&["-t"]), SOON).success()
    });
    postfix.start();
    let all = has_all_clients(&service);
    puppet.tell("write hello");
    assert_eq!(client.line(), "hello");
    if all {
        ALL_SERVED
    } else {
        "the first master's child keeps new clients waiting"
    }
}

/// Without the fix: ours, too, "the first master's child keeps new clients waiting".
#[test]
fn a_killed_masters_child_keeps_no_client_from_the_next_master() {
    needs_root("to run a master");
    differs(
        "A master takes over TCP listeners that a killed master has left to its children, with the \
         clients that wait there.",
        Observed {
            ours: "all new clients are served",
            original: "the first master's child keeps new clients waiting",
        },
        |postfix| {
            has_all_clients_after(postfix, |postfix| {
                postfix.master_process().signal(Signal::SIGKILL);
            })
        },
    );
}

/// Without the fix: ours, too, "clients connect and wait".
#[test]
fn a_stopped_masters_child_gets_no_new_client() {
    needs_root("to run a master");
    differs(
        "A master that stops shuts its TCP listeners down: while a child finishes with its client, \
         new ones are refused.",
        Observed {
            ours: "clients are refused",
            original: "clients connect and wait",
        },
        |postfix| {
            let address = postfix.address();
            let service = PuppetService::add(postfix, &address, "inet n - n - -");
            postfix.start();
            let (mut client, mut puppet) = service.serve();
            puppet.tell("ignore SIGTERM");
            puppet.tell("stay");
            let master = postfix.master_process();
            master.signal(Signal::SIGTERM);
            until(SOON, "the master's end", || !master.runs());
            let process = puppet.process;
            let shut_down = within(Duration::from_secs(2), || {
                !process.descriptors()[&6].kind.is_listener()
            });
            assert_eq!(Client::try_connect(&address).is_err(), shut_down.is_some());
            puppet.tell("write hello");
            assert_eq!(client.line(), "hello");
            match shut_down {
                Some(()) => "clients are refused",
                None => "clients connect and wait",
            }
        },
    );
}

/// "`postfix stop` [...] and an immediate start", while a child finishes with its client.
#[test]
fn a_start_right_after_a_stop_serves_all_clients() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let all = has_all_clients_after(&mut postfix, |postfix| {
        postfix.master_process().signal(Signal::SIGTERM);
    });
    assert!(is_original() || all == ALL_SERVED, "{all}");
    assert_eq!(postfix.log_lines("took over"), [""; 0]);
}

/// "SIGPIPE ignored"
#[test]
fn sigpipe_does_not_end_the_master() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let master = postfix.master_process();
    for _ in 0..10 {
        master.signal(Signal::SIGPIPE);
    }
    service.serve();
    assert!(master.runs());
}

/// "in the child the mask is empty and dispositions are default, except SIGPIPE, which stays
/// ignored as under Postfix"
#[test]
fn a_child_finds_no_signal_blocked_and_only_sigpipe_ignored() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - -");
    let _client = service.connect();
    let signals = service.next().process.signals();
    assert_eq!(signals.blocked, 0, "blocked");
    // Without the two signals that the C library reserves, which cannot be set.
    let ignored = signals.ignored & 0x7fff_ffff;
    assert_eq!(ignored, 1 << (Signal::SIGPIPE as i32 - 1), "ignored");
}

/// A master takes signals even if it was started with signals blocked or ignored.
#[test]
fn signals_that_were_ignored_at_the_start_are_taken() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let ignored = ["CHLD", "HUP", "TERM"].map(|name| format!("--ignore-signal={name}"));
    let options: Vec<&str> = ignored.iter().map(String::as_str).collect();
    let mut command = postfix.under(Path::new("env"), &options);
    postfix.run_in_foreground(&mut command);
    // SIGCHLD: a child that ends without serving is replaced.
    let _client = service.connect();
    service.next().exit(0);
    let mut puppet = service.next();
    puppet.take_client();
    postfix.reload();
    puppet.wait_for_end();
    service.serve();
    postfix.stop();
}

/// A signal is for the master as soon as its process is there, not only once it serves.
#[test]
fn a_signal_in_the_first_moments_of_a_start_is_remembered() {
    needs_root("to run a master");
    differs(
        "SIGHUP during the start reloads the master once it serves.",
        Observed {
            ours: "a reload",
            original: "the master ends",
        },
        |postfix| {
            postfix.set("debugger_command", "kill -HUP $process_id");
            postfix.write_configuration();
            let mut command = postfix.master(&["-D"]);
            postfix.run_unseen(command.process_group(0));
            let outcome = until(SOON, "a reload or the end", || {
                let reloaded = !postfix.log_lines("reload -- version").is_empty();
                let ended = postfix.foreground().has_ended();
                let outcome = if ended { "the master ends" } else { "a reload" };
                (reloaded || ended).then_some(outcome)
            });
            if outcome == "a reload" {
                postfix.stop();
            }
            outcome
        },
    );
}

/// A stopped child has not ended.
#[test]
fn a_child_that_is_stopped_and_goes_on_is_the_same_child() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - 1");
    let (_client, mut puppet) = service.serve();
    puppet.process.signal(Signal::SIGSTOP);
    let _waiting = service.connect();
    service.expect_no_child();
    puppet.process.signal(Signal::SIGCONT);
    puppet.tell("hangup");
    puppet.take_client();
    assert_eq!(postfix.log_lines("warning: "), [""; 0]);
}

/// When many children end at once, the master sees all of their ends.
#[test]
fn children_that_end_all_at_once_are_all_noticed() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - 20");
    let children: Vec<_> = (0..20).map(|_| service.serve()).collect();
    let master = postfix.master_process();
    // All children end while the master is stopped.
    master.signal(Signal::SIGSTOP);
    let (clients, mut puppets): (Vec<_>, Vec<_>) = children.into_iter().unzip();
    for puppet in &mut puppets {
        puppet.send("exit 0");
    }
    for puppet in &puppets {
        puppet.wait_for_end();
    }
    master.signal(Signal::SIGCONT);
    drop(clients);
    // As many children can be started again.
    let _again: Vec<_> = (0..20).map(|_| service.serve()).collect();
}

/// "Signals are drained on every turn, also when descriptors are busy."
#[test]
fn a_master_that_is_kept_busy_stops_when_it_is_told_to() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let tally = postfix.path().join("tally");
    postfix.service(&format!(
        "b unix - - n - 0 puppet -o tally={} once",
        tally.display()
    ));
    postfix.start();
    // Each child takes one client, and there is always another one.
    let path = postfix.socket("private", "b");
    // It ends with the master.
    std::thread::spawn(move || while UnixStream::connect(&path).is_ok() {});
    until(SOON, "many children", || {
        std::fs::metadata(&tally).is_ok_and(|facts| facts.len() > 50)
    });
    service.serve();
    postfix.reload_while_busy();
    service.serve();
    postfix.stop();
}

/// "Options: `-e seconds`", "Children are not signalled; they leave when they have finished with
/// their client."
#[test]
fn at_its_exit_time_the_master_leaves_its_children_alone() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.start_in_foreground(&["-e", "3"]);
    let (mut client, mut puppet) = service.serve();
    puppet.tell("stay");
    let finished = postfix.finish();
    assert_eq!(finished.status.code(), Some(0));
    puppet.tell("dismissal");
    puppet.tell("write hello");
    assert_eq!(client.line(), "hello");
}

/// "If it leads its process group, the whole group gets the signal; otherwise (-D, -d, -i) only
/// its own children do."
#[test]
fn an_attached_master_in_anothers_process_group_ends_its_own_children() {
    needs_root("to run a master");
    differs(
        "A master that stops and does not lead its process group (-d, -D, -i) sends SIGTERM to \
         each of its children.",
        Observed {
            ours: "its children get SIGTERM",
            original: "its children get no signal",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.write_configuration();
            // A shell leads the process group, and survives.
            let script = "\"$@\"; exit 7";
            let mut shell = postfix.under(Path::new("sh"), &["-c", script, "sh"]);
            let shell = Running::start(shell.arg("-d").process_group(0));
            let _client = until(SOON, "the service", || {
                Client::try_connect(&service.address).ok()
            });
            let mut puppet = service.next();
            puppet.tell("stay");
            puppet.tell("block SIGTERM");
            postfix.master_process().signal(Signal::SIGTERM);
            assert_eq!(shell.finish(SOON).status.code(), Some(7), "the shell");
            if puppet.process.has_pending(Signal::SIGTERM) {
                "its children get SIGTERM"
            } else {
                "its children get no signal"
            }
        },
    );
}
