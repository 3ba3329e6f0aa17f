//! Wake-ups.

use super::*;

#[test]
fn a_service_is_woken_at_the_start_and_then_in_every_period() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([waking(unix("pickup", 1), 60, false)]);
    assert_eq!(
        without_logs(actions),
        [Action::Wake(FIRST), Action::Watch(FIRST)]
    );
    assert_eq!(fixture.pass(Duration::from_secs(59)), []);
    assert_eq!(fixture.pass(SECOND), [Action::Wake(FIRST)]);
    assert_eq!(fixture.pass(Duration::from_secs(60)), [Action::Wake(FIRST)]);
}

#[test]
fn a_conditional_wakeup_waits_for_the_first_use() {
    let mut fixture = Fixture::new([waking(unix("flush", 1), 60, true)]);
    assert_eq!(fixture.pass(Duration::from_secs(600)), []);
    fixture.connect(FIRST);
    let generation = 1;
    let pid = 4711;
    let service = FIRST;
    let spawned = Event::Spawned {
        service,
        generation,
        pid,
    };
    assert_eq!(fixture.step(spawned), [Action::Wake(FIRST)]);
    assert_eq!(fixture.pass(Duration::from_secs(60)), [Action::Wake(FIRST)]);
}

#[test]
fn a_throttled_service_is_not_woken() {
    let mut fixture = Fixture::new([waking(unix("pickup", 1), 50, false)]);
    let child = fixture.spawn(FIRST);
    fixture.exit(child, ExitStatus::Code(1));
    // Throttled until 60, woken at 50 and 100.
    assert_eq!(fixture.pass(Duration::from_secs(59)), []);
    assert_eq!(
        without_logs(fixture.pass(Duration::from_secs(50))),
        [Action::Watch(FIRST), Action::Wake(FIRST)]
    );
}

#[test]
fn a_reload_begins_the_wakeups_anew() {
    let mut fixture = Fixture::new([waking(unix("pickup", 1), 60, false)]);
    fixture.pass(Duration::from_secs(40));
    let actions = fixture.reload([waking(unix("pickup", 1), 60, false)]);
    assert_eq!(actions, [Action::Wake(FIRST)]);
    assert_eq!(fixture.pass(Duration::from_secs(59)), []);
    assert_eq!(fixture.pass(SECOND), [Action::Wake(FIRST)]);
}

#[test]
fn a_reload_can_end_the_wakeups() {
    let mut fixture = Fixture::new([waking(unix("pickup", 1), 60, false)]);
    fixture.reload([unix("pickup", 1)]);
    assert_eq!(fixture.pass(Duration::from_secs(600)), []);
    assert_eq!(fixture.table.next_deadline(), None);
}

#[test]
fn a_removed_service_is_not_woken_up_whatever_comes_late() {
    let service = || waking(unix("local", 0), 60, true);
    let mut fixture = Fixture::new([service()]);
    let child = fixture.busy(FIRST);
    fixture.reload([service()]);
    fixture.connect(FIRST);
    fixture.reload([]);
    let (service, generation, pid) = (FIRST, child.1 + 1, child.0 + 1);
    let actions = fixture.step(Event::Spawned {
        service,
        generation,
        pid,
    });
    assert_eq!(actions, []);
    assert_eq!(without_logs(fixture.pass(KILL_TIME * 10)).len(), 2);
}
