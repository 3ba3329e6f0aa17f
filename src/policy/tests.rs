//! The rules, one test each. A world is a table and what it asked for; its clock is a number.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{Endpoint, Kind, Wakeup};

const SECOND: Duration = Duration::from_secs(1);
const KILL_TIME: Duration = Duration::from_secs(10);
const THROTTLE_TIME: Duration = Duration::from_secs(60);

/// A service on a port that strangers can reach.
fn inet(port: u16, max: u32) -> config::Service {
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    config::Service {
        name: port.to_string(),
        kind: Kind::Inet,
        canonical: port.to_string(),
        endpoint: Endpoint::Inet(vec![address]),
        unprivileged: true,
        chroot: false,
        wakeup: None,
        max,
        command: "smtpd".into(),
        path: "/usr/lib/postfix/sbin/smtpd".into(),
        args: Vec::new(),
        backlog: 100,
        throttle_time: THROTTLE_TIME,
        line: 1,
    }
}

/// A service that only local programs can reach.
fn unix(name: &str, max: u32) -> config::Service {
    let canonical = format!("private/{name}");
    config::Service {
        name: name.into(),
        kind: Kind::Unix,
        endpoint: Endpoint::Path(PathBuf::from(&canonical)),
        canonical,
        ..inet(0, max)
    }
}

fn waking(service: config::Service, seconds: u64, conditional: bool) -> config::Service {
    let every = Duration::from_secs(seconds);
    config::Service {
        wakeup: Some(Wakeup { every, conditional }),
        ..service
    }
}

struct World {
    table: Table,
    now: Time,
    actions: Vec<Action>,
    next_pid: Pid,
}

impl World {
    fn new(services: impl IntoIterator<Item = config::Service>) -> Self {
        let mut world = Self {
            table: Table::new(KILL_TIME, false),
            now: SECOND,
            actions: Vec::new(),
            next_pid: 100,
        };
        world.reload(services);
        world
    }

    /// One event and the end of its turn; what the table asked for, in order.
    fn step(&mut self, event: Event) -> Vec<Action> {
        self.table.step(self.now, event, &mut self.actions);
        self.table.settle(self.now, &mut self.actions);
        self.table.check().expect("the invariants hold");
        std::mem::take(&mut self.actions)
    }

    fn reload(&mut self, services: impl IntoIterator<Item = config::Service>) -> Vec<Action> {
        let services: Vec<_> = services.into_iter().map(Arc::new).collect();
        let plan = self.table.plan(&services, KILL_TIME);
        self.step(Event::Reload(plan))
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut all = Vec::new();
        while let Some(at) = self.table.next_deadline().filter(|&at| at <= end) {
            self.now = at;
            all.extend(self.step(Event::Deadline));
        }
        self.now = end;
        all
    }

    fn connect(&mut self, service: ServiceId) -> Vec<Action> {
        self.step(Event::Connection { service })
    }

    /// A connection that the table answers with a spawn, and the child; its pid and generation.
    fn spawn(&mut self, service: ServiceId) -> (Pid, u32) {
        let actions = self.connect(service);
        let spawn = actions.iter().find_map(|action| match action {
            Action::Spawn { generation, .. } => Some(*generation),
            _ => None,
        });
        let generation = spawn.unwrap_or_else(|| panic!("no spawn in {actions:?}"));
        self.next_pid += 1;
        let pid = self.next_pid;
        self.step(Event::Spawned {
            service,
            generation,
            pid,
        });
        (pid, generation)
    }

    fn report(&mut self, service: ServiceId, child: (Pid, u32), available: i32) -> Vec<Action> {
        let (pid, generation) = child;
        self.step(Event::Report {
            service,
            writer: pid,
            report: StatusReport {
                pid,
                generation,
                available,
            },
        })
    }

    fn taken(&mut self, service: ServiceId, child: (Pid, u32)) -> Vec<Action> {
        self.report(service, child, 0)
    }

    fn available(&mut self, service: ServiceId, child: (Pid, u32)) -> Vec<Action> {
        self.report(service, child, 1)
    }

    /// A new child that is busy.
    fn busy(&mut self, service: ServiceId) -> (Pid, u32) {
        let child = self.spawn(service);
        self.taken(service, child);
        child
    }

    fn exit(&mut self, child: (Pid, u32), status: ExitStatus) -> Vec<Action> {
        let (pid, _) = child;
        self.step(Event::Exit { pid, status })
    }

    fn counts(&self, id: ServiceId) -> (u32, u32) {
        let service = self.table.service(id).expect("a service");
        (service.avail(), service.total())
    }
}

const FIRST: ServiceId = ServiceId(0);
const SECOND_SERVICE: ServiceId = ServiceId(1);

fn logged(actions: &[Action]) -> Vec<String> {
    let records = actions.iter().filter_map(|action| match action {
        Action::Log(record) => Some(record.to_string()),
        _ => None,
    });
    records.collect()
}

fn without_logs(actions: Vec<Action>) -> Vec<Action> {
    let wanted = |action: &Action| !matches!(action, Action::Log(_));
    actions.into_iter().filter(wanted).collect()
}

// Who listens.

#[test]
fn a_service_without_children_is_watched() {
    let mut world = World::new([]);
    let actions = world.reload([inet(25, 10)]);
    assert_eq!(actions, [Action::Watch(FIRST)]);
}

#[test]
fn a_connection_starts_a_child_which_then_listens_itself() {
    let mut world = World::new([inet(25, 10)]);
    let actions = world.connect(FIRST);
    let generation = 1;
    let stress = false;
    let service = FIRST;
    let spawn = Action::Spawn {
        service,
        generation,
        stress,
    };
    assert_eq!(actions, [spawn, Action::Unwatch(FIRST)]);
    let pid = 4711;
    let spawned = Event::Spawned {
        service,
        generation,
        pid,
    };
    assert_eq!(world.step(spawned), []);
    assert_eq!(world.counts(FIRST), (1, 1));
    assert_eq!(world.table.service_of(pid), Some(FIRST));
}

#[test]
fn a_second_connection_in_the_same_turn_starts_no_second_child() {
    let mut world = World::new([inet(25, 10)]);
    world.connect(FIRST);
    assert_eq!(world.connect(FIRST), []);
}

#[test]
fn a_busy_child_leaves_the_listener_to_the_master_and_an_idle_one_takes_it_back() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
    assert_eq!(world.taken(FIRST, child), [Action::Watch(FIRST)]);
    assert_eq!(world.counts(FIRST), (0, 1));
    assert_eq!(world.available(FIRST, child), [Action::Unwatch(FIRST)]);
    assert_eq!(world.counts(FIRST), (1, 1));
}

#[test]
fn one_available_child_of_many_is_enough() {
    let mut world = World::new([inet(25, 10)]);
    let first = world.busy(FIRST);
    let second = world.busy(FIRST);
    assert_eq!(world.available(FIRST, first), [Action::Unwatch(FIRST)]);
    assert_eq!(world.available(FIRST, second), []);
    assert_eq!(world.taken(FIRST, first), []);
    assert_eq!(world.taken(FIRST, second), [Action::Watch(FIRST)]);
}

#[test]
fn interest_is_reconciled_once_a_turn() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
    let (pid, generation) = child;
    let mut actions = Vec::new();
    for available in [0, 1, 0, 1, 0] {
        let report = StatusReport {
            pid,
            generation,
            available,
        };
        let event = Event::Report {
            service: FIRST,
            writer: pid,
            report,
        };
        world.table.step(world.now, event, &mut actions);
    }
    assert_eq!(actions, []);
    world.table.settle(world.now, &mut actions);
    assert_eq!(actions, [Action::Watch(FIRST)]);
}

#[test]
fn at_the_limit_nobody_is_watched_until_a_child_leaves() {
    let mut world = World::new([unix("local", 2)]);
    let first = world.busy(FIRST);
    let second = world.spawn(FIRST);
    assert_eq!(world.taken(FIRST, second), []);
    assert_eq!(world.connect(FIRST), []);
    assert_eq!(
        world.exit(first, ExitStatus::Code(0)),
        [Action::Watch(FIRST)]
    );
}

#[test]
fn a_limit_of_zero_is_none() {
    let mut world = World::new([unix("cleanup", 0)]);
    for _ in 0..500 {
        world.busy(FIRST);
    }
    assert_eq!(world.counts(FIRST), (0, 500));
    assert!(world.table.service(FIRST).unwrap().listening());
}

// The limit and stress.

#[test]
fn the_limit_is_warned_about_at_most_once_in_1000_seconds() {
    let mut world = World::new([inet(25, 1)]);
    let mut max_two = inet(25, 2);
    max_two.line = 2;
    world.reload([max_two]);
    let warnings = |actions: &[Action]| {
        let lines = logged(actions);
        let warnings = lines
            .iter()
            .filter(|l| l.contains("process limit \"2\": new"));
        warnings.count()
    };
    world.busy(FIRST);
    let second = world.spawn(FIRST);
    assert_eq!(warnings(&world.taken(FIRST, second)), 1);
    for _ in 0..10 {
        world.now += Duration::from_secs(99);
        world.available(FIRST, second);
        assert_eq!(warnings(&world.taken(FIRST, second)), 0);
    }
    world.now += Duration::from_secs(11);
    world.available(FIRST, second);
    assert_eq!(warnings(&world.taken(FIRST, second)), 1);
}

#[test]
fn the_limit_of_a_service_without_strangers_is_not_warned_about() {
    let mut world = World::new([unix("local", 1)]);
    let child = world.spawn(FIRST);
    assert_eq!(world.taken(FIRST, child), []);
}

#[test]
fn reaching_for_the_last_place_begins_stress_mode() {
    let mut world = World::new([inet(25, 2)]);
    let calm = world.spawn(FIRST);
    world.taken(FIRST, calm);
    let actions = world.connect(FIRST);
    let begins = "service \"25\" (25): stress mode begins: the last process that the limit \"2\" allows is \
                  started";
    assert_eq!(logged(&actions), [begins]);
    let stressed = Action::Spawn {
        service: FIRST,
        generation: 2,
        stress: true,
    };
    assert_eq!(
        without_logs(actions),
        [Action::RenewStatus(FIRST), stressed, Action::Unwatch(FIRST)]
    );
}

#[test]
fn children_told_to_leave_by_stress_still_count_against_the_limit() {
    let mut world = World::new([inet(25, 2)]);
    let calm = world.busy(FIRST);
    let stressed = world.spawn(FIRST);
    world.taken(FIRST, stressed);
    assert_eq!(world.counts(FIRST), (0, 2));
    // The channel is another by now: what the old child says does not arrive, and is not believed.
    assert_eq!(world.available(FIRST, calm), []);
    assert_eq!(
        world.exit(calm, ExitStatus::Code(0)),
        [Action::Watch(FIRST)]
    );
}

#[test]
fn stress_mode_ends_1000_seconds_after_the_limit_was_last_in_reach() {
    let mut world = World::new([inet(25, 2)]);
    world.busy(FIRST);
    let mut last = world.busy(FIRST);
    for _ in 0..3 {
        assert_eq!(world.pass(Duration::from_secs(600)), []);
        world.exit(last, ExitStatus::Code(0));
        // The limit is in reach again, and stress mode goes on without beginning anew.
        let actions = world.connect(FIRST);
        assert_eq!(logged(&actions), [] as [&str; 0]);
        world.next_pid += 1;
        let (pid, generation) = (world.next_pid, world.table.generation);
        world.step(Event::Spawned {
            service: FIRST,
            generation,
            pid,
        });
        last = (pid, generation);
    }
    assert_eq!(world.pass(Duration::from_secs(999)), []);
    assert!(world.table.service(FIRST).unwrap().stressed(world.now));
    let ended = world.pass(SECOND);
    assert_eq!(logged(&ended), ["service \"25\" (25): stress mode ends"]);
    assert!(!world.table.service(FIRST).unwrap().stressed(world.now));
}

#[test]
fn a_service_that_strangers_cannot_reach_knows_no_stress() {
    let mut world = World::new([unix("local", 1)]);
    let actions = world.connect(FIRST);
    let calm = Action::Spawn {
        service: FIRST,
        generation: 1,
        stress: false,
    };
    assert_eq!(actions, [calm, Action::Unwatch(FIRST)]);
}

// Reports.

#[test]
fn reports_that_do_not_fit_change_nothing() {
    let mut world = World::new([inet(25, 10), unix("local", 10)]);
    let child = world.spawn(FIRST);
    let other = world.spawn(SECOND_SERVICE);
    let (pid, generation) = child;
    let report = |pid, generation, available| StatusReport {
        pid,
        generation,
        available,
    };
    let cases = [
        // From another process, in the child's name.
        (FIRST, other.0, report(pid, generation, 0)),
        (SECOND_SERVICE, other.0, report(pid, generation, 0)),
        // Through another service's channel.
        (SECOND_SERVICE, pid, report(pid, generation, 0)),
        // Of another generation.
        (FIRST, pid, report(pid, generation + 1, 0)),
        // Neither taken nor available.
        (FIRST, pid, report(pid, generation, 2)),
        (FIRST, pid, report(pid, generation, -1)),
        // Of nobody.
        (FIRST, 9999, report(9999, generation, 0)),
        (FIRST, pid, report(0, 0, 0)),
        (FIRST, 0, report(pid, generation, 0)),
    ];
    for (service, writer, report) in cases {
        let event = Event::Report {
            service,
            writer,
            report,
        };
        let what = format!("{event:?}");
        let actions = without_logs(world.step(event));
        assert_eq!(actions, [], "{what}");
        assert_eq!(world.counts(FIRST), (1, 1), "{what}");
        assert_eq!(world.counts(SECOND_SERVICE), (1, 1), "{what}");
    }
}

#[test]
fn a_repeated_report_counts_once() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
    assert_eq!(world.available(FIRST, child), []);
    world.taken(FIRST, child);
    assert_eq!(world.taken(FIRST, child), []);
    assert_eq!(world.counts(FIRST), (0, 1));
}

#[test]
fn a_broken_channel_is_replaced_and_its_children_leave() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
    let service = FIRST;
    let reason = "broken".into();
    let actions = world.step(Event::StatusFailed { service, reason });
    assert_eq!(
        logged(&actions),
        ["service \"25\" (25): status channel failed: broken -- replacing it"]
    );
    assert_eq!(
        without_logs(actions),
        [Action::RenewStatus(FIRST), Action::Watch(FIRST)]
    );
    assert_eq!(world.exit(child, ExitStatus::Code(0)), []);
}

#[test]
fn a_confused_child_fills_no_log() {
    let mut world = World::new([inet(25, 10)]);
    let (pid, _) = world.spawn(FIRST);
    let garbage = || Event::Garbage {
        service: FIRST,
        writer: pid,
        length: 5,
    };
    let lines = (0..1000).flat_map(|_| logged(&world.step(garbage())));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 10);
    let expected =
        format!("service \"25\" (25): child (pid {pid}) sent partial status update (5 bytes)");
    assert_eq!(lines[0], expected);
    world.now += Duration::from_secs(60);
    let lines = logged(&world.step(garbage()));
    let suppressed = "service \"25\" (25): 990 more bad status updates were not logged";
    assert_eq!(lines, [expected, suppressed.to_owned()]);
}

// Ends, and throttling.

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
        ]
    );
    assert_eq!(without_logs(actions), []);
    assert_eq!(world.connect(FIRST), []);
    assert_eq!(world.pass(Duration::from_secs(59)), []);
    assert_eq!(world.pass(SECOND), [Action::Watch(FIRST)]);
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
    assert_eq!(world.pass(THROTTLE_TIME), [Action::Watch(FIRST)]);
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
    assert_eq!(world.pass(THROTTLE_TIME), [Action::Watch(FIRST)]);
}

#[test]
fn a_process_that_is_not_ours_is_ignored() {
    let mut world = World::new([inet(25, 10)]);
    let stranger = (31_415, 0);
    assert_eq!(world.exit(stranger, ExitStatus::Signal(9)), []);
}

// Wake-ups.

#[test]
fn a_service_is_woken_at_the_start_and_then_in_every_period() {
    let mut world = World::new([]);
    let actions = world.reload([waking(unix("pickup", 1), 60, false)]);
    assert_eq!(actions, [Action::Wake(FIRST), Action::Watch(FIRST)]);
    assert_eq!(world.pass(Duration::from_secs(59)), []);
    assert_eq!(world.pass(SECOND), [Action::Wake(FIRST)]);
    assert_eq!(world.pass(Duration::from_secs(60)), [Action::Wake(FIRST)]);
}

#[test]
fn a_conditional_wakeup_waits_for_the_first_use() {
    let mut world = World::new([waking(unix("flush", 1), 60, true)]);
    assert_eq!(world.pass(Duration::from_secs(600)), []);
    world.connect(FIRST);
    let generation = 1;
    let pid = 4711;
    let service = FIRST;
    let spawned = Event::Spawned {
        service,
        generation,
        pid,
    };
    assert_eq!(world.step(spawned), [Action::Wake(FIRST)]);
    assert_eq!(world.pass(Duration::from_secs(60)), [Action::Wake(FIRST)]);
}

#[test]
fn a_throttled_service_is_not_woken() {
    let mut world = World::new([waking(unix("pickup", 1), 50, false)]);
    let child = world.spawn(FIRST);
    world.exit(child, ExitStatus::Code(1));
    // Throttled until 60, woken at 50 and 100.
    assert_eq!(world.pass(Duration::from_secs(59)), []);
    assert_eq!(
        world.pass(Duration::from_secs(50)),
        [Action::Watch(FIRST), Action::Wake(FIRST)]
    );
}

#[test]
fn a_reload_begins_the_wakeups_anew() {
    let mut world = World::new([waking(unix("pickup", 1), 60, false)]);
    world.pass(Duration::from_secs(40));
    let actions = world.reload([waking(unix("pickup", 1), 60, false)]);
    assert_eq!(actions, [Action::RenewStatus(FIRST), Action::Wake(FIRST)]);
    assert_eq!(world.pass(Duration::from_secs(59)), []);
    assert_eq!(world.pass(SECOND), [Action::Wake(FIRST)]);
}

#[test]
fn a_reload_can_end_the_wakeups() {
    let mut world = World::new([waking(unix("pickup", 1), 60, false)]);
    world.reload([unix("pickup", 1)]);
    assert_eq!(world.pass(Duration::from_secs(600)), []);
    assert_eq!(world.table.next_deadline(), None);
}

// Reloads.

#[test]
fn a_reload_keeps_children_and_tells_them_to_leave() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.busy(FIRST);
    let actions = world.reload([inet(25, 20)]);
    assert_eq!(actions, [Action::RenewStatus(FIRST)]);
    assert_eq!(world.counts(FIRST), (0, 1));
    assert_eq!(world.exit(child, ExitStatus::Code(0)), []);
}

#[test]
fn a_child_that_was_told_to_leave_is_not_counted_on() {
    let mut world = World::new([inet(25, 10)]);
    world.spawn(FIRST);
    assert_eq!(
        world.reload([inet(25, 10)]),
        [Action::RenewStatus(FIRST), Action::Watch(FIRST)]
    );
    assert_eq!(world.counts(FIRST), (0, 1));
}

#[test]
fn the_end_of_a_child_that_was_told_to_leave_throttles_nothing() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
    world.reload([inet(25, 10)]);
    let actions = world.exit(child, ExitStatus::Code(1));
    assert_eq!(logged(&actions).len(), 1, "it is still talked about");
    assert!(!world.table.service(FIRST).unwrap().throttled());
}

#[test]
fn a_lower_limit_waits_for_children_to_leave() {
    let mut world = World::new([unix("local", 3)]);
    let children = [(); 3].map(|()| world.busy(FIRST));
    world.reload([unix("local", 2)]);
    assert_eq!(world.exit(children[0], ExitStatus::Code(0)), []);
    assert_eq!(
        world.exit(children[1], ExitStatus::Code(0)),
        [Action::Watch(FIRST)]
    );
}

#[test]
fn a_name_for_the_same_endpoint_is_the_same_service() {
    let mut world = World::new([inet(25, 10)]);
    world.busy(FIRST);
    let mut renamed = inet(25, 10);
    renamed.name = "smtp".into();
    assert_eq!(world.reload([renamed]), [Action::RenewStatus(FIRST)]);
    assert_eq!(world.table.service(FIRST).unwrap().config().name, "smtp");
}

#[test]
fn a_removed_service_ends_at_once_and_its_children_are_told() {
    let mut world = World::new([inet(25, 10), unix("local", 10)]);
    let (pid, _) = world.spawn(FIRST);
    let signal = Signal::Term;
    assert_eq!(
        world.reload([unix("local", 10)]),
        [
            Action::RenewStatus(SECOND_SERVICE),
            Action::Signal { pid, signal },
            Action::Close(FIRST)
        ]
    );
    assert_eq!(world.connect(FIRST), []);
    assert_eq!(world.exit((pid, 1), ExitStatus::Signal(15)), []);
    assert!(world.table.service(FIRST).is_none());
    assert_eq!(world.pass(Duration::from_secs(600)), []);
}

#[test]
fn a_removed_services_child_that_does_not_leave_is_killed() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
    let pid = child.0;
    world.reload([]);
    assert_eq!(world.pass(Duration::from_secs(9)), []);
    let actions = world.pass(SECOND);
    assert_eq!(
        logged(&actions),
        [format!(
            "removed service \"25\" (25): process /usr/lib/postfix/sbin/smtpd pid {pid} did not \
             end in time, sending SIGKILL"
        )]
    );
    let signal = Signal::Kill;
    assert_eq!(without_logs(actions), [Action::Signal { pid, signal }]);
    assert_eq!(world.exit(child, ExitStatus::Signal(9)), []);
    assert_eq!(world.table.services().count(), 0);
}

#[test]
fn a_removed_service_that_comes_back_does_not_wait_for_its_former_children() {
    let mut world = World::new([inet(25, 1)]);
    let old = world.busy(FIRST);
    world.reload([]);
    assert_eq!(world.reload([inet(25, 1)]), [Action::Watch(SECOND_SERVICE)]);
    world.spawn(SECOND_SERVICE);
    assert_eq!(world.exit(old, ExitStatus::Signal(15)), []);
    assert_eq!(world.counts(SECOND_SERVICE), (1, 1));
}

#[test]
fn a_place_in_the_table_is_used_again() {
    let mut world = World::new([inet(25, 1), unix("local", 1)]);
    world.reload([unix("local", 1)]);
    assert_eq!(
        world.reload([unix("local", 1), inet(26, 1)]),
        [Action::RenewStatus(SECOND_SERVICE), Action::Watch(FIRST)]
    );
    // A deadline of the former tenant is none of the new one's.
    assert_eq!(world.pass(Duration::from_secs(600)), []);
    assert_eq!(world.table.services().count(), 2);
}

#[test]
fn a_throttled_service_stays_throttled_across_a_reload() {
    let mut world = World::new([inet(25, 10)]);
    let child = world.spawn(FIRST);
    world.exit(child, ExitStatus::Code(1));
    world.pass(Duration::from_secs(30));
    assert_eq!(world.reload([inet(25, 10)]), [Action::RenewStatus(FIRST)]);
    assert_eq!(world.pass(Duration::from_secs(30)), [Action::Watch(FIRST)]);
}

// The table itself.

#[test]
fn ending_is_said_before_it_is_done() {
    let mut world = World::new([inet(25, 10)]);
    let signal = 15;
    assert_eq!(
        world.step(Event::Stop { signal }),
        [
            Action::Log(Record::Terminating { signal }),
            Action::Terminate { signal }
        ]
    );
}

#[test]
fn a_verbose_table_says_what_it_does() {
    let mut world = World::new([]);
    world.table.verbose = true;
    let actions = world.reload([waking(inet(25, 10), 60, false)]);
    assert_eq!(
        logged(&actions),
        [
            "service \"25\" (25): waking up",
            "service \"25\" (25): avail 0 total 0 max 10"
        ]
    );
}

#[test]
fn cancelled_deadlines_do_not_pile_up() {
    let mut world = World::new([]);
    for _ in 0..2000 {
        world.now += Duration::from_millis(1);
        world.reload((0..10).map(|n| waking(unix(&n.to_string(), 1), 60, false)));
        world.table.next_deadline();
    }
    assert!(world.table.timers.len() < 5000);
}

#[test]
fn children_of_one_service_come_and_go_in_any_order() {
    let mut world = World::new([unix("local", 0)]);
    let mut children: Vec<_> = (0..50).map(|_| world.busy(FIRST)).collect();
    // A fixed shuffle: every seventh, until none is left.
    let mut at = 0;
    while !children.is_empty() {
        at = (at + 7) % children.len();
        let child = children.remove(at);
        world.exit(child, ExitStatus::Code(0));
        assert_eq!(world.counts(FIRST), (0, children.len() as u32));
    }
}
