//! Wake-ups.

use super::*;

#[test]
fn a_service_is_woken_at_the_start_and_then_in_every_period() {
    let mut world = World::new([]);
    let actions = world.reload([waking(unix("pickup", 1), 60, false)]);
    assert_eq!(
        without_logs(actions),
        [Action::Wake(FIRST), Action::Watch(FIRST)]
    );
    assert_eq!(world.pass(Duration::from_secs(59)), []);
    assert_eq!(world.pass(SECOND), [Action::Wake(FIRST)]);
    assert_eq!(world.pass(Duration::from_secs(60)), [Action::Wake(FIRST)]);
}

#[test]
fn a_conditional_wakeup_waits_for_the_first_use() {
    let mut world = World::new([waking(unix("flush", 1), 60, true)]);
    assert_eq!(world.pass(Duration::from_secs(600)), []);
    world.connect(FIRST);
    let generation = 1;
    let pid = 4711;
    let service = FIRST;
    let spawned = Event::Spawned {
        service,
        generation,
        pid,
    };
    assert_eq!(world.step(spawned), [Action::Wake(FIRST)]);
    assert_eq!(world.pass(Duration::from_secs(60)), [Action::Wake(FIRST)]);
}

#[test]
fn a_throttled_service_is_not_woken() {
    let mut world = World::new([waking(unix("pickup", 1), 50, false)]);
    let child = world.spawn(FIRST);
    world.exit(child, ExitStatus::Code(1));
    // Throttled until 60, woken at 50 and 100.
    assert_eq!(world.pass(Duration::from_secs(59)), []);
    assert_eq!(
        without_logs(world.pass(Duration::from_secs(50))),
        [Action::Watch(FIRST), Action::Wake(FIRST)]
    );
}

#[test]
fn a_reload_begins_the_wakeups_anew() {
    let mut world = World::new([waking(unix("pickup", 1), 60, false)]);
    world.pass(Duration::from_secs(40));
    let actions = world.reload([waking(unix("pickup", 1), 60, false)]);
    assert_eq!(actions, [Action::Dismiss(FIRST), Action::Wake(FIRST)]);
    assert_eq!(world.pass(Duration::from_secs(59)), []);
    assert_eq!(world.pass(SECOND), [Action::Wake(FIRST)]);
}

#[test]
fn a_reload_can_end_the_wakeups() {
    let mut world = World::new([waking(unix("pickup", 1), 60, false)]);
    world.reload([unix("pickup", 1)]);
    assert_eq!(world.pass(Duration::from_secs(600)), []);
    assert_eq!(world.table.next_deadline(), None);
}

#[test]
fn a_removed_service_is_not_woken_up_whatever_comes_late() {
    let service = || waking(unix("local", 0), 60, true);
    let mut world = World::new([service()]);
    let child = world.busy(FIRST);
    world.reload([service()]);
    world.connect(FIRST);
    world.reload([]);
    let (service, generation, pid) = (FIRST, child.1 + 1, child.0 + 1);
    let actions = world.step(Event::Spawned {
        service,
        generation,
        pid,
    });
    assert_eq!(actions, []);
    assert_eq!(without_logs(world.pass(KILL_TIME * 10)).len(), 2);
}
