//! What an operator does with one service.

use super::ordered::pool;
use super::*;

const PAUSE: Event = Event::Pause { service: FIRST };
const RESUME: Event = Event::Resume { service: FIRST };

#[test]
fn a_paused_service_is_not_watched_until_it_is_resumed() {
    let mut fixture = Fixture::new([unix("a", 1)]);
    assert_eq!(fixture.step(PAUSE), [Action::Unwatch(FIRST)]);
    assert_eq!(fixture.connect(FIRST), []);
    assert_eq!(fixture.step(PAUSE), []);
    assert_eq!(fixture.step(RESUME), [Action::Watch(FIRST)]);
    fixture.spawn(FIRST);
}

#[test]
fn a_pause_has_children_leave_who_would_go_on_taking_clients() {
    let mut fixture = Fixture::new([unix("a", 2)]);
    let busy = fixture.busy(FIRST);
    let idle = fixture.spawn(FIRST);
    assert_eq!(
        fixture.step(PAUSE),
        [close_channel(busy.0), close_channel(idle.0)]
    );
    fixture.available(FIRST, busy);
    assert_eq!(fixture.counts(FIRST), (0, 2));
}

#[test]
fn a_pause_outlasts_a_reload_but_not_the_service() {
    let mut fixture = Fixture::new([unix("a", 1)]);
    fixture.step(PAUSE);
    assert_eq!(fixture.reload([unix("a", 5)]), [], "not watched");
    fixture.reload([]);
    let actions = fixture.reload([unix("a", 1)]);
    assert!(actions.contains(&Action::Watch(FIRST)), "{actions:?}");
}

#[test]
fn a_paused_service_is_not_woken_up() {
    let mut fixture = Fixture::new([waking(unix("pickup", 1), 60, false)]);
    fixture.step(PAUSE);
    assert_eq!(fixture.pass(Duration::from_secs(90)), []);
    assert_eq!(fixture.step(Event::Wake { service: FIRST }), []);
    fixture.step(RESUME);
    assert_eq!(
        fixture.pass(Duration::from_secs(30)),
        [Action::Wake(FIRST)],
        "when it is due again"
    );
}

#[test]
fn a_paused_service_keeps_no_children_warm() {
    let warm = config::Service {
        extra: with_pool(Pool {
            min_idle: 1,
            ..Pool::default()
        }),
        ..unix("a", 3)
    };
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([warm]);
    assert_eq!(fixture.start(actions).len(), 1);
    let actions = fixture.step(PAUSE);
    assert_eq!(fixture.start(actions), [0; 0]);
    assert_eq!(fixture.pass(Duration::from_secs(600)), []);
    let actions = fixture.step(RESUME);
    assert_eq!(fixture.start(actions).len(), 1);
}

#[test]
fn a_paused_pool_gives_no_orders_and_keeps_its_children() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([pool(1, 1)]);
    let pids = fixture.start(actions);
    fixture.idle(pids[0]);
    fixture.served_by(pids[0]);
    // A client waits, and no child is idle.
    fixture.connect(FIRST);
    fixture.step(PAUSE);
    assert_eq!(fixture.idle(pids[0]), []);
    let actions = fixture.step(RESUME);
    assert_eq!(actions, [Action::Watch(FIRST)]);
    fixture.served_by(pids[0]);
}

#[test]
fn a_service_at_its_limit_that_is_paused_warns_of_nothing() {
    let mut fixture = Fixture::new([inet(25, 2)]);
    fixture.step(PAUSE);
    fixture.step(RESUME);
    let first = fixture.busy(FIRST);
    fixture.step(PAUSE);
    let actions = fixture.exit(first, ExitStatus::Code(0));
    assert_eq!(logged(&actions), [""; 0]);
}

#[test]
fn the_children_of_one_service_are_replaced_as_a_reload_does_it() {
    let mut fixture = Fixture::new([waking(unix("a", 2), 60, false), unix("b", 2)]);
    let child = fixture.spawn(FIRST);
    fixture.spawn(SECOND_SERVICE);
    let replace = Event::Replace { service: FIRST };
    assert_eq!(
        fixture.step(replace),
        [
            close_channel(child.0),
            Action::Wake(FIRST),
            Action::Watch(FIRST)
        ]
    );
    assert_eq!(fixture.counts(FIRST), (0, 1));
    assert_eq!(fixture.counts(SECOND_SERVICE), (1, 1));
    fixture.exit(child, ExitStatus::Code(0));
    assert_eq!(fixture.counts(FIRST), (0, 0));
}

#[test]
fn a_pools_children_are_replaced_by_others_first() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([pool(1, 3)]);
    let old = fixture.start(actions);
    fixture.idle(old[0]);
    fixture.pass(SECOND);
    let actions = fixture.step(Event::Replace { service: FIRST });
    let new = fixture.start(actions);
    assert_eq!(new.len(), 1);
    assert_eq!(fixture.state(old[0]), State::Idle);
    fixture.idle(new[0]);
    assert_eq!(fixture.state(old[0]), State::Killed);
}

#[test]
fn a_service_is_woken_up_now_whether_the_table_says_so_or_not() {
    let mut fixture = Fixture::new([unix("a", 1), waking(unix("b", 1), 60, false)]);
    let wake = |service| Event::Wake { service };
    assert_eq!(fixture.step(wake(FIRST)), [Action::Wake(FIRST)]);
    fixture.pass(Duration::from_secs(50));
    assert_eq!(
        fixture.step(wake(SECOND_SERVICE)),
        [Action::Wake(SECOND_SERVICE)]
    );
    assert_eq!(
        fixture.pass(Duration::from_secs(59)),
        [],
        "a whole period later"
    );
    assert_eq!(fixture.pass(SECOND), [Action::Wake(SECOND_SERVICE)]);
}

#[test]
fn what_was_removed_cannot_be_steered() {
    let mut fixture = Fixture::new([unix("a", 1)]);
    fixture.busy(FIRST);
    fixture.reload([]);
    let service = FIRST;
    for event in [
        PAUSE,
        RESUME,
        Event::Replace { service },
        Event::Wake { service },
    ] {
        assert_eq!(fixture.step(event), []);
    }
    assert!(!fixture.table.service(FIRST).expect("its child").paused());
}

#[test]
fn a_verbose_master_says_more_from_then_on() {
    let mut fixture = Fixture::new([unix("a", 1)]);
    fixture.step(Event::Verbose(true));
    let child = fixture.spawn(FIRST);
    let actions = fixture.taken(FIRST, child);
    assert_eq!(
        logged(&actions),
        ["service \"a\" (private/a): avail 0 total 1 max 1"]
    );
    fixture.step(Event::Verbose(false));
    assert_eq!(logged(&fixture.available(FIRST, child)), [""; 0]);
}
