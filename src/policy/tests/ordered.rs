//! Pools whose children accept when they are told to.

use super::*;
use crate::policy::pool::ordered::ORDER_TIMEOUT;

/// An ordered pool that starts with `floor` children, of `max` at most.
pub(super) fn pool(floor: u32, max: u32) -> config::Service {
    config::Service {
        extra: with_pool(Pool {
            max_idle: floor,
            ..Pool::ordered()
        }),
        ..inet(783, max)
    }
}

pub(super) fn accept(pid: Pid) -> Action {
    let order = Order::Accept;
    Action::Order { pid, order }
}

/// What a child is told that is to end.
pub(super) fn ending(pid: Pid) -> [Action; 2] {
    let signal = Signal::Int;
    [Action::Signal { pid, signal }, Action::CloseChannel { pid }]
}

impl Fixture {
    /// Carries out what the table asked for, spawns among it, and what it asks for then; the pids
    /// of the new children.
    pub(super) fn start(&mut self, actions: Vec<Action>) -> Vec<Pid> {
        let mut pids = Vec::new();
        let mut actions = actions;
        while let Some((service, generation)) = actions.iter().find_map(|action| match action {
            Action::Spawn {
                service,
                generation,
                ..
            } => Some((*service, *generation)),
            _ => None,
        }) {
            self.next_pid += 1;
            let pid = self.next_pid;
            pids.push(pid);
            actions = self.step(Event::Spawned {
                service,
                generation,
                pid,
            });
        }
        pids
    }

    pub(super) fn idle(&mut self, pid: Pid) -> Vec<Action> {
        let report = Report::Idle;
        self.step(Event::PoolReport { pid, report })
    }

    pub(super) fn now_busy(&mut self, pid: Pid) -> Vec<Action> {
        let report = Report::Busy;
        self.step(Event::PoolReport { pid, report })
    }

    /// A connection is given to this child, which takes it.
    pub(super) fn served_by(&mut self, pid: Pid) {
        let actions = self.connect(FIRST);
        assert!(actions.contains(&accept(pid)), "{actions:?}");
        self.now_busy(pid);
    }

    pub(super) fn state(&self, pid: Pid) -> State {
        self.table.state_of(pid).expect("a child of a pool")
    }

    /// The children of the first service that are starting.
    pub(super) fn starting(&self) -> Vec<Pid> {
        let mut pids: Vec<_> = self.table.pids().collect();
        pids.retain(|&pid| self.state(pid) == State::Starting);
        pids.sort_unstable();
        pids
    }
}

/// A fixture with one pool that has been filled, and its idle children by pid.
pub(super) fn filled(service: config::Service) -> (Fixture, Vec<Pid>) {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([service]);
    let pids = fixture.start(actions);
    for &pid in &pids {
        fixture.idle(pid);
    }
    (fixture, pids)
}

#[test]
fn a_new_pool_is_filled_at_once() {
    let (fixture, pids) = filled(pool(3, 5));
    assert_eq!(pids.len(), 3);
    assert_eq!(fixture.counts(FIRST), (3, 3));
}

/// It has a channel of its own; a status report in its name is another service's mistake.
#[test]
fn a_status_report_of_a_pools_child_changes_nothing() {
    let (mut fixture, pids) = filled(pool(1, 1));
    let service = fixture.table.service(FIRST).expect("the pool");
    let generation = service.children_info()[0].generation;
    assert_eq!(fixture.taken(FIRST, (pids[0], generation)), []);
    assert_eq!(fixture.state(pids[0]), State::Idle);
}

#[test]
fn a_connection_goes_to_the_idle_child_with_the_lowest_pid() {
    let (mut fixture, pids) = filled(pool(3, 3));
    fixture.served_by(pids[0]);
    fixture.served_by(pids[1]);
    fixture.idle(pids[0]);
    fixture.served_by(pids[0]);
}

#[test]
fn an_order_holds_the_next_one_back_until_it_is_answered() {
    let (mut fixture, pids) = filled(pool(2, 2));
    let actions = fixture.connect(FIRST);
    assert_eq!(actions, [accept(pids[0]), Action::Unwatch(FIRST)]);
    assert_eq!(fixture.connect(FIRST), []);
    assert_eq!(fixture.now_busy(pids[0]), [Action::Watch(FIRST)]);
    assert_eq!(fixture.state(pids[0]), State::Busy);
}

#[test]
fn as_many_children_are_ordered_as_clients_wait() {
    let (mut fixture, pids) = filled(pool(4, 4));
    let clients = |clients| Event::Connection {
        service: FIRST,
        clients,
    };
    let actions = fixture.step(clients(2));
    assert_eq!(
        actions,
        [accept(pids[0]), accept(pids[1]), Action::Unwatch(FIRST)]
    );
    assert_eq!(fixture.now_busy(pids[1]), [Action::Watch(FIRST)]);
    // Those who wait now are the one that the other order stands for, and a new one.
    let actions = fixture.step(clients(2));
    assert_eq!(actions, [accept(pids[2]), Action::Unwatch(FIRST)]);
    fixture.now_busy(pids[0]);
    let actions = fixture.step(clients(5));
    assert_eq!(
        without_logs(actions),
        [accept(pids[3]), Action::Unwatch(FIRST)]
    );
    fixture.now_busy(pids[3]);
    assert_eq!(fixture.idle(pids[3]), [accept(pids[3])], "somebody is left");
}

#[test]
fn a_stuck_child_holds_others_back_no_longer_than_patience_lasts() {
    let (mut fixture, pids) = filled(pool(2, 2));
    fixture.connect(FIRST);
    assert_eq!(fixture.pass(ORDER_TIMEOUT), [Action::Watch(FIRST)]);
    assert_eq!(fixture.state(pids[0]), State::Ordered);
    fixture.served_by(pids[1]);
}

#[test]
fn a_slow_child_may_answer_late() {
    let (mut fixture, pids) = filled(pool(2, 2));
    fixture.connect(FIRST);
    fixture.pass(SECOND);
    fixture.served_by(pids[1]);
    fixture.now_busy(pids[0]);
    fixture.idle(pids[0]);
    assert_eq!(fixture.state(pids[0]), State::Idle);
    let later = fixture.pass(2 * Pool::REPLY_TIMEOUT);
    assert!(logged(&later).is_empty(), "{later:?}");
}

#[test]
fn without_an_idle_child_nobody_watches_and_the_first_that_turns_idle_is_ordered() {
    let (mut fixture, pids) = filled(pool(1, 1));
    fixture.served_by(pids[0]);
    let actions = without_logs(fixture.connect(FIRST));
    assert_eq!(actions, [Action::Unwatch(FIRST)]);
    assert_eq!(fixture.idle(pids[0]), [accept(pids[0])]);
    assert_eq!(fixture.now_busy(pids[0]), [Action::Watch(FIRST)]);
}

#[test]
fn idle_children_serve_also_while_the_service_is_throttled() {
    let (mut fixture, pids) = filled(pool(2, 3));
    fixture.connect(FIRST);
    let failed = fixture.exit((pids[0], 0), ExitStatus::Code(1));
    assert!(logged(&failed)[1].ends_with("bad command startup -- throttling"));
    fixture.served_by(pids[1]);
}

#[test]
fn a_child_that_ends_with_an_order_leaves_the_client_to_another() {
    let (mut fixture, pids) = filled(pool(2, 2));
    fixture.connect(FIRST);
    let pid = pids[0];
    let actions = fixture.step(Event::ChannelClosed { pid });
    assert_eq!(
        actions,
        [Action::CloseChannel { pid }, Action::Watch(FIRST)]
    );
    fixture.served_by(pids[1]);
}

#[test]
fn a_child_that_cannot_be_written_to_is_ended_and_the_client_goes_to_another() {
    let (mut fixture, pids) = filled(pool(2, 2));
    fixture.connect(FIRST);
    let (pid, failure) = (pids[0], OrderFailure::System(Errno(32)));
    let actions = fixture.step(Event::OrderFailed { pid, failure });
    assert_eq!(
        logged(&actions),
        [
            "service \"783\" (783): ending rogue process /usr/lib/postfix/sbin/smtpd pid 101: \
          it cannot be written to: Broken pipe"
        ]
    );
    let [signal, hang_up] = ending(pid);
    let expected = [signal, hang_up, Action::Watch(FIRST)];
    assert_eq!(without_logs(actions), expected);
    fixture.served_by(pids[1]);
}

#[test]
fn a_child_that_answers_out_of_turn_is_ended() {
    for (before, report) in [
        (State::Starting, Report::Busy),
        (State::Idle, Report::Busy),
        (State::Ordered, Report::Idle),
    ] {
        let mut fixture = Fixture::new([]);
        let actions = fixture.reload([pool(1, 1)]);
        let pid = fixture.start(actions)[0];
        if before != State::Starting {
            fixture.idle(pid);
        }
        if before == State::Ordered {
            fixture.connect(FIRST);
        }
        assert_eq!(fixture.state(pid), before);
        let actions = fixture.step(Event::PoolReport { pid, report });
        assert!(logged(&actions)[0].contains("out of turn"), "{actions:?}");
        assert_eq!(fixture.state(pid), State::Killed, "{before:?}, {report:?}");
    }
}

#[test]
fn a_report_that_comes_twice_is_no_harm() {
    let (mut fixture, pids) = filled(pool(1, 1));
    assert_eq!(fixture.idle(pids[0]), []);
    fixture.served_by(pids[0]);
    assert_eq!(fixture.now_busy(pids[0]), []);
    assert_eq!(fixture.state(pids[0]), State::Busy);
}

#[test]
fn a_child_that_sends_an_unknown_message_is_ended() {
    let (mut fixture, pids) = filled(pool(1, 1));
    let (pid, letter) = (pids[0], b'\n');
    let actions = fixture.step(Event::PoolGarbage { pid, letter });
    let line = &logged(&actions)[0];
    assert!(
        line.ends_with("it sent an unknown message (it begins with \"\\n\")"),
        "{line}"
    );
    assert_eq!(without_logs(actions), ending(pid));
}

#[test]
fn a_child_that_is_silent_after_an_order_is_ended_after_the_reply_timeout() {
    let (mut fixture, pids) = filled(pool(1, 1));
    fixture.connect(FIRST);
    let before = fixture.pass(Pool::REPLY_TIMEOUT - Duration::from_millis(1));
    assert!(logged(&before).is_empty(), "{before:?}");
    let actions = fixture.pass(Duration::from_millis(1));
    let line = &logged(&actions)[0];
    assert!(
        line.ends_with("it did not answer an order within 300 s"),
        "{line}"
    );
    assert_eq!(fixture.state(pids[0]), State::Killed);
}

#[test]
fn a_child_that_is_not_ready_after_300_seconds_is_ended_and_throttles_its_service() {
    let mut fixture = Fixture::new([]);
    let mut impatient = pool(1, 1);
    impatient.extra.get_or_insert_default().pool.reply_timeout = Duration::from_secs(1);
    let actions = fixture.reload([impatient]);
    let pid = fixture.start(actions)[0];
    let actions = fixture.pass(Duration::from_secs(299));
    assert!(logged(&actions).is_empty(), "{actions:?}");
    let actions = fixture.pass(Duration::from_secs(1));
    let line = &logged(&actions)[0];
    assert!(line.ends_with("it was not ready within 300 s"), "{line}");
    let actions = fixture.exit((pid, 0), ExitStatus::Signal(2));
    assert!(logged(&actions)[1].ends_with("bad command startup -- throttling"));
    let actions = fixture.pass(THROTTLE_TIME);
    assert_eq!(fixture.start(actions).len(), 1);
}

#[test]
fn a_child_that_closes_its_channel_before_it_was_ready_and_lives_on_throttles_its_service() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([pool(1, 1)]);
    let pid = fixture.start(actions)[0];
    fixture.step(Event::ChannelClosed { pid });
    fixture.pass(KILL_TIME);
    let actions = fixture.exit((pid, 0), ExitStatus::Signal(9));
    assert!(logged(&actions)[1].ends_with("bad command startup -- throttling"));
}

/// Everything for which a child of a pool is ended, whatever it does.
fn faults(pid: Pid) -> [Event; 4] {
    let report = Report::Busy;
    let failure = OrderFailure::NotRead;
    [
        Event::PoolGarbage { pid, letter: b'X' },
        Event::PoolReport { pid, report },
        Event::OrderFailed { pid, failure },
        Event::SentDescriptors { pid },
    ]
}

#[test]
fn a_child_that_is_ended_before_it_was_ready_throttles_its_service_however_it_ends() {
    let ends = [2, 15, 9].map(ExitStatus::Signal);
    for status in ends.into_iter().chain([ExitStatus::Code(0)]) {
        for nth in 0..4 {
            let mut fixture = Fixture::new([]);
            let actions = fixture.reload([pool(1, 1)]);
            let pid = fixture.start(actions)[0];
            let fault = faults(pid).into_iter().nth(nth).unwrap();
            fixture.step(fault);
            assert_eq!(fixture.state(pid), State::Killed);
            if status == ExitStatus::Signal(9) {
                fixture.pass(KILL_TIME);
            }
            let actions = fixture.exit((pid, 0), status);
            assert!(
                logged(&actions)[1].ends_with("bad command startup -- throttling"),
                "{actions:?}"
            );
            assert_eq!(fixture.pass(THROTTLE_TIME - SECOND), []);
            let again = fixture.pass(SECOND);
            assert_eq!(fixture.start(again).len(), 1, "another one is started");
        }
    }
}

#[test]
fn a_child_that_is_ended_with_its_first_order_throttles_its_service() {
    for taken in [false, true] {
        let (mut fixture, pids) = filled(pool(1, 1));
        let (pid, letter) = (pids[0], b'X');
        fixture.connect(FIRST);
        if taken {
            fixture.now_busy(pid);
        }
        fixture.step(Event::PoolGarbage { pid, letter });
        let actions = fixture.exit((pid, 0), ExitStatus::Signal(2));
        assert!(logged(&actions)[1].ends_with("bad command startup -- throttling"));
    }
}

#[test]
fn a_child_that_is_ended_after_it_has_served_or_while_it_is_idle_throttles_nothing() {
    for served in [false, true] {
        let (mut fixture, pids) = filled(pool(1, 1));
        let (pid, letter) = (pids[0], b'X');
        if served {
            fixture.served_by(pid);
            fixture.idle(pid);
            fixture.connect(FIRST);
        }
        fixture.step(Event::PoolGarbage { pid, letter });
        let actions = fixture.exit((pid, 0), ExitStatus::Signal(2));
        assert!(logged(&actions).is_empty(), "{actions:?}");
    }
}

#[test]
fn a_child_from_before_a_reload_that_is_ended_before_it_was_ready_throttles_nothing() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([pool(1, 1)]);
    let pid = fixture.start(actions)[0];
    fixture.reload([pool(1, 1)]);
    let letter = b'X';
    fixture.step(Event::PoolGarbage { pid, letter });
    let actions = fixture.exit((pid, 0), ExitStatus::Signal(2));
    assert!(logged(&actions).is_empty(), "{actions:?}");
}

#[test]
fn the_end_of_a_removed_pools_child_that_was_not_ready_is_not_logged() {
    for status in [ExitStatus::Signal(15), ExitStatus::Code(0)] {
        let mut fixture = Fixture::new([]);
        let actions = fixture.reload([pool(1, 1)]);
        let pid = fixture.start(actions)[0];
        fixture.reload([]);
        let actions = fixture.exit((pid, 0), status);
        assert!(logged(&actions).is_empty(), "{actions:?}");
    }
}

#[test]
fn a_rogue_that_does_not_end_is_killed_after_service_kill_time() {
    let (mut fixture, pids) = filled(pool(1, 1));
    let (pid, letter) = (pids[0], b'X');
    fixture.step(Event::PoolGarbage { pid, letter });
    let actions = fixture.pass(KILL_TIME);
    let signal = Signal::Kill;
    assert!(
        actions.contains(&Action::Signal { pid, signal }),
        "{actions:?}"
    );
    assert!(logged(&actions)[0].ends_with("is still there, sending SIGKILL"));
    let quiet = fixture.exit((pid, 0), ExitStatus::Signal(9));
    assert!(logged(&quiet).is_empty(), "{quiet:?}");
}

#[test]
fn a_child_that_closes_its_channel_and_lives_on_is_killed() {
    let (mut fixture, pids) = filled(pool(1, 1));
    let pid = pids[0];
    fixture.step(Event::ChannelClosed { pid });
    assert_eq!(fixture.counts(FIRST).0, 0);
    let signal = Signal::Kill;
    assert!(
        fixture
            .pass(KILL_TIME)
            .contains(&Action::Signal { pid, signal })
    );
}

#[test]
fn what_a_child_says_after_it_was_told_to_end_does_not_count() {
    let (mut fixture, pids) = filled(pool(2, 2));
    let (pid, letter) = (pids[0], b'X');
    fixture.step(Event::PoolGarbage { pid, letter });
    assert_eq!(fixture.idle(pid), []);
    assert_eq!(fixture.counts(FIRST), (1, 2));
}

#[test]
fn children_are_pinged_whatever_they_do_and_reloads_do_not_put_it_off() {
    let (mut fixture, pids) = filled(pool(2, 2));
    fixture.served_by(pids[0]);
    fixture.pass(Pool::PING_INTERVAL - SECOND);
    fixture.reload([pool(2, 2)]);
    let order = Order::Ping;
    let pings = |actions: Vec<Action>| {
        let pings = pids.iter().map(|&pid| Action::Order { pid, order });
        pings.filter(|ping| actions.contains(ping)).count()
    };
    assert_eq!(pings(fixture.pass(SECOND)), 1, "the other one was replaced");
    assert_eq!(pings(fixture.pass(Pool::PING_INTERVAL)), 1);
}

#[test]
fn a_child_that_ends_before_it_was_ready_throttles_its_service_also_with_status_zero() {
    for first in [None, Some(())] {
        let mut fixture = Fixture::new([]);
        let actions = fixture.reload([pool(1, 1)]);
        let pid = fixture.start(actions)[0];
        if first.is_some() {
            // The end of its channel is often seen before its own.
            fixture.step(Event::ChannelClosed { pid });
        }
        let actions = fixture.exit((pid, 0), ExitStatus::Code(0));
        assert!(
            logged(&actions)[0].ends_with("exit status 0"),
            "{actions:?}"
        );
        assert!(logged(&actions)[1].ends_with("bad command startup -- throttling"));
        assert_eq!(fixture.pass(THROTTLE_TIME - SECOND), []);
        assert!(!fixture.pass(SECOND).is_empty(), "another one is started");
    }
}

#[test]
fn a_child_that_is_killed_while_it_is_idle_throttles_nothing_and_is_replaced() {
    let (mut fixture, pids) = filled(pool(1, 1));
    fixture.pass(SECOND);
    fixture.step(Event::ChannelClosed { pid: pids[0] });
    let actions = fixture.exit((pids[0], 0), ExitStatus::Signal(9));
    assert!(logged(&actions)[0].ends_with("killed by signal 9"));
    assert_eq!(logged(&actions).len(), 1);
    assert_eq!(fixture.start(actions).len(), 1);
}

#[test]
fn a_child_that_has_served_enough_is_replaced() {
    let (mut fixture, pids) = filled(pool(1, 1));
    fixture.pass(SECOND);
    fixture.served_by(pids[0]);
    fixture.idle(pids[0]);
    let actions = fixture.exit((pids[0], 0), ExitStatus::Code(0));
    assert!(logged(&actions).is_empty(), "{actions:?}");
    assert_eq!(fixture.start(actions).len(), 1);
}

#[test]
fn a_removed_pools_children_are_told_to_end_and_their_channels_are_closed() {
    let (mut fixture, pids) = filled(pool(1, 1));
    let pid = pids[0];
    let signal = Signal::Term;
    assert_eq!(
        without_logs(fixture.reload([])),
        [
            Action::Signal { pid, signal },
            Action::CloseChannel { pid },
            Action::Close(FIRST)
        ]
    );
    let quiet = fixture.exit((pid, 0), ExitStatus::Signal(15));
    assert!(quiet.is_empty(), "{quiet:?}");
}

#[test]
fn a_listener_that_could_not_be_watched_is_watched_later() {
    let (mut fixture, _) = filled(pool(1, 1));
    let (service, error) = (FIRST, NO_ROOM);
    let actions = fixture.step(Event::WatchFailed { service, error });
    assert_eq!(without_logs(actions), [Action::Unwatch(FIRST)]);
    assert!(fixture.pass(THROTTLE_TIME).contains(&Action::Watch(FIRST)));
}

#[test]
fn a_pool_that_becomes_shared_is_another_service() {
    let (mut fixture, pids) = filled(pool(1, 5));
    let pid = pids[0];
    fixture.served_by(pid);
    let plan = fixture.table.plan(&[Arc::new(inet(783, 5))], KILL_TIME);
    assert_eq!(plan.removed, [FIRST]);
    assert_eq!(
        (plan.entries[0].id, plan.entries[0].known),
        (SECOND_SERVICE, false)
    );
    let actions = fixture.step(Event::Reload(plan));
    // The child may finish with its client.
    assert_eq!(
        without_logs(actions),
        [
            close_channel(pid),
            Action::Close(FIRST),
            Action::Watch(SECOND_SERVICE)
        ]
    );
    assert_eq!(fixture.pass(KILL_TIME), []);
    // The name is that of the new service, which is known from now on.
    fixture.exit((pid, 0), ExitStatus::Signal(15));
    assert!(fixture.table.service(FIRST).is_none());
    assert_eq!(fixture.reload([inet(783, 5)]), []);
    let plan = fixture.table.plan(&[Arc::new(pool(1, 5))], KILL_TIME);
    assert_eq!(plan.removed, [SECOND_SERVICE]);
}

#[test]
fn a_report_in_the_shared_channel_says_nothing_of_a_pools_child() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([pool(1, 1)]);
    let pid = fixture.start(actions)[0];
    let generation = fixture.table.children_of(FIRST)[0].generation;
    assert_eq!(fixture.available(FIRST, (pid, generation)), []);
    assert_eq!(fixture.counts(FIRST), (0, 1));
    assert_eq!(fixture.state(pid), State::Starting);
}
