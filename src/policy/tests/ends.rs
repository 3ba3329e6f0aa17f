//! How children end, and throttling.

use super::*;

#[test]
fn a_child_that_fails_before_its_first_client_throttles_its_service() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
    let actions = world.exit(child, ExitStatus::Code(1));
    let pid = child.0;
    assert_eq!(
        logged(&actions),
        [
            format!("process /usr/lib/postfix/sbin/smtpd pid {pid} exit status 1"),
            "/usr/lib/postfix/sbin/smtpd: bad command startup -- throttling".into(),
            "service \"25\" (25): throttled for 60 s, avail 0 total 0 max 10".into(),
        ]
    );
    assert_eq!(without_logs(actions), []);
    assert_eq!(world.connect(FIRST), []);
    assert_eq!(world.pass(Duration::from_secs(59)), []);
    assert_eq!(without_logs(world.pass(SECOND)), [Action::Watch(FIRST)]);
}

#[test]
fn a_child_that_is_killed_before_its_first_client_throttles_too() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.busy(FIRST);
    let actions = world.exit(child, ExitStatus::Signal(11));
    assert!(logged(&actions)[0].ends_with("killed by signal 11"));
    assert!(world.table.service(FIRST).unwrap().throttled());
}

#[test]
fn a_child_that_fails_after_a_client_does_not_throttle() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.busy(FIRST);
    world.available(FIRST, child);
    let actions = world.exit(child, ExitStatus::Code(1));
    assert_eq!(logged(&actions).len(), 1);
    assert_eq!(without_logs(actions), [Action::Watch(FIRST)]);
}

#[test]
fn a_child_that_ends_well_is_not_talked_about() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
    assert_eq!(
        world.exit(child, ExitStatus::Code(0)),
        [Action::Watch(FIRST)]
    );
}

#[test]
fn a_process_that_cannot_be_made_throttles() {
    let mut world = World::new([inet(25, 10)]);
    world.connect(FIRST);
    let service = FIRST;
    let actions = world.step(Event::SpawnFailed {
        service,
        reason: "no room".into(),
    });
    assert!(logged(&actions)[0].contains("cannot start a process: no room -- throttling"));
    assert_eq!(world.counts(FIRST), (0, 0));
    let actions = world.pass(THROTTLE_TIME);
    assert_eq!(without_logs(actions), [Action::Watch(FIRST)]);
}

#[test]
fn a_listener_that_cannot_be_watched_is_tried_again_later() {
    let mut world = World::new([inet(25, 10)]);
    let service = FIRST;
    let actions = world.step(Event::WatchFailed {
        service,
        reason: "no room".into(),
    });
    assert!(logged(&actions)[0].contains("cannot watch its listeners"));
    assert_eq!(without_logs(actions), [Action::Unwatch(FIRST)]);
    let actions = world.pass(THROTTLE_TIME);
    assert_eq!(without_logs(actions), [Action::Watch(FIRST)]);
}

#[test]
fn a_process_that_is_not_ours_is_ignored() {
    let mut world = World::new([inet(25, 10)]);
    let stranger = (31_415, 0);
    assert_eq!(world.exit(stranger, ExitStatus::Signal(9)), []);
}
