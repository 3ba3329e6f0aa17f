//! What an operator does with one service.

use super::ordered::pool;
use super::*;

const PAUSE: Event = Event::Pause { service: FIRST };
const RESUME: Event = Event::Resume { service: FIRST };

#[test]
fn a_paused_service_is_not_watched_until_it_is_resumed() {
    let mut world = World::new([unix("a", 1)]);
    assert_eq!(
        world.step(PAUSE),
        [Action::Dismiss(FIRST), Action::Unwatch(FIRST)]
    );
    assert_eq!(world.connect(FIRST), []);
    assert_eq!(world.step(PAUSE), []);
    assert_eq!(world.step(RESUME), [Action::Watch(FIRST)]);
    world.spawn(FIRST);
}

#[test]
fn a_pause_has_children_leave_who_would_go_on_taking_clients() {
    let mut world = World::new([unix("a", 2)]);
    let busy = world.busy(FIRST);
    world.spawn(FIRST);
    assert!(world.step(PAUSE).contains(&Action::Dismiss(FIRST)));
    world.available(FIRST, busy);
    assert_eq!(world.counts(FIRST), (0, 2));
}

#[test]
fn a_pause_outlasts_a_reload_but_not_the_service() {
    let mut world = World::new([unix("a", 1)]);
    world.step(PAUSE);
    assert_eq!(
        world.reload([unix("a", 5)]),
        [Action::Dismiss(FIRST)],
        "not watched"
    );
    world.reload([]);
    let actions = world.reload([unix("a", 1)]);
    assert!(actions.contains(&Action::Watch(FIRST)), "{actions:?}");
}

#[test]
fn a_paused_service_is_not_woken_up() {
    let mut world = World::new([waking(unix("pickup", 1), 60, false)]);
    world.step(PAUSE);
    assert_eq!(world.pass(Duration::from_secs(90)), []);
    assert_eq!(world.step(Event::Wake { service: FIRST }), []);
    world.step(RESUME);
    assert_eq!(
        world.pass(Duration::from_secs(30)),
        [Action::Wake(FIRST)],
        "when it is due again"
    );
}

#[test]
fn a_paused_service_keeps_no_children_warm() {
    let warm = config::Service {
        pool: Seldom::from(Pool {
            min_idle: 1,
            ..Pool::default()
        }),
        ..unix("a", 3)
    };
    let mut world = World::new([]);
    let actions = world.reload([warm]);
    assert_eq!(world.start(actions).len(), 1);
    let actions = world.step(PAUSE);
    assert_eq!(world.start(actions), [0; 0]);
    assert_eq!(world.pass(Duration::from_secs(600)), []);
    let actions = world.step(RESUME);
    assert_eq!(world.start(actions).len(), 1);
}

#[test]
fn a_paused_pool_gives_no_orders_and_keeps_its_children() {
    let mut world = World::new([]);
    let actions = world.reload([pool(1, 1)]);
    let pids = world.start(actions);
    world.idle(pids[0]);
    world.served_by(pids[0]);
    // Somebody waits, and nobody is idle.
    world.connect(FIRST);
    world.step(PAUSE);
    assert_eq!(world.idle(pids[0]), []);
    let actions = world.step(RESUME);
    assert_eq!(actions, [Action::Watch(FIRST)]);
    world.served_by(pids[0]);
}

#[test]
fn a_service_at_its_limit_that_is_paused_warns_of_nothing() {
    let mut world = World::new([inet(25, 2)]);
    world.step(PAUSE);
    world.step(RESUME);
    let first = world.busy(FIRST);
    world.step(PAUSE);
    let actions = world.exit(first, ExitStatus::Code(0));
    assert_eq!(logged(&actions), [""; 0]);
}

#[test]
fn the_children_of_one_service_are_replaced_as_a_reload_does_it() {
    let mut world = World::new([waking(unix("a", 2), 60, false), unix("b", 2)]);
    let child = world.spawn(FIRST);
    world.spawn(SECOND_SERVICE);
    let replace = Event::Replace { service: FIRST };
    assert_eq!(
        world.step(replace),
        [
            Action::Dismiss(FIRST),
            Action::Wake(FIRST),
            Action::Watch(FIRST)
        ]
    );
    assert_eq!(world.counts(FIRST), (0, 1));
    assert_eq!(world.counts(SECOND_SERVICE), (1, 1));
    world.exit(child, ExitStatus::Code(0));
    assert_eq!(world.counts(FIRST), (0, 0));
}

#[test]
fn a_pools_children_are_replaced_by_others_first() {
    let mut world = World::new([]);
    let actions = world.reload([pool(1, 3)]);
    let old = world.start(actions);
    world.idle(old[0]);
    world.pass(SECOND);
    let actions = world.step(Event::Replace { service: FIRST });
    let new = world.start(actions);
    assert_eq!(new.len(), 1);
    assert_eq!(world.state(old[0]), State::Idle);
    world.idle(new[0]);
    assert_eq!(world.state(old[0]), State::Killed);
}

#[test]
fn a_service_is_woken_up_now_whether_the_table_says_so_or_not() {
    let mut world = World::new([unix("a", 1), waking(unix("b", 1), 60, false)]);
    let wake = |service| Event::Wake { service };
    assert_eq!(world.step(wake(FIRST)), [Action::Wake(FIRST)]);
    world.pass(Duration::from_secs(50));
    assert_eq!(
        world.step(wake(SECOND_SERVICE)),
        [Action::Wake(SECOND_SERVICE)]
    );
    assert_eq!(
        world.pass(Duration::from_secs(59)),
        [],
        "a whole period later"
    );
    assert_eq!(world.pass(SECOND), [Action::Wake(SECOND_SERVICE)]);
}

#[test]
fn what_was_removed_cannot_be_steered() {
    let mut world = World::new([unix("a", 1)]);
    world.busy(FIRST);
    world.reload([]);
    let service = FIRST;
    for event in [
        PAUSE,
        RESUME,
        Event::Replace { service },
        Event::Wake { service },
    ] {
        assert_eq!(world.step(event), []);
    }
    assert!(!world.table.service(FIRST).expect("its child").paused());
}

#[test]
fn a_verbose_master_says_more_from_then_on() {
    let mut world = World::new([unix("a", 1)]);
    world.step(Event::Verbose(true));
    let child = world.spawn(FIRST);
    let actions = world.taken(FIRST, child);
    assert_eq!(
        logged(&actions),
        ["service \"a\" (private/a): avail 0 total 1 max 1"]
    );
    world.step(Event::Verbose(false));
    assert_eq!(logged(&world.available(FIRST, child)), [""; 0]);
}
