//! The limit, and stress mode.

use super::*;

#[test]
fn the_limit_is_warned_about_at_most_once_in_1000_seconds() {
    let mut world = World::new([inet(25, 1)]);
    let mut max_two = inet(25, 2);
    max_two.line = 2;
    world.reload([max_two]);
    let warnings = |actions: &[Action]| {
        let lines = logged(actions);
        let warnings = lines
            .iter()
            .filter(|l| l.contains("process limit \"2\": new"));
        warnings.count()
    };
    world.busy(FIRST);
    let second = world.spawn(FIRST);
    assert_eq!(warnings(&world.taken(FIRST, second)), 1);
    for _ in 0..10 {
        world.now += Duration::from_secs(99);
        world.available(FIRST, second);
        assert_eq!(warnings(&world.taken(FIRST, second)), 0);
    }
    world.now += Duration::from_secs(11);
    world.available(FIRST, second);
    assert_eq!(warnings(&world.taken(FIRST, second)), 1);
}

#[test]
fn the_limit_of_a_service_without_strangers_is_not_warned_about() {
    let mut world = World::new([unix("local", 1)]);
    let child = world.spawn(FIRST);
    assert_eq!(world.taken(FIRST, child), []);
}

#[test]
fn reaching_for_the_last_place_begins_stress_mode() {
    let mut world = World::new([inet(25, 2)]);
    let calm = world.spawn(FIRST);
    world.taken(FIRST, calm);
    let actions = world.connect(FIRST);
    let begins = "service \"25\" (25): stress mode begins: the last process that the limit \"2\" allows is \
                  started, avail 0 total 1 max 2";
    assert_eq!(logged(&actions), [begins]);
    let stressed = Action::Spawn {
        service: FIRST,
        generation: 2,
        stress: true,
    };
    assert_eq!(
        without_logs(actions),
        [Action::Dismiss(FIRST), stressed, Action::Unwatch(FIRST)]
    );
}

#[test]
fn children_told_to_leave_by_stress_still_count_against_the_limit() {
    let mut world = World::new([inet(25, 2)]);
    let calm = world.busy(FIRST);
    let stressed = world.spawn(FIRST);
    world.taken(FIRST, stressed);
    assert_eq!(world.counts(FIRST), (0, 2));
    // The channel is another by now: what the old child says does not arrive, and is not believed.
    assert_eq!(world.available(FIRST, calm), []);
    assert_eq!(
        world.exit(calm, ExitStatus::Code(0)),
        [Action::Watch(FIRST)]
    );
}

#[test]
fn stress_mode_ends_1000_seconds_after_the_limit_was_last_in_reach() {
    let mut world = World::new([inet(25, 2)]);
    world.busy(FIRST);
    let mut last = world.busy(FIRST);
    for _ in 0..3 {
        assert_eq!(world.pass(Duration::from_secs(600)), []);
        world.exit(last, ExitStatus::Code(0));
        // The limit is in reach again, and stress mode goes on without beginning anew.
        let actions = world.connect(FIRST);
        assert_eq!(logged(&actions), [] as [&str; 0]);
        world.next_pid += 1;
        let (pid, generation) = (world.next_pid, world.table.generation);
        world.step(Event::Spawned {
            service: FIRST,
            generation,
            pid,
        });
        last = (pid, generation);
    }
    assert_eq!(world.pass(Duration::from_secs(999)), []);
    assert!(world.table.service(FIRST).unwrap().stressed());
    let ended = world.pass(SECOND);
    assert_eq!(
        logged(&ended),
        ["service \"25\" (25): stress mode ends, avail 1 total 2 max 2"]
    );
    assert!(!world.table.service(FIRST).unwrap().stressed());
}

#[test]
fn a_service_that_strangers_cannot_reach_knows_no_stress() {
    let mut world = World::new([unix("local", 1)]);
    let actions = world.connect(FIRST);
    let calm = Action::Spawn {
        service: FIRST,
        generation: 1,
        stress: false,
    };
    assert_eq!(actions, [calm, Action::Unwatch(FIRST)]);
}

#[test]
fn idle_children_that_a_reload_sends_away_are_no_reason_to_warn() {
    let mut world = World::new([inet(25, 2)]);
    let first = world.busy(FIRST);
    world.available(FIRST, first);
    world.taken(FIRST, first);
    let second = world.busy(FIRST);
    let third_place_is_free = world.exit(first, ExitStatus::Code(0));
    assert_eq!(third_place_is_free, [Action::Watch(FIRST)]);
    let third = world.spawn(FIRST);
    world.available(FIRST, second);
    world.now += Duration::from_secs(2000);
    assert_eq!(world.counts(FIRST), (2, 2));
    let actions = world.reload([inet(25, 2)]);
    assert_eq!(logged(&actions), [] as [&str; 0]);
    world.exit(second, ExitStatus::Code(0));
    let actions = world.exit(third, ExitStatus::Code(0));
    assert_eq!(logged(&actions), [] as [&str; 0]);
}
