//! Children that stay too long.

use super::ordered::{accept, ending, filled, pool};
use super::*;

const REQUEST: Duration = Duration::from_secs(600);
const STOP: Duration = Duration::from_secs(30);

fn term(pid: Pid) -> Action {
    let signal = Signal::Term;
    Action::Signal { pid, signal }
}

fn kill(pid: Pid) -> Action {
    let signal = Signal::Kill;
    Action::Signal { pid, signal }
}

/// A service whose children may be busy for ten minutes.
fn hurried() -> config::Service {
    let mut service = inet(25, 10);
    service.extra.get_or_insert_default().limits.request_timeout = Some(REQUEST);
    service
}

/// A service whose children are to have left after half a minute.
fn strict() -> config::Service {
    let mut service = inet(25, 10);
    service.extra.get_or_insert_default().limits.stop_timeout = Some(STOP);
    service
}

#[test]
fn a_child_that_is_busy_for_too_long_is_told_of_ended_and_killed() {
    let mut fixture = Fixture::new([hurried()]);
    let child = fixture.busy(FIRST);
    let pid = child.0;
    assert_eq!(fixture.pass(REQUEST - SECOND), []);
    let actions = fixture.pass(SECOND);
    assert_eq!(
        logged(&actions),
        [format!(
            "service \"25\" (25): process /usr/lib/postfix/sbin/smtpd pid {pid} has had its \
             client for 600 s, ending it"
        )]
    );
    assert_eq!(without_logs(actions), [term(pid)]);
    assert_eq!(fixture.pass(KILL_TIME - SECOND), []);
    let actions = fixture.pass(SECOND);
    assert!(logged(&actions)[0].ends_with("is still there, sending SIGKILL"));
    assert_eq!(without_logs(actions), [kill(pid)]);
    assert_eq!(fixture.pass(REQUEST), []);
}

#[test]
fn each_client_has_a_time_of_its_own() {
    let mut fixture = Fixture::new([hurried()]);
    let child = fixture.busy(FIRST);
    for _ in 0..3 {
        fixture.pass(REQUEST - SECOND);
        fixture.available(FIRST, child);
        fixture.pass(REQUEST);
        fixture.taken(FIRST, child);
    }
    fixture.pass(REQUEST - SECOND);
    assert_eq!(without_logs(fixture.pass(SECOND)), [term(child.0)]);
}

#[test]
fn a_child_that_says_again_that_it_is_busy_gets_no_more_time() {
    let mut fixture = Fixture::new([hurried()]);
    let child = fixture.busy(FIRST);
    fixture.pass(REQUEST - SECOND);
    fixture.taken(FIRST, child);
    assert_eq!(without_logs(fixture.pass(SECOND)), [term(child.0)]);
}

#[test]
fn a_child_that_is_done_after_all_is_not_killed() {
    let mut fixture = Fixture::new([hurried()]);
    let child = fixture.busy(FIRST);
    fixture.pass(REQUEST);
    fixture.available(FIRST, child);
    assert_eq!(fixture.pass(2 * KILL_TIME), []);
    // Nor is the next client held against it.
    fixture.taken(FIRST, child);
    assert_eq!(fixture.pass(REQUEST - SECOND), []);
    assert_eq!(without_logs(fixture.pass(SECOND)), [term(child.0)]);
}

#[test]
fn the_end_of_a_child_that_was_ended_is_no_news_and_throttles_nothing() {
    for signal in [15, 9] {
        let mut fixture = Fixture::new([hurried()]);
        let child = fixture.busy(FIRST);
        fixture.pass(REQUEST);
        let actions = fixture.exit(child, ExitStatus::Signal(signal));
        assert_eq!(logged(&actions), [""; 0]);
        assert!(!fixture.table.service(FIRST).unwrap().throttled());
        // But its client was not served.
        assert_eq!(fixture.table.service(FIRST).unwrap().crashes(), (1, 1));
    }
}

#[test]
fn idle_children_may_stay() {
    let mut fixture = Fixture::new([hurried()]);
    fixture.spawn(FIRST);
    assert_eq!(fixture.pass(10 * REQUEST), []);
}

#[test]
fn without_a_timeout_nobody_is_hurried() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    fixture.busy(FIRST);
    fixture.reload([inet(25, 10)]);
    assert_eq!(fixture.pass(100 * REQUEST), []);
    assert_eq!(fixture.table.cx.timers.len(), 0);
}

#[test]
fn a_child_that_does_not_leave_after_a_reload_is_ended_and_killed() {
    let mut fixture = Fixture::new([strict()]);
    let child = fixture.busy(FIRST);
    let pid = child.0;
    fixture.reload([strict()]);
    assert_eq!(fixture.pass(STOP - SECOND), []);
    let actions = fixture.pass(SECOND);
    assert!(logged(&actions)[0].ends_with("was told to leave 30 s ago, ending it"));
    assert_eq!(without_logs(actions), [term(pid)]);
    assert_eq!(without_logs(fixture.pass(STOP)), [kill(pid)]);
}

#[test]
fn another_reload_gives_no_more_time_to_leave() {
    let mut fixture = Fixture::new([strict()]);
    let child = fixture.busy(FIRST);
    fixture.reload([strict()]);
    fixture.pass(STOP - SECOND);
    fixture.reload([strict()]);
    assert_eq!(without_logs(fixture.pass(SECOND)), [term(child.0)]);
}

#[test]
fn a_reload_can_set_and_lift_the_time_to_leave() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.busy(FIRST);
    fixture.reload([strict()]);
    fixture.reload([inet(25, 10)]);
    assert_eq!(fixture.pass(2 * STOP), []);
    fixture.reload([strict()]);
    assert_eq!(without_logs(fixture.step(Event::Deadline)), [term(child.0)]);
}

#[test]
fn a_child_that_leaves_in_time_is_left_alone() {
    let mut fixture = Fixture::new([strict()]);
    let child = fixture.busy(FIRST);
    fixture.reload([strict()]);
    fixture.exit(child, ExitStatus::Code(0));
    assert_eq!(fixture.pass(2 * STOP), []);
}

#[test]
fn the_client_of_a_child_that_is_to_leave_has_no_more_time_than_others() {
    let mut service = hurried();
    service.extra.get_or_insert_default().limits.stop_timeout = Some(2 * REQUEST);
    let mut fixture = Fixture::new([service.clone()]);
    let child = fixture.busy(FIRST);
    fixture.pass(REQUEST / 2);
    fixture.reload([service]);
    assert_eq!(fixture.pass(REQUEST / 2 - SECOND), []);
    let actions = fixture.pass(SECOND);
    assert!(logged(&actions)[0].contains("has had its client for 600 s"));
    assert_eq!(without_logs(actions), [term(child.0)]);
}

#[test]
fn a_removed_service_has_its_own_time_to_end() {
    let mut fixture = Fixture::new([strict()]);
    let child = fixture.busy(FIRST);
    let actions = without_logs(fixture.reload([]));
    assert_eq!(
        actions,
        [term(child.0), close_channel(child.0), Action::Close(FIRST)]
    );
    assert_eq!(fixture.pass(STOP - SECOND), []);
    assert_eq!(without_logs(fixture.pass(SECOND)), [kill(child.0)]);
}

#[test]
fn removal_takes_the_place_of_a_childs_own_deadline() {
    let mut fixture = Fixture::new([hurried()]);
    let child = fixture.busy(FIRST);
    fixture.pass(REQUEST);
    fixture.reload([]);
    let actions = fixture.pass(KILL_TIME);
    assert_eq!(without_logs(actions), [kill(child.0)]);
}

#[test]
fn only_services_that_want_it_are_awaited_at_the_end() {
    let other = unix("a", 2);
    let mut fixture = Fixture::new([strict(), other]);
    let child = fixture.busy(FIRST);
    fixture.busy(SECOND_SERVICE);
    let awaited: Vec<_> = fixture.table.awaited().collect();
    assert_eq!(awaited, [(child.0, STOP)]);
}

#[test]
fn many_clients_leave_few_deadlines_behind() {
    let mut fixture = Fixture::new([hurried()]);
    let child = fixture.busy(FIRST);
    for _ in 0..5000 {
        fixture.available(FIRST, child);
        fixture.pass(SECOND / 100);
        fixture.taken(FIRST, child);
    }
    assert!(
        fixture.table.cx.timers.len() < 2000,
        "{}",
        fixture.table.cx.timers.len()
    );
}

/// A pool of one child that has a client, under these settings.
fn busy_member(limits: ChildLimits) -> (Fixture, config::Service, Pid) {
    let service = {
        let mut service = pool(1, 1);
        service.extra.get_or_insert_default().limits = limits;
        service
    };
    let (mut fixture, pids) = filled(service.clone());
    fixture.connect(FIRST);
    fixture.now_busy(pids[0]);
    (fixture, service, pids[0])
}

#[test]
fn a_pools_child_that_is_busy_for_too_long_is_told_of_ended_and_killed() {
    let (mut fixture, _, pid) = busy_member(*hurried().limits());
    assert_eq!(logged(&fixture.pass(REQUEST - SECOND)), [""; 0]);
    let actions = fixture.pass(SECOND);
    assert!(logged(&actions)[0].contains("has had its client for 600 s"));
    assert!(without_logs(actions).starts_with(&ending(pid)));
    let actions = fixture.pass(KILL_TIME);
    assert!(without_logs(actions).contains(&kill(pid)));
    let actions = fixture.exit((pid, 0), ExitStatus::Signal(9));
    assert_eq!(logged(&actions), [""; 0]);
    assert_eq!(fixture.table.service(FIRST).unwrap().crashes(), (1, 1));
}

#[test]
fn a_pools_child_from_before_a_reload_has_its_time_to_finish_with_its_client() {
    let (mut fixture, service, pid) = busy_member(*strict().limits());
    fixture.reload([service]);
    assert_eq!(logged(&fixture.pass(STOP - SECOND)), [""; 0]);
    let actions = fixture.pass(SECOND);
    assert!(logged(&actions)[0].contains("was told to leave 30 s ago"));
    assert!(without_logs(actions).starts_with(&ending(pid)));
    assert!(without_logs(fixture.pass(STOP)).contains(&kill(pid)));
}

#[test]
fn a_reload_takes_no_time_from_the_clients_that_come_after_it() {
    let (mut fixture, service, pid) = busy_member(*strict().limits());
    // Nobody can take the place of the only child, which therefore serves on.
    let throttled = Event::SpawnFailed {
        service: FIRST,
        error: NO_ROOM,
    };
    fixture.step(throttled);
    fixture.reload([service]);
    fixture.pass(STOP - SECOND);
    fixture.idle(pid);
    assert!(fixture.connect(FIRST).contains(&accept(pid)));
    fixture.now_busy(pid);
    assert_eq!(logged(&fixture.pass(20 * SECOND)), [""; 0]);
}

#[test]
fn a_rogue_has_the_services_own_time_to_end() {
    let (mut fixture, _, pid) = busy_member(*strict().limits());
    let failure = OrderFailure::NoChannel;
    fixture.step(Event::OrderFailed { pid, failure });
    assert!(!without_logs(fixture.pass(STOP - SECOND)).contains(&kill(pid)));
    assert!(without_logs(fixture.pass(SECOND)).contains(&kill(pid)));
}

#[test]
fn a_child_of_a_removed_service_has_no_deadline_of_its_own() {
    let mut fixture = Fixture::new([hurried()]);
    let first = fixture.busy(FIRST);
    fixture.reload([]);
    // Its start was under way.
    let (service, generation, pid) = (FIRST, 7, 4711);
    fixture.step(Event::Spawned {
        service,
        generation,
        pid,
    });
    fixture.taken(FIRST, (pid, generation));
    assert_eq!(
        without_logs(fixture.pass(REQUEST)),
        [kill(first.0), kill(pid)]
    );
}
