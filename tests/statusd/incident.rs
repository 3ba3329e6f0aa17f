//! A walk through an incident, with the display of each step on the page in a browser and in
//! masterctl. The README shows a part of it:
//!
//! ```text
//! MASTER_TEST_SCREENSHOTS=docs cargo test --test statusd incident::
//! ```

use std::time::Duration;

use master::status::Service;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::network::{REMOTE, in_own_network};
use testkit::operator::{masterctl, read_document, service, told};
use testkit::poll::until;
use testkit::standalone::Standalone;
use testkit::{needs_root, programs, test};

use crate::browser::needs_chromium;
use crate::browser::{DESK, Viewport, are_kept, dom_with, draw, expect};
use crate::real::Real;
use crate::site::Site;

/// The duration of each step in seconds when pictures are kept, so that they show a slow incident.
const STEP: f64 = 40.0;
const LONG: Duration = Duration::from_secs(300);

const README: &str = include_str!("../../README.md");
const POSTMASTER: &str = include_str!("../../docs/postmaster.md");
const PORT: &str = "7070";
/// The process limit, and the raised limit.
const FEW: u32 = 5;
const MORE: u32 = 20;
/// Clients that have to wait under the first limit.
const WAITING: u32 = 3;

/// The service in masterctl top: busy, idle, limit, waiting, clients, and a part of the curve.
const BEFORE: &str =
    "7070/inet                          4     0      5     0        4               ▇";
const AT_LIMIT: &str =
    "7070/inet            full          5     0      5     3        5               █";
const AFTER: &str =
    "7070/inet            stress        8     0     20     0        8               █";

const PLAN: &str = "\
~ 7070/inet
    maxproc: 5 -> 20
services: 0 added, 0 removed, 1 changed, 1 unchanged
6 children of 2 services that stay would leave when they have finished with their client
";

/// The height that two services need.
const SHORT: Viewport = Viewport {
    height: 330,
    ..DESK
};

/// A service for remote clients, and clients that stay.
struct Incident {
    real: Real,
    clients: Vec<Client>,
}

#[test]
fn who_looks_sees_an_incident_begin_and_end() {
    needs_root("to have a network of its own");
    needs_chromium();
    in_own_network(|| {
        let mut incident = Incident::new();
        incident.all_is_well();
        incident.load_rises();
        incident.the_limit_is_reached();
        incident.a_plan_for_more_changes_nothing_yet();
        incident.a_reload_says_that_it_worked();
        incident.the_backlog_drains();
    });
}

impl Incident {
    fn new() -> Self {
        let mut real = Real::at(Standalone::of_a_user(), "127.0.0.1:7099");
        real.install(&programs::service("shout"));
        real.write(&table(FEW)).start();
        let clients = Vec::new();
        Self { real, clients }
    }

    fn all_is_well(&self) {
        self.page("2 services, all well.");
        self.top("2 services, all well", "7070/inet ");
        self.let_time_pass();
    }

    /// One client less than the limit.
    fn load_rises(&mut self) {
        for n in 1..FEW {
            self.come(1);
            self.wait_until("all are served", |shout| shout.busy == n);
            self.let_time_pass();
        }
        let page = self.page("near its limit");
        expect(&page, "4 busy, 0 idle; limit 5");
        self.top("2 services, all well", BEFORE);
    }

    fn the_limit_is_reached(&mut self) {
        self.come(1 + WAITING);
        self.wait_until("some to wait", |shout| {
            shout.busy == FEW && shout.backlog == Some(WAITING)
        });
        self.real.wait_for_line(": stress mode begins: ");
        self.let_time_pass();
        self.let_time_pass();
        let page = self.page("data-label=\"waiting\">3<");
        expect(&page, "5 busy, 0 idle; limit 5");
        expect(
            &page,
            "1 at the limit: 7070/inet. 1 in stress mode: 7070/inet.",
        );
        expect(&page, ">at its limit</span>");
        expect(&page, ">stress, 1");
        self.picture("incident-limit");
        self.top("2 services, 1 full, 1 stress", AT_LIMIT);
        let status = told(&self.real, &["status"]);
        let row = status.lines().find(|row| row.starts_with("7070 inet "));
        assert!(
            row.is_some_and(|row| row.ends_with("  3  full, stress")),
            "{status}"
        );
    }

    fn a_plan_for_more_changes_nothing_yet(&mut self) {
        self.real.write(&table(MORE));
        assert_eq!(told(&self.real, &["plan"]), PLAN);
        let shout = self.shout();
        assert_eq!((shout.maximum, shout.backlog), (FEW, Some(WAITING)));
    }

    fn a_reload_says_that_it_worked(&self) {
        let reload = masterctl(&self.real, &["reload"]);
        let (status, said) = (reload.status.code(), &*reload.stdout);
        assert_eq!((status, said), (Some(0), "reloaded\n"), "{reload:?}");
        let document = read_document(&self.real);
        assert!(document.last_reload.expect("a reload").succeeded);
    }

    /// Every client gets a child and is served.
    fn the_backlog_drains(&mut self) {
        self.wait_until("the backlog to drain", |shout| {
            shout.backlog == Some(0) && shout.busy == FEW + WAITING
        });
        self.let_time_pass();
        self.let_time_pass();
        let page = self.page("8 busy, 0 idle; limit 20");
        expect(&page, "2 services. 1 in stress mode: 7070/inet.");
        // The history still shows it.
        expect(&page, "between 0 and 8 busy, at the limit for ");
        self.picture("incident-over");
        self.top("2 services, 1 stress", AFTER);
        for mut client in self.clients.drain(..) {
            client.say("hello");
            assert_eq!(client.line(), "HELLO");
        }
        // Children from before the reload leave.
        self.page("0 busy, 3 idle; limit 20");
    }
}

/// Actions, and what is displayed.
impl Incident {
    fn come(&mut self, clients: u32) {
        let address = format!("{REMOTE}:{PORT}");
        let new = (0..clients).map(|_| Client::connect(&address));
        self.clients.extend(new);
    }

    fn shout(&self) -> Service {
        service(&self.real, PORT)
    }

    #[track_caller]
    fn wait_until(&self, what: &str, holds: impl Fn(&Service) -> bool) {
        until(SOON, what, || holds(&self.shout()));
    }

    /// Waits until the page contains `what`.
    #[track_caller]
    fn page(&self, what: &str) -> String {
        dom_with(&self.real.url("/"), what)
    }

    /// For the pictures only.
    fn let_time_pass(&self) {
        let time = || read_document(&self.real).time;
        let end = time() + if are_kept() { STEP } else { 0.0 };
        until(LONG, "the next step", || time() >= end);
    }

    fn picture(&self, name: &str) {
        let size = draw(&self.real.url("/"), SHORT, name);
        assert!(size < 80_000, "{name} is for the README: {size} bytes");
    }

    /// Waits until masterctl top shows this event and this row of the service.
    #[track_caller]
    fn top(&self, news: &str, row: &str) {
        until(SOON, format!("{news:?} and {row:?}"), || {
            let picture = told(&self.real, &["top", "--once"]);
            let mut lines = picture.lines().skip(1);
            lines.next() == Some(news) && lines.any(|line| line.starts_with(row))
        });
    }
}

fn table(maxproc: u32) -> String {
    format!("{PORT} inet n - - - {maxproc} shout\n")
}

#[test]
fn the_readme_shows_what_is_seen() {
    for shown in [AT_LIMIT, AFTER, "reload\nreloaded\n"] {
        assert!(README.contains(shown), "{shown}");
    }
    assert!(POSTMASTER.contains(PLAN), "{PLAN}");
}
