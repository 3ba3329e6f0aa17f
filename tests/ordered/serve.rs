//! Which child serves which client.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::client::{Client, talk};
use testkit::clock::Clock;
use testkit::instance::SOON;
use testkit::poll::{stays, until};
use testkit::test;

use crate::load::serve_all;
use crate::pool::needs_module;
use crate::pool::{AT_ONCE, HANDFUL, Pool};

#[test]
fn spamassassins_own_module_serves_every_client() {
    needs_module();
    let pool = Pool::perl(8, HANDFUL);
    serve_all(&pool.address, || {});
}

#[test]
fn children_that_write_their_pid_as_before_spamassassin_4_serve_every_client() {
    needs_module();
    let pool = Pool::rogue("old", 1, HANDFUL);
    serve_all(&pool.address, || {});
}

#[test]
fn children_in_python_serve_every_client() {
    needs_module();
    let pool = Pool::new(8, "services/examples/ordered.py", "nobody", HANDFUL);
    serve_all(&pool.address, || {});
}

#[test(alone)]
fn one_client_after_the_other_is_served_by_the_child_with_the_lowest_pid() {
    needs_module();
    let pool = Pool::perl(4, "accept = \"ordered\"\nmax_idle = 4\n");
    pool.wait_for_idle(4);
    let lowest = pool.children().iter().map(|child| child.0).min();
    for _ in 0..20 {
        assert_eq!(talk(&pool.address), lowest);
        // A child may be counted as idle shortly after its client has left.
        pool.wait_for_idle(4);
    }
}

#[test]
fn every_child_has_a_channel_of_its_own_and_the_listeners_after_it() {
    needs_module();
    let pool = Pool::perl(3, "accept = \"ordered\"\nmax_idle = 3\n");
    pool.wait_for_idle(3);
    let mut channels = BTreeSet::new();
    for child in pool.children() {
        let descriptors = child.descriptors();
        channels.insert(descriptors[&5].target.clone());
        assert!(descriptors[&6].kind.is_listener(), "{descriptors:?}");
        let known: Vec<_> = descriptors
            .keys()
            .copied()
            .take_while(|fd| *fd < 7)
            .collect();
        assert_eq!(known, [0, 1, 2, 3, 4, 5, 6]);
    }
    assert_eq!(channels.len(), 3, "{channels:?}");
}

#[test]
fn a_verbose_master_tells_what_the_children_do() {
    needs_module();
    let settings = "accept = \"ordered\"\nmax_idle = 2\n";
    let mut pool = Pool::stopped(3, "services/examples/ordered.pl", "nobody", settings);
    pool.postfix.start_in_foreground(&["-s", "-v"]);
    pool.postfix
        .wait_for_log(": child states: S 0 I 2 A 0 B 0 K 0 Z 0");
}

#[test]
fn a_stuck_child_delays_nobody() {
    needs_module();
    let pool = Pool::perl(3, "accept = \"ordered\"\nmax_idle = 3\n");
    pool.wait_for_idle(3);
    let mut children = pool.children();
    children.sort_by_key(|child| child.0);
    children[0].signal(Signal::SIGSTOP);
    for _ in 0..20 {
        let start = Instant::now();
        assert!(talk(&pool.address).is_some_and(|child| child != children[0].0));
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    }
    // Its order finds no client any more, and it becomes idle again.
    children[0].signal(Signal::SIGCONT);
    until(SOON, "the lowest pid to serve again", || {
        talk(&pool.address) == Some(children[0].0)
    });
}

#[test]
fn a_client_who_waits_for_a_busy_pool_is_served_first_thing() {
    needs_module();
    let pool = Pool::perl(1, "accept = \"ordered\"\nmax_idle = 1\n");
    let mut first = Client::connect(&pool.address);
    let child = first.line();
    let mut second = Client::connect(&pool.address);
    assert_eq!(second.line_within(Duration::from_millis(200)), None);
    pool.postfix
        .wait_for_log(" children are idle, and the process limit \"1\" is reached");
    drop(first);
    assert_eq!(second.line(), child);
}

#[test]
fn a_pool_grows_under_load_and_shrinks_after_it() {
    needs_module();
    // The clock is turned faster than children can leave.
    let settings = "accept = \"ordered\"\nmax_idle = 1\nstop_timeout = \"1h\"\n";
    let mut pool = Pool::stopped(4, "services/examples/ordered.pl", "nobody", settings);
    let clock = Clock::install(&mut pool.postfix);
    pool.start();
    let held: Vec<Client> = (0..3).map(|_| Client::connect(&pool.address)).collect();
    // Three busy children and an idle one.
    until(SOON, "four children", || pool.children().len() == 4);
    drop(held);
    let mut seconds = 0;
    until(SOON, "the surplus to end", || {
        seconds += 5;
        clock.turn(&pool.postfix, seconds);
        pool.children().len() == 1
    });
    stays(Duration::from_millis(200), "one child", || {
        pool.children().len() == 1
    });
    assert_eq!(pool.postfix.log_lines("rogue"), [""; 0]);
    let mut warnings = pool.postfix.log_lines("warning");
    warnings.retain(|line| !line.contains("longer than \"postfix stop\" waits"));
    assert_eq!(warnings, [""; 0]);
}
