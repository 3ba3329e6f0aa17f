//! Children that are started before anybody asks for them, and ended when there are too many.

use super::ordered::{filled, pool};
use super::*;
use crate::config::Ramp;

/// An ordered pool with these numbers.
fn numbers(min_idle: u32, max_idle: u32, max: u32) -> config::Service {
    let service = pool(max_idle, max);
    config::Service {
        extra: with_pool(Pool {
            min_idle,
            ..*service.pool()
        }),
        ..service
    }
}

fn warm(min_idle: u32, max: u32) -> config::Service {
    config::Service {
        extra: with_pool(Pool {
            min_idle,
            ..Pool::default()
        }),
        ..unix("warm", max)
    }
}

fn ramped(service: config::Service) -> config::Service {
    config::Service {
        extra: with_pool(Pool {
            spawn_ramp: Ramp::Double,
            ..*service.pool()
        }),
        ..service
    }
}

impl Fixture {
    /// Lets time pass and children start; how many did, and all that was asked for.
    fn starts_within(&mut self, time: Duration) -> (usize, Vec<Action>) {
        let end = self.now + time;
        let (mut count, mut all) = (0, Vec::new());
        while let Some(at) = self.table.next_deadline().filter(|&at| at <= end) {
            self.now = at;
            let actions = self.step(Event::Deadline);
            all.extend(actions.iter().cloned());
            count += self.start(actions).len();
        }
        self.now = end;
        (count, all)
    }
}

fn killed(fixture: &Fixture, pids: &[Pid]) -> Vec<Pid> {
    let killed = pids
        .iter()
        .filter(|&&pid| fixture.state(pid) == State::Killed);
    killed.copied().collect()
}

#[test]
fn fewer_idle_than_min_idle_starts_one_and_counts_it_as_idle() {
    let (mut fixture, pids) = filled(numbers(1, 2, 5));
    fixture.pass(SECOND);
    fixture.served_by(pids[0]);
    assert_eq!(fixture.starting(), [0; 0]);
    let actions = fixture.connect(FIRST);
    let started = fixture.start(actions);
    assert_eq!(started.len(), 1);
    fixture.now_busy(pids[1]);
    assert_eq!(fixture.starts_within(60 * SECOND).0, 0);
    assert_eq!(fixture.starting(), started, "it soon will be idle");
}

#[test]
fn clients_that_wait_start_one_every_two_seconds_while_the_last_is_not_ready() {
    let (mut fixture, pids) = filled(numbers(1, 1, 9));
    fixture.pass(SECOND);
    let actions = fixture.connect(FIRST);
    fixture.start(actions);
    fixture.now_busy(pids[0]);
    fixture.connect(FIRST);
    assert_eq!(fixture.starting().len(), 1);
    assert_eq!(fixture.starts_within(Duration::from_millis(1_999)).0, 0);
    assert_eq!(fixture.starts_within(4 * SECOND).0, 2);
}

#[test]
fn a_ramp_starts_twice_as_many_in_every_second() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([ramped(numbers(1, 100, 100))]);
    let mut counts = vec![fixture.start(actions).len()];
    for _ in 0..6 {
        counts.push(fixture.starts_within(SECOND).0);
    }
    assert_eq!(counts, [1, 2, 4, 8, 16, 32, 32]);
}

#[test]
fn a_ramp_begins_anew_after_a_rest() {
    let (mut fixture, _) = filled(ramped(numbers(0, 3, 9)));
    fixture.starts_within(5 * SECOND);
    assert_eq!(fixture.counts(FIRST).1, 3);
    fixture.pass(60 * SECOND);
    let actions = fixture.reload([ramped(numbers(0, 9, 9))]);
    for pid in fixture.starting() {
        fixture.idle(pid);
    }
    assert_eq!(fixture.start(actions).len(), 1);
    assert_eq!(fixture.starts_within(SECOND).0, 2);
}

#[test]
fn a_surplus_that_lasts_ends_the_idle_child_with_the_highest_pid() {
    let (mut fixture, pids) = filled(numbers(0, 3, 4));
    // As many children, and fewer that may be idle.
    fixture.reload([numbers(0, 1, 4)]);
    let fresh = replace_all(&mut fixture);
    assert!(killed(&fixture, &fresh).is_empty());
    assert!(
        pids.iter()
            .all(|&pid| fixture.table.service_of(pid).is_none())
    );
    // Two seconds have passed meanwhile.
    fixture.pass(25 * SECOND);
    assert!(
        killed(&fixture, &fresh).is_empty(),
        "it may be over in a moment"
    );
    fixture.pass(5 * SECOND);
    assert_eq!(killed(&fixture, &fresh), [fresh[2]]);
    fixture.pass(2 * SECOND);
    assert_eq!(killed(&fixture, &fresh), [fresh[1], fresh[2]]);
    fixture.pass(60 * SECOND);
    assert_eq!(fixture.state(fresh[0]), State::Idle);
}

/// Plays out a reload: children that were told to end do, and new ones turn idle.
fn replace_all(fixture: &mut Fixture) -> Vec<Pid> {
    let mut fresh = Vec::new();
    for _ in 0..20 {
        let mut ended: Vec<_> = fixture.table.pids().collect();
        ended.retain(|&pid| fixture.state(pid) == State::Killed);
        for pid in ended {
            let actions = fixture.exit((pid, 0), ExitStatus::Signal(2));
            fresh.extend(fixture.start(actions));
        }
        let (_, actions) = fixture.starts_within(Duration::from_millis(100));
        drop(actions);
        for pid in fixture.starting() {
            if !fresh.contains(&pid) {
                fresh.push(pid);
            }
            let actions = fixture.idle(pid);
            fresh.extend(fixture.start(actions));
        }
    }
    fresh
}

#[test]
fn a_surplus_that_comes_and_goes_ends_nobody() {
    let (mut fixture, pids) = filled(numbers(0, 3, 4));
    // Another limit on idle children than the pool was filled with.
    fixture.reload([numbers(0, 2, 4)]);
    let fresh = replace_all(&mut fixture);
    assert_eq!(fresh.len(), 3);
    for _ in 0..20 {
        fixture.served_by(fresh[0]);
        fixture.pass(3 * SECOND);
        fixture.idle(fresh[0]);
        fixture.pass(25 * SECOND);
    }
    assert!(killed(&fixture, &fresh).is_empty());
    assert_eq!(pids.len(), 3);
}

#[test]
fn children_that_were_killed_are_replaced_without_waiting_for_each_other() {
    let (mut fixture, pids) = filled(pool(5, 5));
    fixture.pass(SECOND);
    let mut started = 0;
    for &pid in &pids {
        let actions = fixture.exit((pid, 0), ExitStatus::Signal(9));
        started += fixture.start(actions).len();
    }
    started += fixture.starts_within(SECOND).0;
    assert_eq!(started, 5);
}

#[test]
fn min_children_stay_however_many_are_idle() {
    let service = config::Service {
        extra: with_pool(Pool {
            min_children: 3,
            max_idle: 1,
            ..Pool::ordered()
        }),
        ..inet(783, 5)
    };
    let (mut fixture, pids) = filled(service);
    assert_eq!(pids.len(), 3);
    fixture.pass(1000 * SECOND);
    assert!(killed(&fixture, &pids).is_empty());
}

#[test]
fn a_full_pool_says_so_once_in_a_while() {
    let (mut fixture, pids) = filled(pool(1, 1));
    let actions = fixture.connect(FIRST);
    assert_eq!(
        logged(&actions),
        [
            "service \"783\" (783): fewer than 1 children are idle, and the process limit \"1\" is \
             reached: consider raising the maxproc column of this service in master.cf"
        ]
    );
    fixture.now_busy(pids[0]);
    fixture.idle(pids[0]);
    assert!(logged(&fixture.connect(FIRST)).is_empty());
}

#[test]
fn a_reload_replaces_children_a_few_at_a_time() {
    let (mut fixture, pids) = filled(pool(8, 20));
    fixture.pass(SECOND);
    let actions = fixture.reload([pool(8, 20)]);
    fixture.start(actions);
    fixture.starts_within(SECOND);
    let first = fixture.starting();
    assert_eq!(first.len(), 4);
    assert!(
        killed(&fixture, &pids).is_empty(),
        "nobody has taken a place yet"
    );
    fixture.idle(first[0]);
    assert_eq!(killed(&fixture, &pids), [pids[7]]);
    assert_eq!(fixture.counts(FIRST).0, 8, "as many are idle as before");
}

#[test]
fn a_busy_child_is_replaced_when_it_has_finished() {
    let (mut fixture, pids) = filled(pool(1, 5));
    fixture.pass(SECOND);
    let actions = fixture.connect(FIRST);
    let more = fixture.start(actions);
    fixture.now_busy(pids[0]);
    fixture.idle(more[0]);
    let actions = fixture.reload([pool(1, 5)]);
    fixture.start(actions);
    fixture.starts_within(SECOND);
    for pid in fixture.starting() {
        fixture.idle(pid);
    }
    assert_eq!(fixture.state(pids[0]), State::Busy);
    fixture.idle(pids[0]);
    assert_eq!(fixture.state(pids[0]), State::Killed);
}

#[test]
fn at_the_limit_a_reload_ends_one_child_at_a_time_first() {
    let (mut fixture, pids) = filled(pool(3, 3));
    fixture.pass(SECOND);
    fixture.reload([pool(3, 3)]);
    assert_eq!(killed(&fixture, &pids), [pids[2]]);
    fixture.pass(SECOND);
    assert_eq!(killed(&fixture, &pids), [pids[2]]);
    let fresh = replace_all(&mut fixture);
    assert!(
        pids.iter()
            .all(|&pid| fixture.table.service_of(pid).is_none())
    );
    assert_eq!(fresh.len(), 3);
}

#[test]
fn a_lower_limit_ends_idle_children_at_once_and_busy_ones_when_they_have_finished() {
    let (mut fixture, pids) = filled(pool(4, 4));
    fixture.served_by(pids[0]);
    fixture.served_by(pids[1]);
    fixture.reload([pool(1, 1)]);
    assert_eq!(killed(&fixture, &pids), [pids[2], pids[3]]);
    fixture.idle(pids[1]);
    assert_eq!(fixture.state(pids[1]), State::Killed);
}

#[test]
fn shared_services_keep_min_idle_children_available() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([warm(2, 5)]);
    let pids = fixture.start(actions);
    assert_eq!(pids.len(), 2);
    assert_eq!(fixture.counts(FIRST), (2, 2));
    fixture.pass(SECOND);
    let actions = fixture.taken(FIRST, (pids[0], 1));
    assert_eq!(fixture.start(actions).len(), 1);
    assert_eq!(fixture.counts(FIRST), (2, 3));
}

#[test]
fn a_warm_service_that_is_filled_to_its_limit_is_not_stressed_but_one_that_is_busy_is() {
    let service = config::Service {
        extra: warm(2, 2).extra,
        ..inet(25, 2)
    };
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([service]);
    assert_eq!(logged(&actions), ["service \"25\" (25): added"]);
    let pids = fixture.start(actions);
    let stressed = |fixture: &Fixture| fixture.table.service(FIRST).unwrap().stressed();
    assert!(!stressed(&fixture));
    fixture.pass(SECOND);
    fixture.taken(FIRST, (pids[1], 2));
    let actions = fixture.exit((pids[0], 1), ExitStatus::Code(0));
    assert!(stressed(&fixture), "{actions:?}");
}

#[test]
fn warm_children_stay_within_the_limit_and_are_not_started_while_throttled() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([warm(1, 2)]);
    let pids = fixture.start(actions);
    fixture.pass(SECOND);
    let actions = fixture.taken(FIRST, (pids[0], 1));
    let more = fixture.start(actions);
    fixture.pass(SECOND);
    assert_eq!(without_logs(fixture.taken(FIRST, (more[0], 2))), []);
    assert_eq!(fixture.starts_within(60 * SECOND).0, 0);
    let actions = fixture.exit((more[0], 2), ExitStatus::Code(1));
    assert!(logged(&actions)[1].ends_with("throttling"));
    assert_eq!(fixture.starts_within(THROTTLE_TIME - SECOND).0, 0);
    assert_eq!(fixture.starts_within(SECOND).0, 1);
}

#[test]
fn a_warm_command_that_ends_at_once_is_started_no_more_than_32_times_a_second() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([warm(1, 5)]);
    let mut pids = fixture.start(actions);
    let (mut starts, end) = (0, fixture.now + SECOND);
    while fixture.now < end {
        fixture.now += Duration::from_millis(1);
        for pid in std::mem::take(&mut pids) {
            let actions = fixture.exit((pid, 0), ExitStatus::Code(0));
            pids.extend(fixture.start(actions));
        }
        let actions = fixture.step(Event::Deadline);
        pids.extend(fixture.start(actions));
        starts += pids.len();
    }
    assert!((25..=33).contains(&starts), "{starts}");
}
