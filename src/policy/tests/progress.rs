//! Children that end at once and come to nothing, and limits on starts.

use super::*;
use crate::config::StartLimit;
use crate::protocol::pool::Report;

const TENTH: Duration = Duration::from_millis(100);
const WELL: ExitStatus = ExitStatus::Code(0);

/// A child ends at once; for how long the next start is delayed.
fn end_at_once(fixture: &mut Fixture, progress: Progress) -> (Duration, Vec<String>) {
    let child = fixture.spawn(FIRST);
    let said = fixture.exit_with(child, WELL, progress);
    (delay(fixture), logged(&said))
}

fn delay(fixture: &Fixture) -> Duration {
    let until = fixture.table.service(FIRST).unwrap().throttled_until();
    until.unwrap_or(fixture.now) - fixture.now
}

/// So many children come to nothing, and delays are waited for.
fn in_vain(fixture: &mut Fixture, children: u32) -> Duration {
    let mut last = Duration::ZERO;
    for _ in 0..children {
        (last, _) = end_at_once(fixture, Progress::None);
        fixture.pass(last);
    }
    last
}

#[test]
fn from_the_fifth_child_on_that_comes_to_nothing_each_start_waits_longer() {
    let mut fixture = Fixture::new([unix("a", 5)]);
    for _ in 0..4 {
        assert_eq!(end_at_once(&mut fixture, Progress::None).0, Duration::ZERO);
    }
    for times in 1..=3 {
        let (time, said) = end_at_once(&mut fixture, Progress::None);
        assert_eq!(time, TENTH * times);
        // One line in a minute.
        assert_eq!(said.len(), usize::from(times == 1), "{said:?}");
        assert!(fixture.connect(FIRST).is_empty(), "no start meanwhile");
        fixture.pass(time);
        assert!(fixture.table.service(FIRST).unwrap().listening());
    }
}

#[test]
fn the_line_names_the_program_and_is_repeated_after_a_minute() {
    let mut fixture = Fixture::new([unix("a", 5)]);
    in_vain(&mut fixture, 4);
    let (_, said) = end_at_once(&mut fixture, Progress::None);
    let expected = "service \"a\" (private/a): the last 5 processes ended within 1 s with status 0 \
                    and took no client -- starting the next one after 0.1 s\nprobably \
                    /usr/lib/postfix/sbin/smtpd goes into the background";
    assert!(said[0].starts_with(expected), "{said:?}");
    fixture.pass(60 * SECOND);
    let (_, said) = end_at_once(&mut fixture, Progress::None);
    assert!(said[0].contains("the last 6 processes"), "{said:?}");
}

#[test]
fn a_delay_is_never_longer_than_a_throttle() {
    let mut fixture = Fixture::new([unix("a", 5)]);
    assert_eq!(in_vain(&mut fixture, 700), THROTTLE_TIME);
    let mut service = unix("a", 5);
    service.throttle_time = SECOND;
    service.extra.get_or_insert_default().limits.throttle_most = Some(2 * SECOND);
    let mut fixture = Fixture::new([service]);
    assert_eq!(in_vain(&mut fixture, 30), 2 * SECOND);
}

#[test]
fn a_client_that_was_taken_resets_the_delay() {
    let mut fixture = Fixture::new([unix("a", 5)]);
    in_vain(&mut fixture, 7);
    assert_eq!(end_at_once(&mut fixture, Progress::Made).0, Duration::ZERO);
    in_vain(&mut fixture, 4);
    assert_eq!(end_at_once(&mut fixture, Progress::None).0, TENTH);
    fixture.pass(SECOND);
    let child = fixture.busy(FIRST);
    fixture.exit_with(child, WELL, Progress::None);
    assert_eq!(in_vain(&mut fixture, 4), Duration::ZERO);
    assert_eq!(in_vain(&mut fixture, 1), TENTH);
}

#[test]
fn a_reload_resets_the_delay() {
    let mut fixture = Fixture::new([unix("a", 5)]);
    in_vain(&mut fixture, 7);
    fixture.reload([unix("a", 5)]);
    assert_eq!(in_vain(&mut fixture, 4), Duration::ZERO);
}

#[test]
fn what_the_system_does_not_tell_neither_delays_nor_resets() {
    let mut fixture = Fixture::new([unix("a", 5)]);
    in_vain(&mut fixture, 4);
    for _ in 0..9 {
        assert_eq!(
            end_at_once(&mut fixture, Progress::Unknown).0,
            Duration::ZERO
        );
    }
    assert_eq!(end_at_once(&mut fixture, Progress::None).0, TENTH);
}

#[test]
fn only_a_child_that_ends_by_itself_well_and_within_a_second_comes_to_nothing() {
    let judged = |fixture: &Fixture, child: (Pid, u32), status| {
        fixture.table.ended_at_once(fixture.now, child.0, status)
    };
    let mut fixture = Fixture::new([unix("a", 5)]);
    let child = fixture.spawn(FIRST);
    assert_eq!(judged(&fixture, child, WELL), Some(SECOND));
    assert_eq!(judged(&fixture, child, ExitStatus::Code(1)), None);
    assert_eq!(judged(&fixture, child, ExitStatus::Signal(15)), None);
    fixture.pass(SECOND);
    assert_eq!(judged(&fixture, child, WELL), None);
    fixture.exit(child, WELL);
    let busy = fixture.busy(FIRST);
    assert_eq!(judged(&fixture, busy, WELL), None);
    fixture.available(FIRST, busy);
    assert_eq!(judged(&fixture, busy, WELL), None);
    fixture.step(Event::Replace { service: FIRST });
    let told = fixture.spawn(FIRST);
    fixture.step(Event::Pause { service: FIRST });
    assert_eq!(judged(&fixture, told, WELL), None);
    assert_eq!(judged(&fixture, (1, 0), WELL), None);
}

#[test]
fn a_child_that_stays_for_a_second_breaks_the_row() {
    let mut fixture = Fixture::new([unix("a", 5)]);
    in_vain(&mut fixture, 4);
    let child = fixture.spawn(FIRST);
    fixture.pass(SECOND);
    fixture.exit_with(child, WELL, Progress::None);
    assert_eq!(in_vain(&mut fixture, 4), Duration::ZERO);
}

#[test]
fn the_end_of_a_child_that_was_told_to_leave_says_nothing() {
    let mut fixture = Fixture::new([unix("a", 5)]);
    in_vain(&mut fixture, 4);
    let child = fixture.spawn(FIRST);
    fixture.step(Event::Replace { service: FIRST });
    fixture.exit_with(child, WELL, Progress::Made);
    assert_eq!(end_at_once(&mut fixture, Progress::None).0, TENTH);
}

#[test]
fn a_failure_throttles_a_service_whose_starts_are_delayed() {
    let mut fixture = Fixture::new([unix("a", 5)]);
    in_vain(&mut fixture, 4);
    let child = fixture.spawn(FIRST);
    let other = (900, 7);
    fixture.step(Event::Spawned {
        service: FIRST,
        generation: 7,
        pid: 900,
    });
    fixture.exit_with(child, WELL, Progress::None);
    assert_eq!(delay(&fixture), TENTH);
    fixture.exit(other, ExitStatus::Code(1));
    assert_eq!(delay(&fixture), THROTTLE_TIME);
}

#[test]
fn a_warm_child_that_ends_at_once_is_not_started_again_and_again() {
    let mut service = unix("a", 5);
    let pool = Pool {
        min_idle: 1,
        ..Pool::default()
    };
    service.extra = with_pool(pool);
    let mut fixture = Fixture::new([service]);
    let mut started = 0;
    let mut generation = 1;
    let end = fixture.now + 60 * SECOND;
    while fixture.now < end {
        let child = fixture.spawned(FIRST, generation);
        started += 1;
        let mut actions = fixture.exit_with(child, WELL, Progress::None);
        let mut is_spawn = actions.iter().any(|a| matches!(a, Action::Spawn { .. }));
        while !is_spawn {
            let at = fixture.table.next_deadline().expect("the next start");
            fixture.now = at;
            actions = fixture.step(Event::Deadline);
            is_spawn = actions.iter().any(|a| matches!(a, Action::Spawn { .. }));
        }
        generation += 1;
    }
    // Without delays it were 1920; with them 0.1 + 0.2 + ... + 3.4 s are a minute.
    assert!((30..45).contains(&started), "{started}");
}

fn pool() -> Fixture {
    let mut service = unix("a", 5);
    service.extra = with_pool(Pool::ordered());
    Fixture::new([service])
}

/// A child of a pool that is idle, and closes its channel.
fn idle_and_gone(fixture: &mut Fixture, generation: u32) -> (Pid, u32) {
    let (pid, generation) = fixture.spawned(FIRST, generation);
    let report = Report::Idle;
    fixture.step(Event::PoolReport { pid, report });
    assert_eq!(fixture.table.ended_at_once(fixture.now, pid, WELL), None);
    fixture.step(Event::ChannelClosed { pid });
    (pid, generation)
}

#[test]
fn a_pools_child_that_is_idle_and_ends_at_once_comes_to_nothing() {
    let mut fixture = pool();
    for generation in 1..=5 {
        let child = idle_and_gone(&mut fixture, generation);
        fixture.exit_with(child, WELL, Progress::Made);
        let expected = if generation < 5 {
            Duration::ZERO
        } else {
            TENTH
        };
        assert_eq!(delay(&fixture), expected, "{generation}");
        fixture.pass(2 * SECOND);
    }
}

fn limited(starts: u32, seconds: u64) -> config::Service {
    let mut service = unix("a", 0);
    let period = Duration::from_secs(seconds);
    let limits = &mut service.extra.get_or_insert_default().limits;
    limits.start_limit = Some(StartLimit { starts, period });
    service
}

#[test]
fn a_service_starts_no_more_children_than_its_limit_allows() {
    let mut fixture = Fixture::new([limited(3, 10)]);
    for _ in 0..2 {
        for _ in 0..3 {
            fixture.busy(FIRST);
        }
        fixture.pass(4 * SECOND);
        assert!(fixture.table.service(FIRST).unwrap().listening());
        let actions = fixture.connect(FIRST);
        assert!(!actions.iter().any(|a| matches!(a, Action::Spawn { .. })));
        assert_eq!(delay(&fixture), 6 * SECOND);
        fixture.pass(6 * SECOND);
    }
    fixture.spawn(FIRST);
}

#[test]
fn a_limit_of_starts_is_told_once_in_a_minute() {
    let mut fixture = Fixture::new([limited(1, 10)]);
    let mut said = Vec::new();
    for _ in 0..7 {
        fixture.busy(FIRST);
        said.extend(logged(&fixture.connect(FIRST)));
        fixture.pass(10 * SECOND);
    }
    let expected = "service \"a\" (private/a): has started 1 processes in 10 s, the most that its \
                    start_limit allows -- starting no more for 10.0 s";
    assert_eq!(said, [expected; 2]);
}

#[test]
fn the_period_of_a_limit_begins_with_a_start() {
    let mut fixture = Fixture::new([limited(2, 10)]);
    fixture.busy(FIRST);
    fixture.pass(9 * SECOND);
    fixture.busy(FIRST);
    fixture.pass(SECOND);
    fixture.busy(FIRST);
    fixture.busy(FIRST);
    fixture.connect(FIRST);
    assert_eq!(delay(&fixture), 10 * SECOND);
}

#[test]
fn a_removed_service_has_no_starts_to_delay() {
    let mut fixture = Fixture::new([unix("a", 9)]);
    in_vain(&mut fixture, 4);
    let children = [fixture.busy(FIRST), fixture.spawn(FIRST)];
    fixture.reload([]);
    for child in children {
        fixture.exit_with(child, WELL, Progress::None);
    }
    assert!(fixture.table.service(FIRST).is_none());
}

#[test]
fn a_removed_pool_has_no_starts_to_delay() {
    let mut fixture = pool();
    for generation in 1..=4 {
        let child = idle_and_gone(&mut fixture, generation);
        fixture.exit_with(child, WELL, Progress::Made);
    }
    let last = idle_and_gone(&mut fixture, 5);
    fixture.reload([]);
    let said = fixture.exit_with(last, WELL, Progress::Made);
    assert_eq!(logged(&said), [""; 0]);
}
