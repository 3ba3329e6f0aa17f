//! Throttle times that grow, and the share of clients whose child fails.

use super::*;
use crate::policy::throttle::CLIENTS;

/// A service whose throttle time doubles from 1 s to 5 s.
fn learning() -> config::Service {
    let mut service = inet(25, 10);
    service.throttle_time = SECOND;
    service.extra.get_or_insert_default().limits.throttle_most = Some(5 * SECOND);
    service
}

/// A service that half of its clients' children may bring down.
fn wary() -> config::Service {
    let mut service = inet(25, 0);
    service.extra.get_or_insert_default().limits.crash_percent = Some(50);
    service
}

/// Has a child fail at its start; for how long the service is throttled then.
fn fail(fixture: &mut Fixture) -> Duration {
    let child = fixture.spawn(FIRST);
    let begin = fixture.now;
    fixture.exit(child, ExitStatus::Code(1));
    let until = throttled_until(fixture).expect("a throttled service");
    fixture.pass(until - begin);
    until - begin
}

fn throttled_until(fixture: &Fixture) -> Option<Time> {
    fixture.table.service(FIRST).unwrap().throttled_until()
}

/// So many clients are served, one after the other, by a child that is busy and stays.
fn serve(fixture: &mut Fixture, child: (Pid, u32), clients: u32) {
    for _ in 0..clients {
        fixture.available(FIRST, child);
        fixture.taken(FIRST, child);
    }
}

fn first(fixture: &mut Fixture) -> &mut Service {
    fixture.table.services[0].as_mut().expect("a service")
}

/// This number of clients loses its child. A child that has served no client would throttle by itself.
fn crash(fixture: &mut Fixture, clients: u32) -> Vec<Action> {
    let mut all = Vec::new();
    for _ in 0..clients {
        let service = FIRST;
        fixture.next_pid += 1;
        let child = (fixture.next_pid, 0);
        let (pid, generation) = child;
        fixture.step(Event::Spawned {
            service,
            generation,
            pid,
        });
        fixture.taken(FIRST, child);
        first(fixture).children.get_mut(&pid).unwrap().uses = 1;
        all.extend(fixture.exit(child, ExitStatus::Signal(11)));
    }
    all
}

#[test]
fn each_failure_doubles_the_throttle_time_up_to_the_second() {
    let mut fixture = Fixture::new([learning()]);
    let times = [1, 2, 4, 5, 5].map(Duration::from_secs);
    assert_eq!(times.map(|_| fail(&mut fixture)), times);
    let service = fixture.table.service(FIRST).unwrap();
    assert_eq!(service.last_throttle(), Some(5 * SECOND));
}

#[test]
fn the_next_throttle_time_is_told_where_it_grows() {
    let mut fixture = Fixture::new([learning()]);
    let next = |fixture: &Fixture| fixture.table.service(FIRST).unwrap().next_throttle_time();
    for seconds in [1, 2, 4, 5, 5] {
        let told = next(&fixture);
        assert_eq!(told, Some(Duration::from_secs(seconds)));
        assert_eq!(told, Some(fail(&mut fixture)));
    }
    assert_eq!(next(&Fixture::new([inet(25, 10)])), None);
}

#[test]
fn a_client_that_is_served_brings_back_the_first_throttle_time() {
    let mut fixture = Fixture::new([learning()]);
    assert_eq!([1, 2].map(|_| fail(&mut fixture)), [SECOND, 2 * SECOND]);
    let child = fixture.busy(FIRST);
    fixture.available(FIRST, child);
    fixture.taken(FIRST, child);
    assert_eq!(fixture.table.service(FIRST).unwrap().last_throttle(), None);
    assert_eq!(fail(&mut fixture), SECOND);
}

#[test]
fn a_child_that_leaves_with_its_client_served_brings_it_back_too() {
    let mut fixture = Fixture::new([learning()]);
    fail(&mut fixture);
    let child = fixture.busy(FIRST);
    fixture.exit(child, ExitStatus::Code(0));
    assert_eq!(fail(&mut fixture), SECOND);
}

#[test]
fn an_idle_child_that_leaves_says_nothing_about_the_command() {
    let mut fixture = Fixture::new([learning()]);
    fail(&mut fixture);
    let child = fixture.spawn(FIRST);
    fixture.exit(child, ExitStatus::Code(0));
    assert_eq!(fail(&mut fixture), 2 * SECOND);
}

#[test]
fn a_reload_begins_with_the_first_throttle_time() {
    let mut fixture = Fixture::new([learning()]);
    fail(&mut fixture);
    fixture.reload([learning()]);
    assert_eq!(fail(&mut fixture), SECOND);
}

#[test]
fn a_single_throttle_time_stays_what_it_is() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    assert_eq!([1, 2, 3].map(|_| fail(&mut fixture)), [THROTTLE_TIME; 3]);
}

#[test]
fn failures_of_a_throttled_service_double_nothing() {
    let mut fixture = Fixture::new([learning()]);
    let children = [
        fixture.busy(FIRST),
        fixture.busy(FIRST),
        fixture.busy(FIRST),
    ];
    for child in children {
        fixture.exit(child, ExitStatus::Code(1));
    }
    assert_eq!(throttled_until(&fixture), Some(fixture.now + SECOND));
}

#[test]
fn the_log_tells_for_how_long_and_when_it_is_over() {
    let mut fixture = Fixture::new([learning()]);
    let child = fixture.spawn(FIRST);
    let lines = logged(&fixture.exit(child, ExitStatus::Code(1)));
    let expected = "service \"25\" (25): throttled for 1 s, avail 0 total 0 max 10";
    assert_eq!(lines.last().map(String::as_str), Some(expected));
    let expected = "service \"25\" (25): no longer throttled, avail 0 total 0 max 10";
    assert_eq!(logged(&fixture.pass(SECOND)), [expected]);
}

#[test]
fn the_share_of_clients_whose_child_fails_throttles() {
    let mut fixture = Fixture::new([wary()]);
    let child = fixture.busy(FIRST);
    serve(&mut fixture, child, 10);
    let lines = logged(&crash(&mut fixture, 9));
    assert!(
        !lines.iter().any(|line| line.contains("throttl")),
        "{lines:?}"
    );
    assert_eq!(fixture.table.service(FIRST).unwrap().crashes(), (9, 19));
    let lines = logged(&crash(&mut fixture, 1));
    assert_eq!(
        lines[1],
        "service \"25\" (25): children ended abnormally with 10 of the last 20 clients -- \
         throttling"
    );
    assert_eq!(throttled_until(&fixture), Some(fixture.now + THROTTLE_TIME));
}

#[test]
fn a_smaller_share_does_not_throttle() {
    let mut fixture = Fixture::new([wary()]);
    let child = fixture.busy(FIRST);
    serve(&mut fixture, child, 11);
    crash(&mut fixture, 9);
    assert_eq!(
        fixture.table.service(FIRST).unwrap().crashes(),
        (9, CLIENTS)
    );
    assert_eq!(throttled_until(&fixture), None);
}

#[test]
fn only_the_last_clients_count() {
    let mut fixture = Fixture::new([wary()]);
    let child = fixture.busy(FIRST);
    serve(&mut fixture, child, 1000);
    crash(&mut fixture, 9);
    assert_eq!(throttled_until(&fixture), None);
    crash(&mut fixture, 1);
    assert!(throttled_until(&fixture).is_some());
    fixture.pass(THROTTLE_TIME);
    serve(&mut fixture, child, 1);
    // Ten of twenty-one, the first of which are forgotten.
    crash(&mut fixture, 1);
    assert!(throttled_until(&fixture).is_some());
}

#[test]
fn few_clients_prove_nothing() {
    let mut fixture = Fixture::new([wary()]);
    crash(&mut fixture, CLIENTS - 1);
    assert_eq!(throttled_until(&fixture), None);
    crash(&mut fixture, 1);
    assert!(throttled_until(&fixture).is_some());
}

#[test]
fn no_share_throttles_unless_it_is_set() {
    let mut fixture = Fixture::new([inet(25, 0)]);
    crash(&mut fixture, 2 * CLIENTS);
    assert_eq!(throttled_until(&fixture), None);
}

#[test]
fn while_too_many_fail_a_served_client_does_not_bring_the_time_back() {
    let mut service = wary();
    service.throttle_time = SECOND;
    service.extra.get_or_insert_default().limits.throttle_most = Some(5 * SECOND);
    let mut fixture = Fixture::new([service]);
    let child = fixture.busy(FIRST);
    crash(&mut fixture, CLIENTS);
    assert_eq!(throttled_until(&fixture), Some(fixture.now + SECOND));
    fixture.pass(SECOND);
    serve(&mut fixture, child, 1);
    crash(&mut fixture, 1);
    assert_eq!(throttled_until(&fixture), Some(fixture.now + 2 * SECOND));
    fixture.pass(2 * SECOND);
    serve(&mut fixture, child, CLIENTS);
    crash(&mut fixture, 10);
    assert_eq!(throttled_until(&fixture), Some(fixture.now + SECOND));
}

#[test]
fn a_child_without_a_client_loses_none() {
    let mut fixture = Fixture::new([wary()]);
    for _ in 0..2 * CLIENTS {
        let child = fixture.busy(FIRST);
        fixture.available(FIRST, child);
        fixture.exit(child, ExitStatus::Signal(11));
    }
    assert_eq!(
        fixture.table.service(FIRST).unwrap().crashes(),
        (0, CLIENTS)
    );
}

#[test]
fn a_child_that_was_told_to_leave_says_nothing_about_todays_command() {
    let mut fixture = Fixture::new([wary()]);
    let child = fixture.busy(FIRST);
    fixture.reload([wary()]);
    fixture.exit(child, ExitStatus::Signal(11));
    assert_eq!(fixture.table.service(FIRST).unwrap().crashes(), (0, 0));
}
