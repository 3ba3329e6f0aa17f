//! The system's clock is set back or forward.

use std::fs;
use std::time::Duration;

use testkit::client::Client;
use testkit::clock::WallClock;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::puppet_service::{PuppetService, one_service};
use testkit::vitals::expect_rest;
use testkit::{needs_root, test};

use crate::lines::Line;

const HOUR: i64 = 3600;
const MINUTES_OF_A_DAY: i64 = 24 * 60;

/// The time of day of a log line, in minutes.
#[track_caller]
fn minutes(line: &str) -> i64 {
    let number = |at: usize| line[at..at + 2].parse::<i64>().expect("a time");
    number(7) * 60 + number(10)
}

/// A throttled service with a waiting client, after the clock was changed by this number of
/// seconds. The log shows that the master sees the change; otherwise the test would prove nothing.
#[track_caller]
fn throttled_when_the_clock_is_turned(
    postfix: &mut Instance,
    seconds: i64,
) -> (Client, PuppetService) {
    let service = PuppetService::add(postfix, "a", "unix - - n - -");
    let clock = WallClock::install(postfix);
    postfix.start();
    let before = minutes(&postfix.wait_for_log("daemon started"));
    let client = service.connect();
    service.next().exit(7);
    postfix.wait_for_log(Line::BadStartup.ours());
    clock.turn(seconds);
    postfix.hang_up();
    let after = minutes(&postfix.wait_for_log("reload -- version"));
    let turned = (after - before - seconds / 60).rem_euclid(MINUTES_OF_A_DAY);
    assert!(turned <= 2, "from minute {before} to {after} of the day");
    (client, service)
}

/// "Time is monotonic"
#[test]
fn a_clock_that_is_set_back_delays_nothing() {
    needs_root("to run a master");
    differs(
        "The system's clock, set back, does not delay what is due.",
        Observed {
            ours: "a throttled service comes back in time",
            original: "a throttled service comes back later by as much",
        },
        |postfix| {
            postfix.set("service_throttle_time", "2s");
            let (_client, service) = throttled_when_the_clock_is_turned(postfix, -HOUR);
            match service.next_within(SOON / 2) {
                Some(_) => "a throttled service comes back in time",
                None => "a throttled service comes back later by as much",
            }
        },
    );
}

/// "Time is monotonic"
#[test]
fn a_clock_that_is_set_forward_cuts_no_wait_short() {
    needs_root("to run a master");
    differs(
        "The system's clock, set forward, makes nothing due before its time.",
        Observed {
            ours: "a throttled service stays throttled",
            original: "a throttled service comes back at once",
        },
        |postfix| {
            postfix.set("service_throttle_time", "600s");
            let (_client, service) = throttled_when_the_clock_is_turned(postfix, HOUR);
            if service.starts_a_child() {
                return "a throttled service comes back at once";
            }
            expect_rest(postfix.master_process(), Duration::from_millis(700));
            "a throttled service stays throttled"
        },
    );
}

/// The kernel's timers for the master do not use the time of day, either.
#[test]
fn no_timer_of_the_master_follows_the_systems_clock() {
    needs_root("to run a master");
    let (postfix, _troupe) = one_service("unix - - n - -");
    let master = postfix.master_process();
    for (number, descriptor) in master.descriptors() {
        if !descriptor.target.contains("timerfd") {
            continue;
        }
        let path = format!("/proc/{}/fdinfo/{number}", master.0);
        let facts = fs::read_to_string(path).expect("a descriptor");
        let clock = facts.lines().find_map(|line| line.strip_prefix("clockid:"));
        // CLOCK_MONOTONIC; the time of day is 0.
        assert_eq!(clock.map(str::trim), Some("1"), "{facts}");
    }
}
