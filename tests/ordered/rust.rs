//! Children in Rust, by `services::Service::ordered`.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::client::talk;
use testkit::client::{Client, hand_on};
use testkit::instance::{Instance, SOON};
use testkit::network::{LOOPBACK_2, in_own_network};
use testkit::poll::{stays, until};
use testkit::process::Process;
use testkit::programs::service;
use testkit::{needs_root, original, skip, test, under_test};

use crate::load::{clients, serve, serve_all};
use crate::pool::{AT_ONCE, HANDFUL, Pool, STRACE};
use crate::reload::every_client_is_served_during_fifty_reloads;

/// One child, which is idle.
fn one(arguments: &str, settings: &str) -> (Pool, Process) {
    let settings = format!("accept = \"ordered\"\nmax_idle = 1\n{settings}");
    let pool = Pool::rust(1, "ordered", arguments, &settings);
    pool.wait_for_idle(1);
    let child = pool.children()[0];
    (pool, child)
}

#[test]
fn children_in_rust_serve_every_client() {
    needs_root("a mail system");
    let pool = Pool::rust(8, "ordered", "-o max_use=0", HANDFUL);
    serve_all(&pool.address, || {});
    assert_eq!(pool.postfix.log_lines("rogue"), [""; 0]);
}

#[test]
fn a_client_is_served_while_the_pool_is_still_being_filled() {
    needs_root("a mail system");
    if !Path::new(STRACE).exists() {
        skip(&format!("{STRACE} is needed, to make starts slow"));
    }
    let program = service("ordered");
    let program = program.to_str().expect("a path that is text");
    let settings = "accept = \"ordered\"\nmin_children = 100\nmax_idle = 100\n";
    let mut pool = Pool::stopped(100, program, "", settings);
    pool.postfix.unwatched("strace makes it slow");
    // With -D, the master is still a child of this process. A start is slowed down, as on a very
    // busy machine.
    let slow = [
        "-D",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=clone:delay_exit=30000",
    ];
    let mut command = pool.postfix.under(Path::new(STRACE), &slow);
    pool.postfix.run_in_foreground(&mut command);
    assert!(talk(&pool.address).is_some());
    let children = pool.children().len();
    assert!(children < 100, "all were started first");
    until(SOON, "all children", || pool.children().len() == 100);
}

#[test]
fn children_to_spare_serve_every_client_at_once() {
    needs_root("a mail system");
    let settings = "accept = \"ordered\"\nmin_children = 24\nmax_idle = 24\n";
    let pool = Pool::rust(24, "ordered", "-o max_use=0", settings);
    pool.wait_for_idle(24);
    let load = serve_all(&pool.address, || {});
    assert!(load.slowest < AT_ONCE, "{load:?}");
}

#[test]
fn every_client_is_served_while_children_in_rust_are_killed() {
    needs_root("a mail system");
    let pool = Pool::rust(8, "ordered", "", HANDFUL);
    let mut nth = 0;
    let load = serve(&pool.address, clients(), || {
        nth += 1;
        if let Some(child) = pool.any_child(nth) {
            child.signal(Signal::SIGKILL);
        }
    });
    assert_eq!((load.served, load.lost), (clients(), 0), "{load:?}");
    let killed = pool.postfix.log_lines("killed by signal 9").len();
    assert!(killed > 0, "no child was killed");
}

#[test]
fn fifty_reloads_cost_no_client_of_children_in_rust_its_connection() {
    needs_root("a mail system");
    let pool = Pool::rust(12, "ordered", "", HANDFUL);
    pool.wait_for_idle(8);
    every_client_is_served_during_fifty_reloads(&pool);
}

#[test]
fn a_child_leaves_after_max_use_clients_and_nobody_waits_for_it() {
    needs_root("a mail system");
    let (pool, first) = one("-o max_use=2", "");
    for _ in 0..2 {
        assert_eq!(talk(&pool.address), Some(first.0));
    }
    assert!(talk(&pool.address).is_some_and(|child| child != first.0));
    for failure in ["rogue", "exit status", "killed by"] {
        assert_eq!(pool.postfix.log_lines(failure), [""; 0]);
    }
}

#[test]
fn a_child_does_not_leave_for_having_been_idle_and_does_not_answer_pings() {
    needs_root("a mail system");
    let (pool, child) = one("-o max_idle=1s", "ping_interval = 1\n");
    stays(Duration::from_millis(2500), "the child", || child.runs());
    assert_eq!(talk(&pool.address), Some(child.0));
    assert_eq!(pool.postfix.log_lines("rogue"), [""; 0]);
}

#[test]
fn a_child_that_is_old_enough_leaves_and_another_takes_its_place() {
    needs_root("a mail system");
    let (pool, first) = one("-r 1", "");
    assert_eq!(talk(&pool.address), Some(first.0));
    until(SOON, "the child to leave", || !first.runs());
    assert!(talk(&pool.address).is_some_and(|child| child != first.0));
    for failure in ["rogue", "exit status", "killed by"] {
        assert_eq!(pool.postfix.log_lines(failure), [""; 0]);
    }
}

#[test]
fn every_client_is_served_while_children_leave_of_age() {
    needs_root("a mail system");
    let pool = Pool::rust(8, "ordered", "-r 1 -o max_use=0", HANDFUL);
    serve_all(&pool.address, || {});
    let before = pool.children();
    until(SOON, "all children to be new", || {
        assert!(talk(&pool.address).is_some());
        let now = pool.children();
        now.iter().all(|child| !before.contains(child))
    });
    for failure in ["rogue", "exit status", "killed by"] {
        assert_eq!(pool.postfix.log_lines(failure), [""; 0]);
    }
}

#[test]
fn clients_that_are_handed_on_are_served_by_a_pool() {
    needs_root("a mail system");
    let pool = Pool::pass(2, "accept = \"ordered\"\nmax_idle = 2\n");
    for _ in 0..20 {
        let (client, handed) = UnixStream::pair().expect("a connection");
        let _handing = hand_on(&pool.address, handed, &["client_address", "192.0.2.7"]);
        let mut client = Client::on(client.into()).expect("a time limit");
        assert!(client.line().parse::<i32>().is_ok());
        client.say("hello");
        assert_eq!(client.line(), "hello");
    }
    // A process that connects and passes no client costs a child some time, but is not a client.
    drop(UnixStream::connect(&pool.address));
    pool.postfix
        .wait_for_log("cannot receive a client that was handed on: ");
    pool.wait_for_idle(2);
    assert_eq!(pool.postfix.log_lines("rogue"), [""; 0]);
}

#[test]
fn the_clients_of_all_listeners_have_their_turn() {
    needs_root("to make a network");
    in_own_network(|| {
        let pool = Pool::twofold(1, "accept = \"ordered\"\nmax_idle = 1\n");
        let elsewhere = pool.address.replace("127.0.0.1", LOOPBACK_2);
        for address in [&elsewhere, &pool.address, &elsewhere] {
            assert!(talk(address).is_some(), "{address}");
        }
        let mut first = Client::connect(&pool.address);
        first.line();
        let _crowd = [(); 5].map(|()| Client::connect(&pool.address));
        let mut other = Client::connect(&elsewhere);
        drop(first);
        // A client whose connection was queued behind a silent one would wait in vain.
        assert!(other.line().parse::<i32>().is_ok());
    });
}

#[test]
fn a_child_that_is_told_to_end_serves_its_client_to_the_end() {
    needs_root("a mail system");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (pool, child) = one("", "");
        let mut client = Client::connect(&pool.address);
        assert_eq!(client.line(), child.0.to_string());
        child.signal(signal);
        client.say("still here");
        assert_eq!(client.line(), "still here");
        until(SOON, "the child to leave", || !child.runs());
        assert_eq!(pool.postfix.log_lines("killed by"), [""; 0]);
    }
}

#[test]
fn an_idle_child_leaves_with_its_master() {
    needs_root("a mail system");
    let (pool, child) = one("", "");
    pool.postfix.master_process().signal(Signal::SIGKILL);
    until(SOON, "the child to leave", || !child.runs());
}

#[test]
fn a_child_that_accepts_by_itself_says_that_it_is_not_for_an_ordered_pool() {
    needs_root("a mail system");
    let pool = Pool::rust(2, "echo", "", "accept = \"ordered\"\n");
    let line = pool.postfix.wait_for_log("/echo[");
    let said = "accepts by itself: leave out accept = \"ordered\" for it in master.toml";
    assert!(line.contains("fatal: ") && line.contains(said), "{line}");
}

/// A child for ordered pools reports an error in other services.
#[track_caller]
fn expect_no_pool(master: &Path) {
    let mut postfix = Instance::bare_with(master);
    postfix.install(&service("ordered"), "ordered");
    let address = postfix.address();
    postfix.service(&format!("{address} inet n n n - 2 ordered"));
    postfix.start();
    let _client = Client::connect(&address);
    let line = postfix.wait_for_log("/ordered[");
    let said = "accepts when it is told to: write accept = \"ordered\" for it in master.toml";
    assert!(line.contains("fatal: ") && line.contains(said), "{line}");
}

#[test]
fn a_child_that_waits_for_orders_says_that_its_service_is_no_ordered_pool() {
    needs_root("a mail system");
    expect_no_pool(&under_test());
}

#[test]
fn a_child_that_waits_for_orders_says_so_under_postfixes_own_master_too() {
    needs_root("a mail system");
    expect_no_pool(&original());
}
