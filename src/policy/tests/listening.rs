//! Who listens.

use super::*;

#[test]
fn a_service_without_children_is_watched() {
    let mut world = World::new([]);
    let actions = world.reload([inet(25, 10)]);
    assert_eq!(without_logs(actions), [Action::Watch(FIRST)]);
}

#[test]
fn a_connection_starts_a_child_which_then_listens_itself() {
    let mut world = World::new([inet(25, 10)]);
    let actions = world.connect(FIRST);
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
    assert_eq!(world.step(spawned), []);
    assert_eq!(world.counts(FIRST), (1, 1));
    assert_eq!(world.table.service_of(pid), Some(FIRST));
}

#[test]
fn a_second_connection_in_the_same_turn_starts_no_second_child() {
    let mut world = World::new([inet(25, 10)]);
    world.connect(FIRST);
    assert_eq!(world.connect(FIRST), []);
}

#[test]
fn a_busy_child_leaves_the_listener_to_the_master_and_an_idle_one_takes_it_back() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
    assert_eq!(world.taken(FIRST, child), [Action::Watch(FIRST)]);
    assert_eq!(world.counts(FIRST), (0, 1));
    assert_eq!(world.available(FIRST, child), [Action::Unwatch(FIRST)]);
    assert_eq!(world.counts(FIRST), (1, 1));
}

#[test]
fn one_available_child_of_many_is_enough() {
    let mut world = World::new([inet(25, 10)]);
    let first = world.busy(FIRST);
    let second = world.busy(FIRST);
    assert_eq!(world.available(FIRST, first), [Action::Unwatch(FIRST)]);
    assert_eq!(world.available(FIRST, second), []);
    assert_eq!(world.taken(FIRST, first), []);
    assert_eq!(world.taken(FIRST, second), [Action::Watch(FIRST)]);
}

#[test]
fn interest_is_reconciled_once_a_turn() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
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
            report,
        };
        world.table.step(world.now, event, &mut actions);
    }
    assert_eq!(actions, []);
    world.table.settle(world.now, &mut actions);
    assert_eq!(actions, [Action::Watch(FIRST)]);
}

#[test]
fn at_the_limit_nobody_is_watched_until_a_child_leaves() {
    let mut world = World::new([unix("local", 2)]);
    let first = world.busy(FIRST);
    let second = world.spawn(FIRST);
    assert_eq!(world.taken(FIRST, second), []);
    assert_eq!(world.connect(FIRST), []);
    assert_eq!(
        world.exit(first, ExitStatus::Code(0)),
        [Action::Watch(FIRST)]
    );
}

#[test]
fn a_limit_of_zero_is_none() {
    let mut world = World::new([unix("cleanup", 0)]);
    for _ in 0..500 {
        world.busy(FIRST);
    }
    assert_eq!(world.counts(FIRST), (0, 500));
    assert!(world.table.service(FIRST).unwrap().listening());
}
