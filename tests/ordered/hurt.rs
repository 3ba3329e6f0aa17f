//! Children that are killed, stopped, or violate the protocol, under load.

use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::{needs_root, test};

use crate::load::{clients, serve};
use crate::pool::needs_module;
use crate::pool::{HANDFUL, IMPATIENT, Pool};

/// Every client is served although about twenty orders fail in this way, and the log has the
/// reason.
#[track_caller]
fn every_client_is_served_despite(kind: &str, line: &str) {
    let pool = Pool::rogue(kind, clients() / 20, IMPATIENT);
    let load = serve(&pool.address, clients(), || {});
    assert_eq!((load.served, load.lost), (clients(), 0), "{load:?}");
    pool.postfix.wait_for_log(line);
}

#[test]
fn every_client_is_served_while_children_are_killed() {
    needs_module();
    let pool = Pool::perl(8, HANDFUL);
    let mut nth = 0;
    let load = serve(&pool.address, clients(), || {
        // A child takes some time to start, so there must be others.
        nth += 1;
        if nth % 20 == 5 {
            if let Some(child) = pool.any_child(nth / 20) {
                child.signal(Signal::SIGKILL);
            }
        }
    });
    assert_eq!((load.served, load.lost), (clients(), 0), "{load:?}");
    let killed = pool.postfix.log_lines("killed by signal 9").len();
    assert!(killed > 0, "no child was killed");
}

#[test]
fn every_client_is_served_while_children_are_stopped() {
    needs_module();
    let pool = Pool::perl(8, IMPATIENT);
    let (mut nth, mut stopped) = (0, None::<testkit::process::Process>);
    let load = serve(&pool.address, clients(), || {
        // One at a time, and long enough to be noticed.
        nth += 1;
        if nth % 10 == 0 {
            if let Some(child) = stopped.take() {
                child.signal(Signal::SIGCONT);
            }
            stopped = pool.any_child(nth / 10);
            if let Some(child) = stopped {
                child.signal(Signal::SIGSTOP);
            }
        }
    });
    assert_eq!((load.served, load.lost), (clients(), 0), "{load:?}");
}

#[test]
fn clients_of_children_that_are_all_stopped_are_served_when_these_go_on() {
    needs_root("a mail system");
    let pool = Pool::rust(3, "ordered", "", "accept = \"ordered\"\nmax_idle = 3\n");
    pool.wait_for_idle(3);
    let children = pool.children();
    for _ in 0..5 {
        for child in &children {
            child.signal(Signal::SIGSTOP);
        }
        let mut clients = [(); 9].map(|()| Client::connect(&pool.address));
        for client in &mut clients {
            client.say("hello");
        }
        // Longer than an unanswered order delays the next one.
        assert_eq!(clients[0].line_within(Duration::from_millis(100)), None);
        for child in &children {
            child.signal(Signal::SIGCONT);
        }
        for client in &mut clients {
            assert!(client.line().parse::<i32>().is_ok());
            assert_eq!(client.line(), "hello");
        }
    }
    assert_eq!(pool.children(), children);
}

#[test]
fn a_master_that_is_stopped_while_it_fills_a_pool_leaves_nobody_behind() {
    needs_module();
    let settings = "accept = \"ordered\"\nmin_children = 20\nmax_idle = 20\n";
    let mut pool = Pool::perl(20, settings);
    until(SOON, "a child", || !pool.children().is_empty());
    pool.postfix.stop();
    assert_eq!(pool.postfix.log_lines("rogue"), [""; 0]);
}

#[test]
fn a_child_that_sends_an_unknown_letter_is_ended_and_its_client_goes_to_another() {
    needs_module();
    every_client_is_served_despite(
        "letter",
        "it sent an unknown message (it begins with \"X\")",
    );
}

#[test]
fn a_child_that_floods_its_channel_is_ended_and_its_client_goes_to_another() {
    needs_module();
    every_client_is_served_despite("flood", "it sent an unknown message (it begins with \"X\")");
}

#[test]
fn a_child_that_answers_out_of_turn_is_ended_and_its_client_goes_to_another() {
    needs_module();
    every_client_is_served_despite("turn", "it says that it is idle, out of turn");
}

#[test]
fn a_child_that_answers_by_half_is_ended_and_its_client_goes_to_another() {
    needs_module();
    every_client_is_served_despite("half", "it did not answer an order within 1 s");
}

#[test]
fn a_child_that_does_not_answer_is_ended_and_its_client_goes_to_another() {
    needs_module();
    every_client_is_served_despite("silent", "it did not answer an order within 1 s");
}

#[test]
fn a_child_that_stops_itself_is_killed_and_its_client_goes_to_another() {
    needs_module();
    every_client_is_served_despite("stop", " is still there, sending SIGKILL");
}

#[test]
fn a_child_that_closes_its_channel_is_killed_and_its_client_goes_to_another() {
    needs_module();
    every_client_is_served_despite("hangup", " is still there, sending SIGKILL");
}

#[test]
fn a_child_that_shuts_its_channel_down_for_reading_is_ended_and_its_client_goes_to_another() {
    needs_module();
    every_client_is_served_despite("deaf", "it did not answer an order");
}

#[test]
fn a_child_that_dies_of_an_order_leaves_its_client_to_another() {
    needs_module();
    every_client_is_served_despite("die", "killed by signal 9");
}

#[test]
fn children_that_send_an_unknown_letter_before_they_are_idle_throttle_their_service() {
    needs_module();
    let pool = Pool::rogue("early", 1, "accept = \"ordered\"\nmax_idle = 1\n");
    let throttles = || {
        pool.postfix
            .log_lines("bad command startup -- throttling")
            .len()
    };
    until(SOON, "three throttles of a second", || throttles() >= 3);
    let rogues = pool.postfix.log_lines("ending rogue process").len();
    assert!(rogues < 8, "{rogues} children in some seconds");
}
