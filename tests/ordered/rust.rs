//! Children in Rust, by `services::Service::ordered`.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::instance::{Instance, SOON};
use crate::common::poll::{stays, until};
use crate::common::process::Process;
use crate::common::puppet::service;
use crate::common::{original, under_test};
use crate::load::{clients, serve, talk};
use crate::needs_root;
use crate::pool::{HANDFUL, Pool};
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
    needs_root!("a mail system");
    let pool = Pool::rust(8, "ordered", "-o max_use=0", HANDFUL);
    let load = serve(&pool.address, clients(), || {});
    let found = (load.served, load.lost, load.broken);
    assert_eq!(found, (clients(), 0, 0), "{load:?}");
    assert_eq!(pool.postfix.log_lines("rogue"), [""; 0]);
}

#[test]
fn every_client_is_served_while_children_in_rust_are_killed() {
    needs_root!("a mail system");
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
    assert!(killed > 0, "nobody was killed");
}

#[test]
fn fifty_reloads_cost_no_client_of_children_in_rust_its_connection() {
    needs_root!("a mail system");
    let pool = Pool::rust(12, "ordered", "", HANDFUL);
    pool.wait_for_idle(8);
    every_client_is_served_during_fifty_reloads(&pool);
}

#[test]
fn a_child_leaves_after_max_use_clients_and_nobody_waits_for_it() {
    needs_root!("a mail system");
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
    needs_root!("a mail system");
    let (pool, child) = one("-o max_idle=1s", "ping_interval = 1\n");
    stays(Duration::from_millis(2500), "the child", || child.runs());
    assert_eq!(talk(&pool.address), Some(child.0));
    assert_eq!(pool.postfix.log_lines("rogue"), [""; 0]);
}

#[test]
fn a_child_that_is_told_to_end_serves_its_client_to_the_end() {
    needs_root!("a mail system");
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
    needs_root!("a mail system");
    let (pool, child) = one("", "");
    pool.postfix.master_process().signal(Signal::SIGKILL);
    until(SOON, "the child to leave", || !child.runs());
}

#[test]
fn a_child_that_accepts_by_itself_says_that_it_is_not_for_an_ordered_pool() {
    needs_root!("a mail system");
    let pool = Pool::rust(2, "echo", "", "accept = \"ordered\"\n");
    let line = pool.postfix.wait_for_log("/echo[");
    let said = "accepts by itself: leave out accept = \"ordered\" for it in master.toml";
    assert!(line.contains("fatal: ") && line.contains(said), "{line}");
}

/// A child for ordered pools, in a service that is none, says so.
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
    needs_root!("a mail system");
    expect_no_pool(&under_test());
}

#[test]
fn a_child_that_waits_for_orders_says_so_under_postfixes_own_master_too() {
    needs_root!("a mail system");
    expect_no_pool(&original());
}
