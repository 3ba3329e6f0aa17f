//! Services whose children fail.

use std::time::{Duration, Instant};

use testkit::clock::Clock;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::programs::example;
use testkit::puppet_service::{PuppetService, one_service};
use testkit::run::Running;
use testkit::{needs_ours, needs_root, test};

use crate::lines::Line;

/// "A child that ends abnormally with use count 0 throttles its service", "`process PATH pid N
/// exit status N`", "`PATH: bad command startup -- throttling`"
#[test]
fn a_child_that_fails_before_it_has_served_throttles_its_service() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let path = postfix.daemons().join("puppet").display().to_string();
    let _client = service.connect();
    let puppet = service.next();
    let pid = puppet.process.0;
    puppet.exit(9);
    let said = format!("warning: process {path} pid {pid} exit status 9");
    Line::Ended.wait(&postfix, &[said]);
    Line::BadStartup.wait(&postfix, &[format!("warning: {path}")]);
    service.expect_no_child();
}

/// "`process PATH pid N killed by signal N`"
#[test]
fn a_child_that_is_killed_before_it_has_served_throttles_its_service() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let _client = service.connect();
    let puppet = service.next();
    let pid = puppet.process.0;
    puppet.die("SIGKILL");
    Line::Ended.wait(&postfix, &[format!(" pid {pid} killed by signal 9")]);
    Line::BadStartup.wait(&postfix, &[""; 0]);
    service.expect_no_child();
}

/// "Report 1 (available) raises the use count": accepting a client is not enough.
#[test]
fn a_child_that_fails_with_its_first_client_throttles_its_service() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let (_client, mut puppet) = service.serve();
    puppet.wait_until_heard();
    puppet.exit(1);
    Line::BadStartup.wait(&postfix, &[""; 0]);
    let _next = service.connect();
    service.expect_no_child();
}

/// "A child that fails later [...] is only logged."
#[test]
fn a_child_that_fails_after_it_has_served_throttles_nothing() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    for (end, said) in [
        ("exit 9", "exit status 9"),
        ("die SIGKILL", "killed by signal 9"),
    ] {
        let (client, mut puppet) = service.serve();
        drop(client);
        puppet.finish_client();
        puppet.wait_until_heard();
        puppet.send(end);
        puppet.wait_for_end();
        Line::Ended.wait(&postfix, &[format!("pid {} {said}", puppet.process.0)]);
    }
    // The next client is served at once; a throttled service would take a minute.
    let _client = service.connect();
    service.next();
    assert_eq!(postfix.log_lines("throttling"), [""; 0]);
}

/// "Its service then starts no children for `service_throttle_time`, and clients wait."
#[test]
fn a_throttled_service_comes_back_and_serves_who_waited() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.set("service_throttle_time", "2s");
    postfix.start();
    let mut client = service.connect();
    let begin = Instant::now();
    service.next().exit(7);
    let mut puppet = service.next();
    // Clocks that count whole seconds may be up to one second early.
    let pause = begin.elapsed();
    assert!(
        pause > Duration::from_millis(900),
        "throttled for {pause:?}"
    );
    puppet.take_client();
    puppet.tell("write hello");
    assert_eq!(client.line(), "hello");
    assert_eq!(Line::BadStartup.count(&postfix), 1, "throttled");
}

/// A service that fails again is throttled again.
#[test]
fn a_service_that_comes_back_and_fails_is_throttled_again() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.set("service_throttle_time", "1s");
    postfix.start();
    let _client = service.connect();
    for times in 1..=3 {
        service.next().exit(7);
        until(SOON, "the throttling", || {
            Line::BadStartup.count(&postfix) == times
        });
    }
}

/// "throttles its service": and no other.
#[test]
fn throttling_is_no_others_business() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let bad = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let good = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.start();
    let _client = bad.connect();
    bad.next().exit(1);
    Line::BadStartup.wait(&postfix, &[""; 0]);
    good.serve();
    bad.expect_no_child();
}

/// Busy children continue when a sibling fails.
#[test]
fn a_throttled_services_children_go_on_serving() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let (_client, mut busy) = service.serve();
    let mut waiting = service.connect();
    service.next().exit(1);
    Line::BadStartup.wait(&postfix, &[""; 0]);
    busy.finish_client();
    busy.take_client();
    busy.tell("write hello");
    assert_eq!(waiting.line(), "hello");
}

/// "A throttled service stays throttled" when the configuration is reloaded.
#[test]
fn a_throttled_service_stays_throttled_over_a_reload() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - -");
    let _client = service.connect();
    service.next().exit(1);
    Line::BadStartup.wait(&postfix, &[""; 0]);
    postfix.reload();
    service.expect_no_child();
}

/// "wake-up and throttle time replaced"
#[test]
fn a_reload_replaces_the_throttle_time() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - -");
    postfix.set("service_throttle_time", "1s");
    postfix.reload();
    let _client = service.connect();
    service.next().exit(1);
    // The default is a minute.
    service.next();
}

/// "A child that fails [...] after it was told to leave, is only logged."
#[test]
fn a_child_that_fails_because_it_must_leave_throttles_nothing() {
    needs_root("to run a master");
    differs(
        "A child that fails after it was told to leave says nothing about the command of today.",
        Observed {
            ours: "the next client is served at once",
            original: "the service is throttled",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let (_client, mut puppet) = service.serve();
            puppet.tell("stay");
            puppet.wait_until_heard();
            postfix.reload();
            puppet.exit(1);
            postfix.wait_for_log("exit status 1");
            let _client = service.connect();
            if service.starts_a_child() {
                "the next client is served at once"
            } else {
                "the service is throttled"
            }
        },
    );
}

/// "a failed fork does too": the system has no room for another process.
#[test]
fn a_service_is_throttled_when_no_process_can_be_made() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    postfix.unwatched("no child is started");
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let mut refusing = postfix.under(&example("refuse"), &["fork", "EAGAIN"]);
    postfix.run_in_foreground(&mut refusing);
    let _client = service.connect();
    let details = [
        "warning: ",
        "Resource temporarily unavailable -- throttling",
    ];
    Line::SpawnFailed.wait(&postfix, &details);
    service.expect_no_child();
    assert_eq!(Line::SpawnFailed.count(&postfix), 1, "attempts");
}

/// "So it is when the system cannot [...] watch the listeners."
#[test]
fn a_service_is_throttled_when_its_listeners_cannot_be_watched() {
    needs_root("to run a master");
    differs(
        "When the kernel watches no more descriptors, the service is throttled.",
        Observed {
            ours: "a warning, and the other service is served",
            original: "the master does not start",
        },
        |postfix| {
            postfix.unwatched("the last listener's number is counted on");
            let good = PuppetService::add(postfix, "a", "unix - - n - -");
            let bad = PuppetService::add(postfix, "b", "unix - - n - -");
            // A first start shows the descriptor number of the listener in the second start.
            postfix.start_in_foreground(&[]);
            let descriptors = postfix.master_process().descriptors();
            let listener = descriptors.iter().rfind(|(_, one)| one.kind.is_listener());
            let number = listener.expect("a listener").0.to_string();
            postfix.stop();

            let refusing = ["epoll", "ENOSPC", &number];
            let mut master = Running::start(&mut postfix.under(&example("refuse"), &refusing));
            let warned = || !postfix.log_lines(Line::WatchFailed.ours()).is_empty();
            let ended = until(SOON, "a warning or the end", || {
                let ended = master.has_ended();
                (ended || warned()).then_some(ended)
            });
            if ended {
                return "the master does not start";
            }
            good.serve();
            let _client = bad.connect();
            bad.expect_no_child();
            "a warning, and the other service is served"
        },
    );
}

/// "With -v, further lines tell [...] of throttling"
#[test]
fn a_verbose_master_tells_of_throttling() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.set("service_throttle_time", "1s");
    postfix.start_in_foreground(&["-v"]);
    let _client = service.connect();
    service.next().exit(1);
    Line::Throttled.wait(&postfix, &[""; 0]);
    service.next();
    Line::Unthrottled.wait(&postfix, &[""; 0]);
}

/// The throttle time is a minute by default, by the clock.
#[test]
fn a_minute_is_the_default_throttle_time() {
    needs_root("to run a master");
    needs_ours("the original's clock cannot be turned");
    let mut postfix = Instance::bare();
    let clock = Clock::install(&mut postfix);
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.start();
    let _client = service.connect();
    service.next().exit(1);
    Line::BadStartup.wait(&postfix, &[""; 0]);
    clock.turn(&postfix, 55);
    service.expect_no_child();
    clock.turn(&postfix, 61);
    service.next();
}
