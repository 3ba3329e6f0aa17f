//! A name server that does not answer.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use testkit::client::{Client, expect_refusal};
use testkit::clock::Clock;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::name_server::{self, ADDRESS, HOST, NameServer, Question};
use testkit::network::in_own_network;
use testkit::poll::until;
use testkit::process::Process;
use testkit::puppet_service::PuppetService;
use testkit::{needs_ours, needs_root, test};

/// Starts a master whose only source of host names is the name server, with one attempt per query.
fn start(postfix: &mut Instance) {
    let mut command = name_server::master(postfix);
    postfix.run_in_foreground(&mut command);
}

/// A running master with a service, and a service for the next reload whose address only the name
/// server knows.
fn with_a_name(postfix: &mut Instance) -> (PuppetService, PuppetService) {
    let service = PuppetService::add(postfix, "a", "unix - - n - -");
    start(postfix);
    let named = PuppetService::add(postfix, &format!("{HOST}:7070"), "inet n - n - -");
    postfix.write_configuration();
    (service, named)
}

fn connect_to_named() -> Client {
    Client::connect(&format!("{ADDRESS}:7070"))
}

/// "Host names ... are looked up ... while the master serves on."
#[test]
fn a_name_server_that_does_not_answer_delays_nobody() {
    needs_root("to have a network and files of its own");
    differs(
        "A name server that does not answer during a reload keeps no client waiting.",
        Observed {
            ours: "clients are served while the reload waits",
            original: "no client is served while the reload waits",
        },
        |postfix| {
            let mut served = false;
            in_own_network(|| {
                let server = NameServer::start();
                let (service, named) = with_a_name(postfix);
                let mark = postfix.log().len();
                postfix.hang_up();
                let question = server.question();
                let _client = service.connect();
                served = service.starts_a_child();
                server.answer_while(&question, || {
                    postfix.wait_for_reload_after(mark);
                    let _client = connect_to_named();
                    named.next().take_client();
                });
            });
            if served {
                "clients are served while the reload waits"
            } else {
                "no client is served while the reload waits"
            }
        },
    );
}

/// Starts a reload of ours that waits for a name. Returns the query, and the log's length before
/// it.
fn waiting(postfix: &mut Instance, server: &NameServer) -> (Question, usize) {
    with_a_name(postfix);
    let mark = postfix.log().len();
    postfix.hang_up();
    (server.question(), mark)
}

/// "... has no address after 60 seconds"
#[test]
fn a_name_that_nobody_answers_for_fails_the_reload() {
    needs_root("to have a network and files of its own");
    needs_ours("the original does not promise that a reload comes to an end");
    in_own_network(|| {
        let mut postfix = Instance::bare();
        let clock = Clock::install(&mut postfix);
        let server = NameServer::start();
        let (_, mark) = waiting(&mut postfix, &server);
        clock.turn(&postfix, 3);
        postfix.wait_for_log_after(
            mark,
            "warning: the reload waits for a name server: looking up \"host.test\"",
        );
        clock.turn(&postfix, 59);
        let master = postfix.master_process();
        until(SOON, "the master to rest", || master.is_idle());
        assert!(
            !postfix.log()[mark..].contains("reload failed"),
            "too early"
        );
        clock.turn(&postfix, 60);
        postfix.wait_for_log_after(mark, "host.test: no answer within 60 s");
        postfix.wait_for_log_after(mark, "reload failed and changed nothing");
        until(SOON, "no process that resolves names", || {
            master.children().is_empty()
        });
    });
}

/// "Another reload takes the place of one that waits."
#[test]
fn a_reload_that_waits_gives_way_to_another() {
    needs_root("to have a network and files of its own");
    needs_ours("the original does not promise that a reload gives way to another");
    in_own_network(|| {
        let mut postfix = Instance::bare();
        let server = NameServer::start();
        let (question, mark) = waiting(&mut postfix, &server);
        postfix.without("host.test:7070", "inet");
        let known = PuppetService::add(&mut postfix, &format!("{ADDRESS}:7071"), "inet n - n - -");
        postfix.reload();
        postfix.wait_for_log_after(mark, "reload done: services: 1 added");
        known.serve();
        // No reload waits for this answer any more.
        server.answer(&question);
        expect_refusal(&format!("{ADDRESS}:7070"));
        let news = postfix.log().split_off(mark);
        assert_eq!(news.matches("reload -- version").count(), 2, "{news}");
        assert_eq!(news.matches("reload done").count(), 1, "{news}");
    });
}

#[test]
fn a_master_whose_reload_waits_can_be_stopped() {
    needs_root("to have a network and files of its own");
    needs_ours("the original does not promise that a reload delays no client");
    in_own_network(|| {
        let mut postfix = Instance::bare();
        let server = NameServer::start();
        waiting(&mut postfix, &server);
        postfix.stop();
    });
}

/// What a name server sends is read by a process that could not use root's rights.
#[test]
fn names_are_looked_up_without_roots_rights() {
    needs_root("to have a network and files of its own");
    differs(
        "Host names are looked up by a process without root's rights.",
        Observed {
            ours: "by a process without them",
            original: "by root",
        },
        |postfix| {
            let mut who = "";
            in_own_network(|| {
                let server = NameServer::start();
                let (_, named) = with_a_name(postfix);
                let mark = postfix.log().len();
                let master = postfix.master_process();
                postfix.hang_up();
                let question = server.question();
                who = who_looks_up(master);
                server.answer_while(&question, || {
                    postfix.wait_for_reload_after(mark);
                    let _client = connect_to_named();
                    named.next().take_client();
                });
            });
            who
        },
    );
}

fn who_looks_up(master: Process) -> &'static str {
    let copies = Process::all().into_iter().filter(|other| {
        other.cmdline() == master.cmdline() && other.executable() == master.executable()
    });
    let others: Vec<Process> = copies.filter(|other| other.0 != master.0).collect();
    const NOBODY: [u32; 4] = [65_534; 4];
    let has_none = |other: &Process| {
        let without_groups = other.groups().is_empty();
        without_groups && other.uids() == NOBODY && other.gids() == NOBODY
    };
    if !others.is_empty() && others.iter().all(has_none) {
        "by a process without them"
    } else {
        "by root"
    }
}

/// The same at the start, which an operator can end meanwhile.
#[test]
fn a_start_that_waits_for_a_name_server_can_be_stopped() {
    needs_root("to have a network and files of its own");
    needs_ours("the original ends without a line");
    in_own_network(|| {
        let mut postfix = Instance::bare();
        let _server = NameServer::start();
        PuppetService::add(&mut postfix, &format!("{HOST}:7070"), "inet n - n - -");
        postfix.write_configuration();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
            let mut command = name_server::master(&postfix);
            postfix.run_unseen(&mut command);
            let master = Process(postfix.foreground().pid());
            until(SOON, "a process that looks the name up", || {
                who_looks_up(master) == "by a process without them"
            });
            master.signal(Signal::SIGHUP);
            master.signal(signal);
            let ended = postfix.finish();
            assert_eq!(ended.status.signal(), Some(signal as i32), "{ended:?}");
            until(SOON, "no process that resolves names", || {
                postfix.processes().is_empty()
            });
        }
    });
}
