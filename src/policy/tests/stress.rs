//! The limit, and stress mode.

use super::*;

#[test]
fn the_limit_is_warned_about_at_most_once_in_1000_seconds() {
    let mut fixture = Fixture::new([inet(25, 1)]);
    let mut max_two = inet(25, 2);
    max_two.line = 2;
    fixture.reload([max_two]);
    let warnings = |actions: &[Action]| {
        let lines = logged(actions);
        let warnings = lines
            .iter()
            .filter(|l| l.contains("process limit \"2\": new"));
        warnings.count()
    };
    fixture.busy(FIRST);
    let second = fixture.spawn(FIRST);
    assert_eq!(warnings(&fixture.taken(FIRST, second)), 1);
    for _ in 0..10 {
        fixture.now += Duration::from_secs(99);
        fixture.available(FIRST, second);
        assert_eq!(warnings(&fixture.taken(FIRST, second)), 0);
    }
    fixture.now += Duration::from_secs(11);
    fixture.available(FIRST, second);
    assert_eq!(warnings(&fixture.taken(FIRST, second)), 1);
}

fn seen(fixture: &mut Fixture, clients: bool) -> Vec<String> {
    let service = FIRST;
    logged(&fixture.step(Event::Waiting { service, clients }))
}

#[test]
fn the_limit_of_a_service_without_strangers_is_warned_about_without_talk_of_stress() {
    let mut fixture = Fixture::new([unix("local", 2)]);
    fixture.busy(FIRST);
    let second = fixture.spawn(FIRST);
    let said = logged(&fixture.taken(FIRST, second));
    let name = "service \"local\" (private/local) has reached its process limit \"2\": ";
    assert!(
        said[0].starts_with(name) && !said[0].contains("STRESS"),
        "{said:?}"
    );
}

#[test]
fn the_limit_of_one_is_warned_about_when_a_client_waits() {
    let mut fixture = Fixture::new([unix("local", 1)]);
    let child = fixture.spawn(FIRST);
    assert_eq!(fixture.taken(FIRST, child), []);
    assert_eq!(seen(&mut fixture, false), [""; 0]);
    assert!(seen(&mut fixture, true)[0].contains("has reached its process limit \"1\""));
    assert_eq!(seen(&mut fixture, true), [""; 0]);
    fixture.pass(1001 * SECOND);
    assert_eq!(seen(&mut fixture, true).len(), 1);
}

#[test]
fn clients_that_wait_although_a_child_is_available_stall_a_service() {
    let mut fixture = Fixture::new([unix("local", 5)]);
    let is_stalled = |fixture: &Fixture| fixture.table.service(FIRST).unwrap().stalled();
    let child = fixture.spawn(FIRST);
    assert_eq!(
        seen(&mut fixture, true),
        [""; 0],
        "it may be about to take it"
    );
    let said = seen(&mut fixture, true);
    let expected = "service \"local\" (private/local): clients wait although 1 of its processes \
                    count as available";
    assert!(said[0].starts_with(expected), "{said:?}");
    assert!(is_stalled(&fixture));
    assert_eq!(seen(&mut fixture, true), [""; 0], "once in 1000 seconds");
    fixture.taken(FIRST, child);
    assert!(!is_stalled(&fixture));
    fixture.available(FIRST, child);
    assert!(!is_stalled(&fixture));
    seen(&mut fixture, true);
    assert!(!is_stalled(&fixture), "it has taken one meanwhile");
    seen(&mut fixture, true);
    assert!(is_stalled(&fixture));
    seen(&mut fixture, false);
    assert!(!is_stalled(&fixture));
}

#[test]
fn clients_are_looked_for_only_where_children_should_have_taken_them() {
    let hides = |fixture: &Fixture| fixture.table.service(FIRST).unwrap().may_hide_clients();
    let mut fixture = Fixture::new([unix("local", 5)]);
    assert!(!hides(&fixture), "its listener is watched");
    let child = fixture.spawn(FIRST);
    assert!(hides(&fixture));
    fixture.taken(FIRST, child);
    assert!(!hides(&fixture), "its listener is watched again");
    fixture.available(FIRST, child);
    fixture.step(Event::Pause { service: FIRST });
    assert!(!hides(&fixture), "its clients are to wait");
    assert_eq!(seen(&mut fixture, true), [""; 0]);
}

#[test]
fn reaching_for_the_last_place_begins_stress_mode() {
    let mut fixture = Fixture::new([inet(25, 2)]);
    let calm = fixture.spawn(FIRST);
    fixture.taken(FIRST, calm);
    let actions = fixture.connect(FIRST);
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
        [close_channel(calm.0), stressed, Action::Unwatch(FIRST)]
    );
}

#[test]
fn children_told_to_leave_by_stress_still_count_against_the_limit() {
    let mut fixture = Fixture::new([inet(25, 2)]);
    let calm = fixture.busy(FIRST);
    let stressed = fixture.spawn(FIRST);
    fixture.taken(FIRST, stressed);
    assert_eq!(fixture.counts(FIRST), (0, 2));
    // The channel is another by now: what the old child says does not arrive, and is not believed.
    assert_eq!(fixture.available(FIRST, calm), []);
    assert_eq!(
        fixture.exit(calm, ExitStatus::Code(0)),
        [Action::Watch(FIRST)]
    );
}

#[test]
fn stress_mode_ends_1000_seconds_after_the_limit_was_last_in_reach() {
    let mut fixture = Fixture::new([inet(25, 2)]);
    fixture.busy(FIRST);
    let mut last = fixture.busy(FIRST);
    for _ in 0..3 {
        assert_eq!(fixture.pass(Duration::from_secs(600)), []);
        fixture.exit(last, ExitStatus::Code(0));
        // The limit is in reach again, and stress mode goes on without beginning anew.
        let actions = fixture.connect(FIRST);
        assert_eq!(logged(&actions), [] as [&str; 0]);
        fixture.next_pid += 1;
        let (pid, generation) = (fixture.next_pid, fixture.table.cx.generation);
        fixture.step(Event::Spawned {
            service: FIRST,
            generation,
            pid,
        });
        last = (pid, generation);
    }
    assert_eq!(fixture.pass(Duration::from_secs(999)), []);
    assert!(fixture.table.service(FIRST).unwrap().stressed());
    let ended = fixture.pass(SECOND);
    assert_eq!(
        logged(&ended),
        ["service \"25\" (25): stress mode ends, avail 1 total 2 max 2"]
    );
    assert!(!fixture.table.service(FIRST).unwrap().stressed());
}

#[test]
fn a_service_that_strangers_cannot_reach_knows_no_stress() {
    let mut fixture = Fixture::new([unix("local", 1)]);
    let actions = fixture.connect(FIRST);
    let calm = Action::Spawn {
        service: FIRST,
        generation: 1,
        stress: false,
    };
    assert_eq!(actions, [calm, Action::Unwatch(FIRST)]);
}

#[test]
fn idle_children_that_a_reload_sends_away_are_no_reason_to_warn() {
    let mut fixture = Fixture::new([inet(25, 2)]);
    let first = fixture.busy(FIRST);
    fixture.available(FIRST, first);
    fixture.taken(FIRST, first);
    let second = fixture.busy(FIRST);
    let third_place_is_free = fixture.exit(first, ExitStatus::Code(0));
    assert_eq!(third_place_is_free, [Action::Watch(FIRST)]);
    let third = fixture.spawn(FIRST);
    fixture.available(FIRST, second);
    fixture.now += Duration::from_secs(2000);
    assert_eq!(fixture.counts(FIRST), (2, 2));
    let actions = fixture.reload([inet(25, 2)]);
    assert_eq!(logged(&actions), [] as [&str; 0]);
    fixture.exit(second, ExitStatus::Code(0));
    let actions = fixture.exit(third, ExitStatus::Code(0));
    assert_eq!(logged(&actions), [] as [&str; 0]);
}
