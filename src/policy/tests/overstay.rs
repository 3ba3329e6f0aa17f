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
    service.care.request_timeout = Some(REQUEST);
    service
}

/// A service whose children are to have left after half a minute.
fn strict() -> config::Service {
    let mut service = inet(25, 10);
    service.care.stop_timeout = Some(STOP);
    service
}

#[test]
fn a_child_that_is_busy_for_too_long_is_told_of_ended_and_killed() {
    let mut world = World::new([hurried()]);
    let child = world.busy(FIRST);
    let pid = child.0;
    assert_eq!(world.pass(REQUEST - SECOND), []);
    let actions = world.pass(SECOND);
    assert_eq!(
        logged(&actions),
        [format!(
            "service \"25\" (25): process /usr/lib/postfix/sbin/smtpd pid {pid} has had its \
             client for 600 s, ending it"
        )]
    );
    assert_eq!(without_logs(actions), [term(pid)]);
    assert_eq!(world.pass(KILL_TIME - SECOND), []);
    let actions = world.pass(SECOND);
    assert!(logged(&actions)[0].ends_with("is still there, sending SIGKILL"));
    assert_eq!(without_logs(actions), [kill(pid)]);
    assert_eq!(world.pass(REQUEST), []);
}

#[test]
fn each_client_has_a_time_of_its_own() {
    let mut world = World::new([hurried()]);
    let child = world.busy(FIRST);
    for _ in 0..3 {
        world.pass(REQUEST - SECOND);
        world.available(FIRST, child);
        world.pass(REQUEST);
        world.taken(FIRST, child);
    }
    world.pass(REQUEST - SECOND);
    assert_eq!(without_logs(world.pass(SECOND)), [term(child.0)]);
}

#[test]
fn a_child_that_says_again_that_it_is_busy_gets_no_more_time() {
    let mut world = World::new([hurried()]);
    let child = world.busy(FIRST);
    world.pass(REQUEST - SECOND);
    world.taken(FIRST, child);
    assert_eq!(without_logs(world.pass(SECOND)), [term(child.0)]);
}

#[test]
fn a_child_that_is_done_after_all_is_not_killed() {
    let mut world = World::new([hurried()]);
    let child = world.busy(FIRST);
    world.pass(REQUEST);
    world.available(FIRST, child);
    assert_eq!(world.pass(2 * KILL_TIME), []);
    // Nor is the next client held against it.
    world.taken(FIRST, child);
    assert_eq!(world.pass(REQUEST - SECOND), []);
    assert_eq!(without_logs(world.pass(SECOND)), [term(child.0)]);
}

#[test]
fn the_end_of_a_child_that_was_ended_is_no_news_and_throttles_nothing() {
    for signal in [15, 9] {
        let mut world = World::new([hurried()]);
        let child = world.busy(FIRST);
        world.pass(REQUEST);
        let actions = world.exit(child, ExitStatus::Signal(signal));
        assert_eq!(logged(&actions), [""; 0]);
        assert!(!world.table.service(FIRST).unwrap().throttled());
        // But its client was not served.
        assert_eq!(world.table.service(FIRST).unwrap().crashes(), (1, 1));
    }
}

#[test]
fn idle_children_may_stay() {
    let mut world = World::new([hurried()]);
    world.spawn(FIRST);
    assert_eq!(world.pass(10 * REQUEST), []);
}

#[test]
fn without_a_timeout_nobody_is_hurried() {
    let mut world = World::new([inet(25, 10)]);
    world.busy(FIRST);
    world.reload([inet(25, 10)]);
    assert_eq!(world.pass(100 * REQUEST), []);
    assert_eq!(world.table.timers.len(), 0);
}

#[test]
fn a_child_that_does_not_leave_after_a_reload_is_ended_and_killed() {
    let mut world = World::new([strict()]);
    let child = world.busy(FIRST);
    let pid = child.0;
    world.reload([strict()]);
    assert_eq!(world.pass(STOP - SECOND), []);
    let actions = world.pass(SECOND);
    assert!(logged(&actions)[0].ends_with("was told to leave 30 s ago, ending it"));
    assert_eq!(without_logs(actions), [term(pid)]);
    assert_eq!(without_logs(world.pass(STOP)), [kill(pid)]);
}

#[test]
fn another_reload_gives_no_more_time_to_leave() {
    let mut world = World::new([strict()]);
    let child = world.busy(FIRST);
    world.reload([strict()]);
    world.pass(STOP - SECOND);
    world.reload([strict()]);
    assert_eq!(without_logs(world.pass(SECOND)), [term(child.0)]);
}

#[test]
fn a_reload_can_set_and_lift_the_time_to_leave() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.busy(FIRST);
    world.reload([strict()]);
    world.reload([inet(25, 10)]);
    assert_eq!(world.pass(2 * STOP), []);
    world.reload([strict()]);
    assert_eq!(without_logs(world.step(Event::Deadline)), [term(child.0)]);
}

#[test]
fn a_child_that_leaves_in_time_is_left_alone() {
    let mut world = World::new([strict()]);
    let child = world.busy(FIRST);
    world.reload([strict()]);
    world.exit(child, ExitStatus::Code(0));
    assert_eq!(world.pass(2 * STOP), []);
}

#[test]
fn the_client_of_a_child_that_is_to_leave_has_no_more_time_than_others() {
    let mut service = hurried();
    service.care.stop_timeout = Some(2 * REQUEST);
    let mut world = World::new([service.clone()]);
    let child = world.busy(FIRST);
    world.pass(REQUEST / 2);
    world.reload([service]);
    assert_eq!(world.pass(REQUEST / 2 - SECOND), []);
    let actions = world.pass(SECOND);
    assert!(logged(&actions)[0].contains("has had its client for 600 s"));
    assert_eq!(without_logs(actions), [term(child.0)]);
}

#[test]
fn a_removed_service_has_its_own_time_to_end() {
    let mut world = World::new([strict()]);
    let child = world.busy(FIRST);
    let actions = without_logs(world.reload([]));
    assert_eq!(actions, [term(child.0), Action::Close(FIRST)]);
    assert_eq!(world.pass(STOP - SECOND), []);
    assert_eq!(without_logs(world.pass(SECOND)), [kill(child.0)]);
}

#[test]
fn removal_takes_the_place_of_a_childs_own_deadline() {
    let mut world = World::new([hurried()]);
    let child = world.busy(FIRST);
    world.pass(REQUEST);
    world.reload([]);
    let actions = world.pass(KILL_TIME);
    assert_eq!(without_logs(actions), [kill(child.0)]);
}

#[test]
fn only_services_that_want_it_are_awaited_at_the_end() {
    let other = unix("a", 2);
    let mut world = World::new([strict(), other]);
    let child = world.busy(FIRST);
    world.busy(SECOND_SERVICE);
    let awaited: Vec<_> = world.table.awaited().collect();
    assert_eq!(awaited, [(child.0, STOP)]);
}

#[test]
fn many_clients_leave_few_deadlines_behind() {
    let mut world = World::new([hurried()]);
    let child = world.busy(FIRST);
    for _ in 0..5000 {
        world.available(FIRST, child);
        world.pass(SECOND / 100);
        world.taken(FIRST, child);
    }
    assert!(
        world.table.timers.len() < 2000,
        "{}",
        world.table.timers.len()
    );
}

/// A pool of one child that has a client, under these settings.
fn busy_member(care: Seldom<Care>) -> (World, config::Service, Pid) {
    let service = config::Service { care, ..pool(1, 1) };
    let (mut world, pids) = filled(service.clone());
    world.connect(FIRST);
    world.now_busy(pids[0]);
    (world, service, pids[0])
}

#[test]
fn a_pools_child_that_is_busy_for_too_long_is_told_of_ended_and_killed() {
    let (mut world, _, pid) = busy_member(hurried().care);
    assert_eq!(logged(&world.pass(REQUEST - SECOND)), [""; 0]);
    let actions = world.pass(SECOND);
    assert!(logged(&actions)[0].contains("has had its client for 600 s"));
    assert!(without_logs(actions).starts_with(&ending(pid)));
    let actions = world.pass(KILL_TIME);
    assert!(without_logs(actions).contains(&kill(pid)));
    let actions = world.exit((pid, 0), ExitStatus::Signal(9));
    assert_eq!(logged(&actions), [""; 0]);
    assert_eq!(world.table.service(FIRST).unwrap().crashes(), (1, 1));
}

#[test]
fn a_pools_child_from_before_a_reload_has_its_time_to_finish_with_its_client() {
    let (mut world, service, pid) = busy_member(strict().care);
    world.reload([service]);
    assert_eq!(logged(&world.pass(STOP - SECOND)), [""; 0]);
    let actions = world.pass(SECOND);
    assert!(logged(&actions)[0].contains("was told to leave 30 s ago"));
    assert!(without_logs(actions).starts_with(&ending(pid)));
    assert!(without_logs(world.pass(STOP)).contains(&kill(pid)));
}

#[test]
fn a_reload_takes_no_time_from_the_clients_that_come_after_it() {
    let (mut world, service, pid) = busy_member(strict().care);
    // Nobody can take the place of the only child, which therefore serves on.
    let throttled = Event::SpawnFailed {
        service: FIRST,
        reason: "no room".into(),
    };
    world.step(throttled);
    world.reload([service]);
    world.pass(STOP - SECOND);
    world.idle(pid);
    assert!(world.connect(FIRST).contains(&accept(pid)));
    world.now_busy(pid);
    assert_eq!(logged(&world.pass(20 * SECOND)), [""; 0]);
}

#[test]
fn a_rogue_has_the_services_own_time_to_end() {
    let (mut world, _, pid) = busy_member(strict().care);
    let reason = "gone".to_owned();
    world.step(Event::Unwritable { pid, reason });
    assert!(!without_logs(world.pass(STOP - SECOND)).contains(&kill(pid)));
    assert!(without_logs(world.pass(SECOND)).contains(&kill(pid)));
}

#[test]
fn a_child_of_a_removed_service_has_no_deadline_of_its_own() {
    let mut world = World::new([hurried()]);
    let first = world.busy(FIRST);
    world.reload([]);
    // Its start was under way.
    let (service, generation, pid) = (FIRST, 7, 4711);
    world.step(Event::Spawned {
        service,
        generation,
        pid,
    });
    world.taken(FIRST, (pid, generation));
    assert_eq!(
        without_logs(world.pass(REQUEST)),
        [kill(first.0), kill(pid)]
    );
}
