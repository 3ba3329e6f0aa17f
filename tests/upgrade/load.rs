//! Many upgrades while clients come without a pause.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use master::status::Service;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::{read_document, service, told};
use testkit::poll::until;
use testkit::programs::example;
use testkit::puppet::{Puppet, Puppets};
use testkit::standalone::Standalone;
use testkit::test;
use testkit::vitals::kinds_at_rest;

use crate::stage::{descriptors, expect_no_more, is_long, upgrade};

/// Clients at a time.
const CONCURRENCY: usize = 8;
const UPGRADES: usize = 20;

/// How many clients there are at least.
fn clients() -> usize {
    if is_long() { 40_000 } else { 4_000 }
}

/// A client that must be served.
fn visit(address: &str) {
    let mut client = Client::connect(address);
    let line = client.line();
    assert!(line.ends_with(" 0"), "the child says {line:?}");
}

/// Upgrades the master while clients come, and returns how many were served: all.
fn upgrade_under_load(standalone: &Standalone, address: &str) -> u64 {
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let come = || {
        while !over.load(Ordering::Relaxed) {
            visit(address);
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    let served_at_least = |n: usize| {
        until(3 * SOON, "more clients", || {
            served.load(Ordering::Relaxed) >= n
        });
    };
    thread::scope(|scope| {
        let crowd: Vec<_> = (0..CONCURRENCY).map(|_| scope.spawn(come)).collect();
        let upgraded = catch_unwind(AssertUnwindSafe(|| {
            for n in 1..=UPGRADES {
                served_at_least(n * clients() / (UPGRADES + 1));
                upgrade(standalone);
            }
            served_at_least(clients());
        }));
        over.store(true, Ordering::Relaxed);
        for clients in crowd {
            clients.join().expect("each client is served");
        }
        upgraded.unwrap_or_else(|panic| resume_unwind(panic));
    });
    served.into_inner() as u64
}

/// A master under test, and what must stay in it.
struct Serving {
    standalone: Standalone,
    address: String,
    /// The clients and the children by which a service is at its limit.
    _busy: [(Client, Puppet); 2],
}

impl Serving {
    /// Its service `a` has this process limit and command, and beside it are a service that is
    /// throttled, one that is paused, and one in stress mode.
    fn with(limit: usize, arguments: &str) -> Self {
        let mut standalone = Standalone::of_a_user();
        standalone.unwatched("the services and their children are counted");
        let hello = standalone.install(&example("hello")).display().to_string();
        let (puppets, puppet) = Puppets::of(&standalone, "stressed");
        let fails = standalone.script("fails", "exit 1").display().to_string();
        standalone.write_table(&format!(
            "a unix n - - - {limit} {hello} {arguments}\n\
             throttled unix n - - - 5 {fails}\n\
             paused unix n - - - 5 {fails}\n\
             stressed pass n - - - 2 {puppet}\n"
        ));
        standalone.write_toml("service_throttle_time = \"1h\"\n");
        standalone.start();
        let path = |name| standalone.queue().join("public").join(name);
        let path = |name| path(name).to_string_lossy().into_owned();
        let _fails = Client::connect(&path("throttled"));
        let busy = [(); 2].map(|()| {
            let client = Client::connect(&path("stressed"));
            let mut child = puppets.next();
            child.take_client();
            (client, child)
        });
        told(&standalone, &["pause", "paused"]);
        until(SOON, "a throttle and stress", || {
            let throttle = service(&standalone, "throttled").throttled_until;
            throttle.is_some() && service(&standalone, "stressed").stress_until.is_some()
        });
        Self {
            address: path("a"),
            standalone,
            _busy: busy,
        }
    }

    /// Upgrades the master many times under load. Returns service `a` before and after, and the
    /// number of its clients.
    #[track_caller]
    fn upgrade(&mut self) -> (Service, Service, u64) {
        // What is kept for a service that has had children.
        visit(&self.address);
        let rest = |standalone: &mut Standalone| {
            kinds_at_rest(standalone.process());
            descriptors(standalone)
        };
        let kinds = rest(&mut self.standalone);
        // A reader may get a document that was made for another one just before.
        let at_rest = SystemTime::now().duration_since(UNIX_EPOCH);
        let at_rest = at_rest.expect("a time after 1970").as_secs_f64();
        let before = until(SOON, "a document of the master at rest", || {
            Some(read_document(&self.standalone)).filter(|document| document.time > at_rest)
        });
        let clients = upgrade_under_load(&self.standalone, &self.address);
        let connections = before.services[0].connections + clients;
        until(SOON, "all clients to be counted", || {
            let service = service(&self.standalone, "a");
            service.connections == connections && service.busy == 0
        });
        expect_no_more(&kinds, &rest(&mut self.standalone));
        let after = read_document(&self.standalone);
        assert_eq!(after.upgrades, before.upgrades + UPGRADES as u32);
        assert_eq!(
            (after.pid, after.generation),
            (before.pid, before.generation)
        );
        let [_, throttled, paused, stressed] = [0, 1, 2, 3].map(|n| {
            let pair = (&before.services[n], &after.services[n]);
            assert_eq!(pair.0.name, pair.1.name);
            pair
        });
        let times = |throttled: &Service, stressed: &Service| {
            let throttle = throttled.throttled_until.expect("a throttle");
            [throttle, stressed.stress_until.expect("stress")]
        };
        let was = times(throttled.0, stressed.0);
        let is = times(throttled.1, stressed.1);
        let stay = was.iter().zip(is).all(|(was, is)| (was - is).abs() < 0.1);
        assert!(stay, "{was:?}, then {is:?}");
        assert_eq!(throttled.1.started, throttled.0.started);
        assert!(paused.1.paused && !paused.1.listening);
        let children = |service: &Service| (service.busy, service.total, service.started);
        assert_eq!(children(stressed.1), children(stressed.0));
        let said = self.standalone.said();
        assert!(!said.contains("error: "), "{said}");
        let services = [before, after].map(|document| document.services[0].clone());
        let [before, after] = services;
        assert_eq!((after.failed, after.killed), (0, 0));
        (before, after, clients)
    }

    fn children(&self) -> BTreeSet<i32> {
        let children = service(&self.standalone, "a").children;
        children.into_iter().map(|child| child.pid).collect()
    }
}

#[test]
fn clients_of_standing_children_are_all_served_by_the_same_children() {
    let mut serving = Serving::with(CONCURRENCY, "serve");
    let clients = [(); CONCURRENCY].map(|()| {
        let mut client = Client::connect(&serving.address);
        client.line();
        client
    });
    drop(clients);
    let children = until(SOON, "idle children", || {
        let rests = service(&serving.standalone, "a").available == 8;
        rests.then(|| serving.children())
    });
    let (before, after, _) = serving.upgrade();
    assert_eq!((before.started, after.started), (8, 8));
    assert_eq!((after.ended, after.total), (0, 8));
    assert_eq!(serving.children(), children);
}

#[test]
fn clients_that_need_a_child_each_are_all_served_and_each_child_is_counted() {
    let mut serving = Serving::with(50, "");
    let (before, after, clients) = serving.upgrade();
    // A child that finds the client taken by another stays for the next one.
    let (started, ended) = (after.started - before.started, after.ended - before.ended);
    assert_eq!(ended, clients);
    assert_eq!(
        started - ended,
        u64::from(after.total) - u64::from(before.total)
    );
}
