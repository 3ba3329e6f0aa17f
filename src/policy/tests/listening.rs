//! Who listens.

use super::*;

#[test]
fn a_service_without_children_is_watched() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([inet(25, 10)]);
    assert_eq!(without_logs(actions), [Action::Watch(FIRST)]);
}

#[test]
fn a_connection_starts_a_child_which_then_listens_itself() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let actions = fixture.connect(FIRST);
    let generation = 1;
    let stress = false;
    let service = FIRST;
    let spawn = Action::Spawn {
        service,
        generation,
        stress,
    };
    assert_eq!(actions, [spawn, Action::Unwatch(FIRST)]);
    let pid = 4711;
    let spawned = Event::Spawned {
        service,
        generation,
        pid,
    };
    assert_eq!(fixture.step(spawned), []);
    assert_eq!(fixture.counts(FIRST), (1, 1));
    assert_eq!(fixture.table.service_of(pid), Some(FIRST));
}

#[test]
fn a_second_connection_in_the_same_turn_starts_no_second_child() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    fixture.connect(FIRST);
    assert_eq!(fixture.connect(FIRST), []);
}

#[test]
fn a_busy_child_leaves_the_listener_to_the_master_and_an_idle_one_takes_it_back() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    assert_eq!(fixture.taken(FIRST, child), [Action::Watch(FIRST)]);
    assert_eq!(fixture.counts(FIRST), (0, 1));
    assert_eq!(fixture.available(FIRST, child), [Action::Unwatch(FIRST)]);
    assert_eq!(fixture.counts(FIRST), (1, 1));
}

#[test]
fn one_available_child_of_many_is_enough() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let first = fixture.busy(FIRST);
    let second = fixture.busy(FIRST);
    assert_eq!(fixture.available(FIRST, first), [Action::Unwatch(FIRST)]);
    assert_eq!(fixture.available(FIRST, second), []);
    assert_eq!(fixture.taken(FIRST, first), []);
    assert_eq!(fixture.taken(FIRST, second), [Action::Watch(FIRST)]);
}

#[test]
fn interest_is_reconciled_once_a_turn() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    let (pid, generation) = child;
    let mut actions = Vec::new();
    for available in [0, 1, 0, 1, 0] {
        let report = StatusReport {
            pid,
            generation,
            available,
        };
        let event = Event::Report {
            service: FIRST,
            writer: pid,
            report: Ok(report),
        };
        fixture.table.step(fixture.now, event, &mut actions);
    }
    assert_eq!(actions, []);
    fixture.table.settle(fixture.now, &mut actions);
    assert_eq!(actions, [Action::Watch(FIRST)]);
}

#[test]
fn at_the_limit_nobody_is_watched_until_a_child_leaves() {
    let mut fixture = Fixture::new([unix("local", 2)]);
    let first = fixture.busy(FIRST);
    let second = fixture.spawn(FIRST);
    assert_eq!(without_logs(fixture.taken(FIRST, second)), []);
    assert_eq!(fixture.connect(FIRST), []);
    assert_eq!(
        fixture.exit(first, ExitStatus::Code(0)),
        [Action::Watch(FIRST)]
    );
}

#[test]
fn a_limit_of_zero_is_none() {
    let mut fixture = Fixture::new([unix("cleanup", 0)]);
    for _ in 0..500 {
        fixture.busy(FIRST);
    }
    assert_eq!(fixture.counts(FIRST), (0, 500));
    assert!(fixture.table.service(FIRST).unwrap().listening());
}
