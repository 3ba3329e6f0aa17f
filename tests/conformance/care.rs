//! Settings of `master.toml` for children that fail or run too long. The original does not read
//! this file, so these tests are for ours only.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::clock::Clock;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::puppet::Puppet;
use testkit::puppet_service::PuppetService;
use testkit::{layout, needs_root, test};

use crate::lines::Line;

/// Skips a test of ours under the original.
fn needs_ours() {
    needs_root("to run a master");
    testkit::needs_ours("the original has no master.toml");
}

/// An unstarted master with one service with these settings.
fn cared_for(settings: &str) -> (Instance, PuppetService) {
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    set(&postfix, settings);
    (postfix, service)
}

fn set(postfix: &Instance, settings: &str) {
    let table = format!("[service.\"a/unix\"]\n{settings}");
    layout::replace(&postfix.configuration().join("master.toml"), &table);
}

/// The words of a log line with the service's name and its numbers of children.
fn named(counts: &str) -> [String; 2] {
    ["service \"a\" (".to_owned(), counts.to_owned()]
}

/// A busy child that ignores both the request to leave and SIGTERM.
fn stubborn(service: &PuppetService) -> (Client, Puppet) {
    let (client, mut puppet) = service.serve();
    puppet.tell("ignore SIGTERM");
    puppet.tell("stay");
    (client, puppet)
}

fn pid(puppet: &Puppet) -> [String; 1] {
    [format!("pid {} ", puppet.process.0)]
}

/// "doubles with each failure, from the first time to the second"
#[test]
fn a_service_that_goes_on_failing_is_throttled_for_longer() {
    needs_ours();
    let (mut postfix, service) = cared_for("throttle_time = \"1s..2s\"\n");
    postfix.start();
    let _client = service.connect();
    let begin = Instant::now();
    for seconds in [1, 2] {
        service.next().exit(1);
        let words = [format!(
            ": throttled for {seconds} s, avail 0 total 0 max 100"
        )];
        Line::Throttled.wait(&postfix, &words);
        Line::Unthrottled.wait(&postfix, &named("avail 0 total 0 max 100"));
    }
    let mut puppet = service.next();
    assert!(begin.elapsed() > Duration::from_millis(2900));
    // A served client resets the throttle time to the first one.
    puppet.take_client();
    puppet.finish_client();
    puppet.wait_until_heard();
    let (_next, mut puppet) = (service.connect(), puppet);
    puppet.take_client();
    puppet.wait_until_heard();
    puppet.exit(1);
    let _third = service.connect();
    service.next().exit(1);
    until(SOON, "the first time again", || {
        postfix.log_lines(": throttled for 1 s, ").len() == 2
    });
}

/// "a service of which at least that share of the last 20 clients lost their child"
#[test]
fn a_service_that_loses_half_of_its_clients_is_throttled() {
    needs_ours();
    let (mut postfix, service) = cared_for("crash_percent = 50\n");
    postfix.start();
    for _ in 0..10 {
        let (client, mut puppet) = service.serve();
        puppet.finish_client();
        drop(client);
        // One client is served, another one loses its child.
        let _client = service.connect();
        puppet.take_client();
        puppet.wait_until_heard();
        puppet.exit(1);
    }
    let words = ["children ended abnormally with 10 of the last 20 clients"];
    Line::Crashing.wait(&postfix, &words);
    assert_eq!(Line::BadStartup.count(&postfix), 0);
    let _client = service.connect();
    service.expect_no_child();
}

/// "a line with pid and age, then SIGTERM"
#[test]
fn a_child_that_is_busy_for_too_long_is_ended_and_its_place_is_free() {
    needs_ours();
    let (mut postfix, service) = cared_for("request_timeout = \"10m\"\n");
    service.set(&mut postfix, "unix - - n - 1");
    let clock = Clock::install(&mut postfix);
    postfix.start();
    let (mut client, mut puppet) = service.serve();
    puppet.wait_until_heard();
    clock.turn(&postfix, 595);
    assert!(puppet.process.runs());
    assert_eq!(Line::TooLong.count(&postfix), 0);
    clock.turn(&postfix, 601);
    let said = Line::TooLong.wait(&postfix, &pid(&puppet));
    assert!(
        said.contains("warning: ") && said.contains(" for 60"),
        "{said}"
    );
    puppet.wait_for_end();
    assert_eq!(client.line(), "", "the end of the connection");
    // The service is not at fault.
    assert_eq!(postfix.log_lines(" killed by signal "), [""; 0]);
    service.serve();
}

/// "then SIGKILL"
#[test]
fn a_child_that_does_not_end_when_its_time_is_over_is_killed() {
    needs_ours();
    let (mut postfix, service) = cared_for("request_timeout = 1\nstop_timeout = 1\n");
    postfix.start();
    let (_client, mut puppet) = service.serve();
    puppet.tell("ignore SIGTERM");
    Line::TooLong.wait(&postfix, &pid(&puppet));
    Line::Overdue.wait(&postfix, &pid(&puppet));
    puppet.wait_for_end();
    service.serve();
}

/// "those who are still there after it"
#[test]
fn a_child_that_does_not_leave_after_a_reload_is_ended() {
    needs_ours();
    let (mut postfix, service) = cared_for("stop_timeout = 1\n");
    postfix.start();
    let (_client, mut puppet) = service.serve();
    puppet.wait_until_heard();
    puppet.tell("stay");
    postfix.reload();
    Line::Lingering.wait(&postfix, &pid(&puppet));
    puppet.wait_for_end();
    assert_eq!(Line::Overdue.count(&postfix), 0);
}

/// "for removal, in place of service_kill_time"
#[test]
fn a_removed_service_has_its_own_time_to_end() {
    needs_ours();
    let (mut postfix, service) = cared_for("stop_timeout = 1\n");
    PuppetService::add(&mut postfix, "other", "unix - - n - -");
    postfix.set("service_kill_time", "1000s");
    let _other = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.start();
    let (_client, puppet) = stubborn(&service);
    layout::replace(&postfix.configuration().join("master.toml"), "");
    postfix.without("a", "unix").reload();
    Line::Removed.wait(&postfix, &named("avail 0 total 1 max 100"));
    Line::Killing.wait(&postfix, &pid(&puppet));
    puppet.wait_for_end();
}

/// "one line when a service starts [and] stops"
#[test]
fn a_reload_tells_of_services_that_come_and_go_and_the_start_does_not() {
    needs_ours();
    let (mut postfix, _troupe) = cared_for("");
    postfix.start();
    let other = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.reload();
    Line::Added.wait(&postfix, &["service \"b\" ("]);
    let _served = other.serve();
    postfix.without("b", "unix").reload();
    Line::Removed.wait(&postfix, &["service \"b\" (", "avail 0 total 1 max 100"]);
    assert_eq!(Line::Added.count(&postfix), 1, "not at the start");
}

/// "the master waits for the children of such services when it is stopped"
#[test]
fn a_master_that_is_stopped_waits_for_children_with_a_time_to_end() {
    needs_ours();
    let (mut postfix, service) = cared_for("stop_timeout = \"10m\"\n");
    postfix.start();
    let (_client, mut puppet) = stubborn(&service);
    let master = postfix.master_process();
    master.signal(Signal::SIGTERM);
    Line::Terminating.wait(&postfix, &["15"]);
    puppet.tell("dismissal");
    assert!(master.runs(), "it waits");
    let refused = || Client::try_connect(&service.address).is_err();
    until(SOON, "clients to be refused", refused);
    puppet.exit(0);
    until(SOON, "the master's end", || !master.runs());
    assert_eq!(Line::Overdue.count(&postfix), 0);
}

/// "refuse clients, close status channels, wait, SIGTERM"
#[test]
fn a_child_with_a_time_to_end_finishes_with_its_client_when_the_master_is_stopped() {
    needs_ours();
    let (mut postfix, service) = cared_for("stop_timeout = \"10m\"\n");
    let other = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.start();
    let (mut client, mut puppet) = service.serve();
    let (_other, untold) = other.serve();
    puppet.tell("stay");
    puppet.wait_until_heard();
    let master = postfix.master_process();
    master.signal(Signal::SIGTERM);
    // It reads end of file, and no signal comes. The child of the other service gets it at once.
    puppet.tell("dismissal");
    untold.wait_for_end();
    puppet.tell("write hello");
    assert_eq!(client.line(), "hello");
    assert!(master.runs());
    puppet.exit(0);
    until(SOON, "the master's end", || !master.runs());
    assert_eq!(Line::Lingering.count(&postfix), 0);
}

#[test]
fn a_further_signal_ends_the_time_that_children_have() {
    needs_ours();
    let (mut postfix, service) = cared_for("stop_timeout = \"10m\"\n");
    postfix.start();
    let (_client, mut puppet) = service.serve();
    puppet.tell("stay");
    puppet.wait_until_heard();
    let master = postfix.master_process();
    master.signal(Signal::SIGTERM);
    puppet.tell("dismissal");
    master.signal(Signal::SIGINT);
    puppet.wait_for_end();
    until(SOON, "the master's end", || !master.runs());
    Line::Lingering.wait(&postfix, &pid(&puppet));
}

/// "and kills those who are still there"
#[test]
fn a_master_that_is_stopped_kills_children_whose_time_to_end_is_over() {
    needs_ours();
    let (mut postfix, service) = cared_for("stop_timeout = 1\n");
    postfix.start();
    let (_client, puppet) = stubborn(&service);
    postfix.stop();
    Line::Lingering.wait(&postfix, &pid(&puppet));
    Line::Overdue.wait(&postfix, &pid(&puppet));
    puppet.wait_for_end();
}

/// "Nobody is waited for otherwise": the lock is free at once, as `postfix stop` expects.
#[test]
fn a_master_that_is_stopped_waits_for_nobody_else() {
    needs_ours();
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.start();
    let (_client, puppet) = stubborn(&service);
    let master = postfix.master_process();
    master.signal(nix::sys::signal::Signal::SIGTERM);
    until(SOON, "the master's end", || !master.runs());
    assert!(puppet.process.runs());
}
