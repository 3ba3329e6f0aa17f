//! How children end, and throttling.

use super::*;

#[test]
fn children_whose_channels_were_lost_are_not_counted_on_and_others_take_their_places() {
    let mut fixture = Fixture::new([inet(25, 2)]);
    let (pid, _) = fixture.spawn(FIRST);
    assert_eq!(fixture.counts(FIRST), (1, 1));
    let mut actions = Vec::new();
    let now = fixture.now;
    fixture.table.channels_lost(now, &[pid, 9999], &mut actions);
    assert_eq!((fixture.counts(FIRST), actions), ((0, 1), Vec::new()));
    fixture.spawn(FIRST);
    assert_eq!(fixture.counts(FIRST), (1, 2));
    let actions = fixture.exit((pid, 0), ExitStatus::Code(0));
    assert_eq!(logged(&actions), [""; 0]);
}

#[test]
fn a_child_that_fails_before_its_first_client_throttles_its_service() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    let actions = fixture.exit(child, ExitStatus::Code(1));
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
    assert_eq!(fixture.connect(FIRST), []);
    assert_eq!(fixture.pass(Duration::from_secs(59)), []);
    assert_eq!(without_logs(fixture.pass(SECOND)), [Action::Watch(FIRST)]);
}

#[test]
fn a_child_that_is_killed_before_its_first_client_throttles_too() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.busy(FIRST);
    let actions = fixture.exit(child, ExitStatus::Signal(11));
    assert!(logged(&actions)[0].ends_with("killed by signal 11"));
    assert!(fixture.table.service(FIRST).unwrap().throttled());
}

#[test]
fn a_child_that_fails_after_a_client_does_not_throttle() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.busy(FIRST);
    fixture.available(FIRST, child);
    let actions = fixture.exit(child, ExitStatus::Code(1));
    assert_eq!(logged(&actions).len(), 1);
    assert_eq!(without_logs(actions), [Action::Watch(FIRST)]);
}

#[test]
fn a_child_that_ends_well_is_not_talked_about() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    assert_eq!(
        fixture.exit(child, ExitStatus::Code(0)),
        [Action::Watch(FIRST)]
    );
}

#[test]
fn a_process_that_cannot_be_made_throttles() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    fixture.connect(FIRST);
    let service = FIRST;
    let actions = fixture.step(Event::SpawnFailed {
        service,
        error: NO_ROOM,
    });
    assert!(
        logged(&actions)[0]
            .contains("cannot start a process: Cannot allocate memory -- throttling")
    );
    assert_eq!(fixture.counts(FIRST), (0, 0));
    let actions = fixture.pass(THROTTLE_TIME);
    assert_eq!(without_logs(actions), [Action::Watch(FIRST)]);
}

#[test]
fn a_listener_that_cannot_be_watched_is_tried_again_later() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let service = FIRST;
    let actions = fixture.step(Event::WatchFailed {
        service,
        error: NO_ROOM,
    });
    assert!(logged(&actions)[0].contains("cannot watch its listeners"));
    assert_eq!(without_logs(actions), [Action::Unwatch(FIRST)]);
    let actions = fixture.pass(THROTTLE_TIME);
    assert_eq!(without_logs(actions), [Action::Watch(FIRST)]);
}

#[test]
fn a_process_that_is_not_ours_is_ignored() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let stranger = (31_415, 0);
    assert_eq!(fixture.exit(stranger, ExitStatus::Signal(9)), []);
}
