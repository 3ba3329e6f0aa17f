//! Children that hang in exec, children that send file descriptors, and actions that are late.

use super::ordered::{accept, filled, pool};
use super::*;

const DESCRIPTORS: &str = "sent descriptors -- ending it";

impl Fixture {
    fn hang(&mut self, pid: Pid) -> Vec<Action> {
        self.step(Event::ExecHangs { pid })
    }

    fn send_descriptors(&mut self, pid: Pid) -> Vec<Action> {
        self.step(Event::SentDescriptors { pid })
    }
}

fn signal(pid: Pid, signal: Signal) -> Action {
    Action::Signal { pid, signal }
}

#[test]
fn a_child_that_hangs_in_exec_is_killed_and_its_service_throttled() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    let pid = child.0;
    let actions = fixture.hang(pid);
    let expected = format!(
        "service \"25\" (25): /usr/lib/postfix/sbin/smtpd hangs in exec: process pid {pid} has not \
         started it within 1 s, because its file system does not answer or a program holds the \
         file; sending SIGKILL -- throttling"
    );
    let throttled = "service \"25\" (25): throttled for 60 s, avail 0 total 1 max 10";
    assert_eq!(logged(&actions), [expected.as_str(), throttled]);
    assert_eq!(
        without_logs(actions),
        [signal(pid, Signal::Kill), close_channel(pid)]
    );
    assert_eq!(fixture.hang(pid), [], "it is known");
    assert_eq!(fixture.counts(FIRST), (0, 1), "it counts until it ends");
    let actions = fixture.exit(child, ExitStatus::Signal(9));
    assert_eq!(actions, [], "its end is no further failure");
    assert_eq!(fixture.counts(FIRST), (0, 0));
    let actions = fixture.pass(THROTTLE_TIME);
    assert_eq!(without_logs(actions), [Action::Watch(FIRST)]);
}

#[test]
fn the_end_of_a_child_that_hung_says_nothing_however_it_ends() {
    for status in [ExitStatus::Code(1), ExitStatus::Signal(11)] {
        let mut fixture = Fixture::new([inet(25, 10)]);
        let child = fixture.spawn(FIRST);
        fixture.hang(child.0);
        fixture.pass(THROTTLE_TIME);
        assert_eq!(fixture.exit(child, status), []);
        let service = fixture.table.service(FIRST).unwrap();
        assert!(!service.throttled());
        assert_eq!(service.crashes(), (0, 0));
    }
}

#[test]
fn at_most_three_children_of_a_service_hang_at_a_time() {
    let mut fixture = Fixture::new([inet(25, 10), unix("local", 1)]);
    let mut children = Vec::new();
    for _ in 0..3 {
        let child = fixture.spawn(FIRST);
        children.push(child);
        let lines = logged(&fixture.hang(child.0));
        let last = lines[0].ends_with("until one that hangs has ended");
        assert_eq!(last, children.len() == 3, "{lines:?}");
        fixture.pass(THROTTLE_TIME);
    }
    assert!(!fixture.table.service(FIRST).unwrap().listening());
    assert_eq!(fixture.connect(FIRST), []);
    fixture.spawn(SECOND_SERVICE);
    assert_eq!(
        fixture.exit(children[1], ExitStatus::Signal(9)),
        [Action::Watch(FIRST)]
    );
    fixture.spawn(FIRST);
}

#[test]
fn at_most_64_children_of_all_services_hang_at_a_time() {
    let services = (0..23).map(|n| unix(&n.to_string(), 0));
    let mut fixture = Fixture::new(services);
    let mut hanging = Vec::new();
    for n in 0..64 {
        let id = ServiceId(n / 3);
        let child = fixture.spawn(id);
        fixture.hang(child.0);
        fixture.pass(THROTTLE_TIME);
        hanging.push(child);
    }
    let last = ServiceId(22);
    let actions = fixture.connect(last);
    let expected = "service \"22\" (private/22): cannot start a process: 64 processes of all \
                    services hang in exec -- throttling";
    assert_eq!(logged(&actions)[0], expected);
    assert_eq!(without_logs(actions), [Action::Unwatch(last)]);
    fixture.exit(hanging[0], ExitStatus::Signal(9));
    fixture.pass(THROTTLE_TIME);
    fixture.spawn(last);
}

#[test]
fn at_most_3_templates_of_a_service_hang_and_64_with_all_children_that_do() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    assert_eq!(fixture.table.may_load(2, 63), Ok(()));
    let why = |of_service, of_all| fixture.table.may_load(of_service, of_all).unwrap_err();
    let rest = "have not ended: no template is started before one has";
    let expected = format!("3 killed processes of this service {rest}");
    assert_eq!(why(3, 3), expected);
    let expected = format!("64 killed processes of all services {rest}");
    assert_eq!(why(2, 64), expected);
    let child = fixture.spawn(FIRST);
    fixture.hang(child.0);
    assert!(fixture.table.may_load(2, 62).is_ok());
    assert!(fixture.table.may_load(2, 63).is_err());
}

#[test]
fn a_pools_child_that_hangs_in_exec_is_not_waited_for() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([pool(1, 3)]);
    let pid = fixture.start(actions)[0];
    let actions = fixture.hang(pid);
    assert!(logged(&actions)[0].contains("hangs in exec"));
    assert_eq!(
        without_logs(actions),
        [signal(pid, Signal::Kill), close_channel(pid)]
    );
    let actions = fixture.pass(THROTTLE_TIME);
    let next = fixture.start(actions)[0];
    fixture.idle(next);
    assert!(fixture.connect(FIRST).contains(&accept(next)));
    assert_eq!(fixture.exit((pid, 0), ExitStatus::Signal(9)), []);
    assert_eq!(fixture.table.service(FIRST).unwrap().crashes(), (0, 0));
}

#[test]
fn a_removed_services_child_that_hangs_keeps_its_place() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    fixture.hang(child.0);
    fixture.reload([]);
    fixture.pass(10 * KILL_TIME);
    assert_eq!(fixture.counts(FIRST), (0, 1));
    fixture.exit(child, ExitStatus::Signal(9));
    assert_eq!(fixture.table.services().count(), 0);
    assert_eq!(fixture.table.check(), Ok(()));
}

#[test]
fn a_child_that_sends_descriptors_is_told_to_end_and_then_killed() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    let pid = child.0;
    let actions = fixture.send_descriptors(pid);
    let expected = format!("service \"25\" (25): child (pid {pid}) {DESCRIPTORS}");
    assert_eq!(logged(&actions), [expected]);
    assert_eq!(
        without_logs(actions),
        [signal(pid, Signal::Term), Action::Watch(FIRST)]
    );
    assert_eq!(fixture.pass(KILL_TIME - SECOND), []);
    let actions = fixture.pass(SECOND);
    assert!(logged(&actions)[0].ends_with("is still there, sending SIGKILL"));
    assert_eq!(without_logs(actions), [signal(pid, Signal::Kill)]);
    assert_eq!(fixture.exit(child, ExitStatus::Signal(9)), []);
}

#[test]
fn the_end_of_a_child_that_sent_descriptors_is_no_bad_startup() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    fixture.send_descriptors(child.0);
    let actions = fixture.exit(child, ExitStatus::Code(1));
    assert_eq!(logged(&actions).len(), 1, "it failed, and that is all");
    assert!(!fixture.table.service(FIRST).unwrap().throttled());
}

#[test]
fn a_pools_child_that_sends_descriptors_gets_no_more_orders() {
    let (mut fixture, pids) = filled(pool(2, 2));
    let pid = pids[0];
    let actions = fixture.send_descriptors(pid);
    assert!(logged(&actions)[0].ends_with(DESCRIPTORS));
    assert_eq!(without_logs(actions), [signal(pid, Signal::Term)]);
    fixture.served_by(pids[1]);
    let actions = fixture.pass(KILL_TIME);
    assert!(actions.contains(&signal(pid, Signal::Kill)));
    assert_eq!(
        logged(&fixture.exit((pid, 0), ExitStatus::Signal(9))),
        [""; 0]
    );
}

#[test]
fn what_is_logged_of_descriptors_is_limited_as_bad_reports_are() {
    let mut fixture = Fixture::new([inet(25, 0)]);
    let mut lines = 0;
    for _ in 0..20 {
        let child = fixture.busy(FIRST);
        let actions = fixture.send_descriptors(child.0);
        lines += logged(&actions).len();
        assert!(actions.contains(&signal(child.0, Signal::Term)));
    }
    assert_eq!(lines, 10);
}

#[test]
fn a_report_that_was_on_its_way_when_a_child_was_told_to_leave_counts() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.busy(FIRST);
    fixture.reload([inet(25, 10)]);
    // The channel is closed a little later.
    fixture.available(FIRST, child);
    assert_eq!(fixture.counts(FIRST), (0, 1), "it is not counted on");
    let service = fixture.table.service(FIRST).unwrap();
    assert_eq!((service.busy(), service.crashes()), (0, (0, 1)));
    fixture.taken(FIRST, child);
    let service = fixture.table.service(FIRST).unwrap();
    assert_eq!((service.busy(), service.stats().connections), (1, 2));
}

#[test]
fn a_child_that_was_asked_for_before_a_pause_is_told_to_leave() {
    let mut fixture = Fixture::new([unix("a", 2)]);
    fixture.connect(FIRST);
    fixture.step(Event::Pause { service: FIRST });
    let pid = 4711;
    let actions = fixture.step(Event::Spawned {
        service: FIRST,
        generation: 1,
        pid,
    });
    assert_eq!(actions, [close_channel(pid)]);
    assert_eq!(fixture.counts(FIRST), (0, 1));
}

#[test]
fn no_second_child_is_asked_for_while_the_first_is_on_its_way() {
    let mut fixture = Fixture::new([unix("a", 0)]);
    let actions = fixture.connect(FIRST);
    assert!(actions.contains(&Action::Unwatch(FIRST)), "{actions:?}");
    for _ in 0..3 {
        fixture.pass(SECOND);
        assert_eq!(fixture.connect(FIRST), []);
    }
}

#[test]
fn reports_may_wait_a_millisecond_for_each_spare_child() {
    let mut fixture = Fixture::new([unix("a", 0)]);
    let mut delays = Vec::new();
    for n in 0..7 {
        let (service, generation, pid) = (FIRST, 1, 200 + n);
        delays.push(fixture.table.report_delay(FIRST));
        fixture.step(Event::Spawned {
            service,
            generation,
            pid,
        });
    }
    let delays = delays.into_iter().map(|d| d.map(|d| d.as_millis()));
    let expected = [None, None, Some(1), Some(2), Some(3), Some(4), Some(4)];
    assert_eq!(delays.collect::<Vec<_>>(), expected);
    assert_eq!(fixture.table.report_delay(SECOND_SERVICE), None);
}

#[test]
fn a_table_is_settled_until_an_event_changes_a_service() {
    let mut fixture = Fixture::new([unix("a", 0)]);
    assert!(fixture.table.is_settled());
    let (service, generation, pid) = (FIRST, 1, 200);
    let spawned = Event::Spawned {
        service,
        generation,
        pid,
    };
    fixture
        .table
        .step(fixture.now, spawned, &mut fixture.actions);
    assert!(!fixture.table.is_settled());
    fixture.table.settle(fixture.now, &mut fixture.actions);
    assert!(fixture.table.is_settled());
}

#[test]
fn services_without_children_take_little_memory() {
    assert!(
        size_of::<Option<Service>>() <= 96,
        "{}",
        size_of::<Service>()
    );
}
