//! Children that are killed and stopped.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::process::Process;
use testkit::puppet_service::one_service;
use testkit::vitals::{Vitals, expect_rest};
use testkit::{needs_root, test};

use super::crowd::{self, Crowd};
use crate::lines::Line;

/// Reproducible pseudo-random numbers (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// The client of a killed child finds its connection closed. No other client is affected.
#[test]
fn children_that_are_killed_let_down_nobody_but_their_own_clients() {
    needs_root("to run a master");
    let kills = 40;
    let mut postfix = Instance::bare();
    let path = postfix.socket("private", "a").display().to_string();
    crowd::add_service(&mut postfix, "a", "unix - - n - 6");
    // A child that is killed before it has served throttles its service.
    postfix.set("service_throttle_time", "1s");
    postfix.start();
    let addresses = [&*path; 6];
    Crowd::new(&addresses, 100).visit(|| ());
    let vitals = crowd::vitals_without_children(&mut postfix);

    let (mut random, mut killed) = (Random(4711), BTreeSet::new());
    let crowd = Crowd::endless(&addresses);
    let tally = crowd.visit(|| {
        while killed.len() < kills {
            let children = until(SOON, "a child", || {
                Some(postfix.children()).filter(|children| !children.is_empty())
            });
            let victim = children[random.below(children.len())];
            victim.signal(Signal::SIGKILL);
            killed.insert(victim.0);
            let come = crowd.come();
            until(SOON, "more clients", || crowd.come() > come + 100);
        }
        crowd.end();
    });
    assert!(tally.let_down() <= killed.len() as u32, "{tally:?}");
    for child in tally.by_child.keys() {
        assert!(killed.contains(child), "{child} lived: {tally:?}");
    }
    // Children that have ended do not count towards the process limit.
    postfix.reload();
    vitals.expect_again(&postfix);
    let again = Crowd::new(&addresses, 100).visit(|| ());
    assert_eq!(again.served, 100, "{again:?}");
}

/// A stopped child has not ended: its client, and clients that it could accept, wait for it.
#[test]
fn clients_of_stopped_children_are_served_when_these_go_on() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - 2");
    let children = [service.serve(), service.serve()];
    let vitals = Vitals::of(&postfix);
    let master = postfix.master_process();
    let all: Vec<Process> = children.iter().map(|(_, puppet)| puppet.process).collect();
    all.iter().for_each(|child| child.signal(Signal::SIGSTOP));
    let mut waiting: Vec<Client> = (0..4).map(|_| service.connect()).collect();
    service.expect_no_child();
    expect_rest(master, Duration::from_millis(700));
    all.iter().for_each(|child| child.signal(Signal::SIGCONT));
    let mut puppets = children.map(|(_client, puppet)| puppet);
    for (number, client) in waiting.iter_mut().enumerate() {
        let puppet = &mut puppets[number % 2];
        puppet.finish_client();
        puppet.take_client();
        puppet.tell("write hello");
        assert_eq!(client.line(), "hello");
    }
    vitals.expect_again(&postfix);
    assert_eq!(Line::Ended.count(&postfix), 0);
}
