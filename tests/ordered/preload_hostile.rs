//! Templates and children that do harm on purpose: only their own service has it.

use std::fs;

use nix::sys::signal::Signal;
use testkit::client::{Client, talk};
use testkit::clock::Clock;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::test;

use crate::pool::Pool;
use crate::preload::{
    ORDERED, SHARED, pool, processes, rogue, served_in_spite_of, template, wait_for_children,
};

/// Shows a fault once. Another service is served meanwhile, and this one afterwards.
#[track_caller]
fn only_its_own_service_is_harmed_by(kind: &str, line: &str) {
    let pool = served_in_spite_of(kind, line);
    until(SOON, "one template", || processes(&pool).0.len() == 1);
    assert!(talk(&pool.address).is_some());
}

#[test]
fn a_child_that_speaks_as_its_template_ends_it_and_no_other_process() {
    only_its_own_service_is_harmed_by("template-child", "out of turn");
}

#[test]
fn a_hundred_processes_cannot_say_hello_for_one_child() {
    only_its_own_service_is_harmed_by("crowd-hello", "and no hello");
}

#[test]
fn a_thousand_processes_that_a_template_forks_at_once_are_reaped() {
    let (pool, mark) = rogue("crowd", SHARED);
    assert!(talk(&pool.address).is_some());
    let _held = Client::connect(&pool.address);
    fs::write(&mark, "").expect("a mark");
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(&pool.address)).collect();
    for client in &mut clients {
        assert!(client.line().parse::<i32>().is_ok());
    }
    let master = pool.postfix.master_process();
    until(SOON, "few processes", || master.children().len() < 12);
    assert_eq!(pool.postfix.log_lines("throttled"), [""; 0]);
}

/// Turns the clock to a time, and waits for a line of the log.
#[track_caller]
fn turn_until(pool: &Pool, clock: &Clock, seconds: u32, line: &str) {
    clock.turn(&pool.postfix, seconds);
    pool.postfix.wait_for_log(line);
}

#[test]
fn a_template_that_is_stopped_while_it_waits_is_killed_after_its_next_order() {
    let (mut pool, _) = rogue("none", SHARED);
    let clock = pool.restart_with_clock();
    let first = template(&pool);
    let mut served = Client::connect(&pool.address);
    let child = served.line();
    first.signal(Signal::SIGSTOP);
    let mut waiting = Client::connect(&pool.address);
    until(SOON, "a stopped template", || !first.waits());
    turn_until(&pool, &clock, 11, "has not forked a child within 10 s");
    clock.turn(&pool.postfix, 13);
    assert!(waiting.line().parse::<i32>().is_ok());
    served.say("hello");
    assert_eq!(served.line(), "hello", "child {child}");
    until(SOON, "its end", || !first.runs());
}

#[test]
fn a_template_that_is_stopped_before_a_reload_is_replaced_and_killed() {
    let mut pool = pool(ORDERED);
    let clock = pool.restart_with_clock();
    wait_for_children(&pool, 4);
    let first = template(&pool);
    first.signal(Signal::SIGSTOP);
    pool.postfix.reload();
    assert!(talk(&pool.address).is_some());
    // SIGTERM waits until it goes on; SIGKILL does not.
    assert!(first.runs());
    clock.turn(&pool.postfix, 6);
    until(SOON, "its end", || !first.runs());
    wait_for_children(&pool, 4);
}

#[test]
fn a_new_template_that_is_stopped_while_it_loads_fails_the_reload_and_changes_nothing() {
    let (mut pool, mark) = rogue("load-hang", ORDERED);
    let clock = pool.restart_with_clock();
    wait_for_children(&pool, 4);
    let (templates, children) = processes(&pool);
    fs::write(&mark, "").expect("a mark");
    pool.postfix.hang_up();
    until(SOON, "a new template that loads", || !mark.exists());
    let new = processes(&pool).0;
    let new = new.iter().find(|one| !templates.contains(one));
    new.expect("a second one").signal(Signal::SIGSTOP);
    assert!(talk(&pool.address).is_some());
    turn_until(&pool, &clock, 301, "reload failed and changed nothing");
    until(SOON, "the former processes", || {
        processes(&pool) == (templates.clone(), children.clone())
    });
    assert!(talk(&pool.address).is_some());
}

#[test]
fn what_a_template_forks_after_its_replacement_is_no_child_of_the_service() {
    let (mut pool, _) = rogue("none", SHARED);
    let first = template(&pool);
    first.signal(Signal::SIGSTOP);
    // It has an order that it has not read.
    let mut waiting = Client::connect(&pool.address);
    pool.postfix.reload();
    assert!(waiting.line().parse::<i32>().is_ok());
    first.signal(Signal::SIGCONT);
    until(SOON, "its end", || !first.runs());
    until(SOON, "one template and the child with the client", || {
        let (templates, children) = processes(&pool);
        (templates.len(), children.len()) == (1, 1)
    });
    assert_eq!(pool.postfix.log_lines("warning"), [""; 0]);
}
