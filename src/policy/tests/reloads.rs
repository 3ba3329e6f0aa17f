//! Reloads.

use super::*;

#[test]
fn a_reload_keeps_children_and_tells_them_to_leave() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.busy(FIRST);
    let actions = fixture.reload([inet(25, 20)]);
    assert_eq!(actions, [close_channel(child.0)]);
    assert_eq!(fixture.counts(FIRST), (0, 1));
    assert_eq!(fixture.exit(child, ExitStatus::Code(0)), []);
}

#[test]
fn a_child_is_told_to_leave_once() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.busy(FIRST);
    assert_eq!(fixture.reload([inet(25, 10)]), [close_channel(child.0)]);
    assert_eq!(fixture.reload([inet(25, 10)]), []);
    assert_eq!(fixture.step(Event::Replace { service: FIRST }), []);
}

#[test]
fn a_child_that_was_told_to_leave_is_not_counted_on() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let (pid, _) = fixture.spawn(FIRST);
    assert_eq!(
        fixture.reload([inet(25, 10)]),
        [close_channel(pid), Action::Watch(FIRST)]
    );
    assert_eq!(fixture.counts(FIRST), (0, 1));
}

#[test]
fn the_end_of_a_child_that_was_told_to_leave_throttles_nothing() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    fixture.reload([inet(25, 10)]);
    let actions = fixture.exit(child, ExitStatus::Code(1));
    assert_eq!(logged(&actions).len(), 1, "it is still talked about");
    assert!(!fixture.table.service(FIRST).unwrap().throttled());
}

#[test]
fn a_lower_limit_waits_for_children_to_leave() {
    let mut fixture = Fixture::new([unix("local", 3)]);
    let children = [(); 3].map(|()| fixture.busy(FIRST));
    fixture.reload([unix("local", 2)]);
    assert_eq!(fixture.exit(children[0], ExitStatus::Code(0)), []);
    assert_eq!(
        fixture.exit(children[1], ExitStatus::Code(0)),
        [Action::Watch(FIRST)]
    );
}

#[test]
fn a_name_for_the_same_endpoint_is_the_same_service() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let (pid, _) = fixture.busy(FIRST);
    let mut renamed = inet(25, 10);
    renamed.name = "smtp".into();
    assert_eq!(fixture.reload([renamed]), [close_channel(pid)]);
    assert_eq!(fixture.table.service(FIRST).unwrap().config().name, "smtp");
}

#[test]
fn a_removed_service_ends_at_once_and_its_children_are_told() {
    let mut fixture = Fixture::new([inet(25, 10), unix("local", 10)]);
    let (pid, _) = fixture.spawn(FIRST);
    let signal = Signal::Term;
    let actions = fixture.reload([unix("local", 10)]);
    assert_eq!(
        logged(&actions),
        ["service \"25\" (25): removed, avail 1 total 1 max 10"]
    );
    assert_eq!(
        without_logs(actions),
        [
            Action::Signal { pid, signal },
            close_channel(pid),
            Action::Close(FIRST)
        ]
    );
    assert_eq!(fixture.connect(FIRST), []);
    assert_eq!(fixture.exit((pid, 1), ExitStatus::Signal(15)), []);
    assert!(fixture.table.service(FIRST).is_none());
    assert_eq!(fixture.pass(Duration::from_secs(600)), []);
}

#[test]
fn a_removed_services_child_that_does_not_leave_is_killed() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    let pid = child.0;
    fixture.reload([]);
    assert_eq!(fixture.pass(Duration::from_secs(9)), []);
    let actions = fixture.pass(SECOND);
    assert_eq!(
        logged(&actions),
        [format!(
            "removed service \"25\" (25): process /usr/lib/postfix/sbin/smtpd pid {pid} did not \
             end in time, sending SIGKILL"
        )]
    );
    let signal = Signal::Kill;
    assert_eq!(without_logs(actions), [Action::Signal { pid, signal }]);
    assert_eq!(fixture.exit(child, ExitStatus::Signal(9)), []);
    assert_eq!(fixture.table.services().count(), 0);
}

#[test]
fn a_child_in_a_place_that_was_used_before_is_killed_once() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let former = fixture.spawn(FIRST);
    fixture.reload([]);
    fixture.exit(former, ExitStatus::Code(0));
    // All of it happens in one moment, so that the former tenant's deadline is the new one's too.
    fixture.reload([inet(26, 10)]);
    let (pid, _) = fixture.spawn(FIRST);
    fixture.reload([]);
    let actions = fixture.pass(KILL_TIME);
    let signal = Signal::Kill;
    assert_eq!(without_logs(actions), [Action::Signal { pid, signal }]);
}

#[test]
fn a_removed_service_that_comes_back_does_not_wait_for_its_former_children() {
    let mut fixture = Fixture::new([inet(25, 1)]);
    let old = fixture.busy(FIRST);
    fixture.reload([]);
    let actions = fixture.reload([inet(25, 1)]);
    assert_eq!(logged(&actions), ["service \"25\" (25): added"]);
    assert_eq!(without_logs(actions), [Action::Watch(SECOND_SERVICE)]);
    fixture.spawn(SECOND_SERVICE);
    assert_eq!(fixture.exit(old, ExitStatus::Signal(15)), []);
    assert_eq!(fixture.counts(SECOND_SERVICE), (1, 1));
}

#[test]
fn a_place_in_the_table_is_used_again() {
    let mut fixture = Fixture::new([inet(25, 1), unix("local", 1)]);
    fixture.reload([unix("local", 1)]);
    assert_eq!(
        without_logs(fixture.reload([unix("local", 1), inet(26, 1)])),
        [Action::Watch(FIRST)]
    );
    // A deadline of the former tenant is none of the new one's.
    assert_eq!(fixture.pass(Duration::from_secs(600)), []);
    assert_eq!(fixture.table.services().count(), 2);
}

#[test]
fn a_throttled_service_stays_throttled_across_a_reload() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    fixture.exit(child, ExitStatus::Code(1));
    fixture.pass(Duration::from_secs(30));
    assert_eq!(fixture.reload([inet(25, 10)]), []);
    let actions = fixture.pass(Duration::from_secs(30));
    assert_eq!(without_logs(actions), [Action::Watch(FIRST)]);
}

#[test]
fn services_are_not_told_of_one_by_one_at_the_start() {
    let mut fixture = Fixture::new([]);
    fixture.table.loaded = false;
    let actions = fixture.reload([inet(25, 10), unix("local", 10)]);
    assert_eq!(logged(&actions), [""; 0]);
    assert_eq!(logged(&fixture.reload([inet(25, 10)])).len(), 1);
}
