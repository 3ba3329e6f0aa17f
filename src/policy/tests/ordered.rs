//! Pools whose children accept when they are told to.

use super::*;
use crate::policy::ordered::PATIENCE;

/// An ordered pool that starts with `floor` children, of `max` at most.
pub(super) fn pool(floor: u32, max: u32) -> config::Service {
    config::Service {
        pool: Seldom::from(Pool {
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
    [Action::Signal { pid, signal }, Action::HangUp { pid }]
}

impl World {
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
        self.step(Event::Said { pid, report })
    }

    pub(super) fn now_busy(&mut self, pid: Pid) -> Vec<Action> {
        let report = Report::Busy;
        self.step(Event::Said { pid, report })
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

/// A world with one pool that has been filled, and its idle children by pid.
pub(super) fn filled(service: config::Service) -> (World, Vec<Pid>) {
    let mut world = World::new([]);
    let actions = world.reload([service]);
    let pids = world.start(actions);
    for &pid in &pids {
        world.idle(pid);
    }
    (world, pids)
}

#[test]
fn a_new_pool_is_filled_at_once() {
    let (world, pids) = filled(pool(3, 5));
    assert_eq!(pids.len(), 3);
    assert_eq!(world.counts(FIRST), (3, 3));
}

#[test]
fn a_connection_goes_to_the_idle_child_with_the_lowest_pid() {
    let (mut world, pids) = filled(pool(3, 3));
    world.served_by(pids[0]);
    world.served_by(pids[1]);
    world.idle(pids[0]);
    world.served_by(pids[0]);
}

#[test]
fn an_order_holds_the_next_one_back_until_it_is_answered() {
    let (mut world, pids) = filled(pool(2, 2));
    let actions = world.connect(FIRST);
    assert_eq!(actions, [accept(pids[0]), Action::Unwatch(FIRST)]);
    assert_eq!(world.connect(FIRST), []);
    assert_eq!(world.now_busy(pids[0]), [Action::Watch(FIRST)]);
    assert_eq!(world.state(pids[0]), State::Busy);
}

#[test]
fn as_many_children_are_ordered_as_clients_wait() {
    let (mut world, pids) = filled(pool(4, 4));
    let clients = |count| Event::Connections {
        service: FIRST,
        count,
    };
    let actions = world.step(clients(2));
    assert_eq!(
        actions,
        [accept(pids[0]), accept(pids[1]), Action::Unwatch(FIRST)]
    );
    assert_eq!(world.now_busy(pids[1]), [Action::Watch(FIRST)]);
    // Those who wait now are the one that the other order stands for, and a new one.
    let actions = world.step(clients(2));
    assert_eq!(actions, [accept(pids[2]), Action::Unwatch(FIRST)]);
    world.now_busy(pids[0]);
    let actions = world.step(clients(5));
    assert_eq!(
        without_logs(actions),
        [accept(pids[3]), Action::Unwatch(FIRST)]
    );
    world.now_busy(pids[3]);
    assert_eq!(world.idle(pids[3]), [accept(pids[3])], "somebody is left");
}

#[test]
fn a_stuck_child_holds_others_back_no_longer_than_patience_lasts() {
    let (mut world, pids) = filled(pool(2, 2));
    world.connect(FIRST);
    assert_eq!(world.pass(PATIENCE), [Action::Watch(FIRST)]);
    assert_eq!(world.state(pids[0]), State::Ordered);
    world.served_by(pids[1]);
}

#[test]
fn a_slow_child_may_answer_late() {
    let (mut world, pids) = filled(pool(2, 2));
    world.connect(FIRST);
    world.pass(SECOND);
    world.served_by(pids[1]);
    world.now_busy(pids[0]);
    world.idle(pids[0]);
    assert_eq!(world.state(pids[0]), State::Idle);
    let later = world.pass(2 * Pool::REPLY_TIMEOUT);
    assert!(logged(&later).is_empty(), "{later:?}");
}

#[test]
fn without_an_idle_child_nobody_watches_and_the_first_that_turns_idle_is_ordered() {
    let (mut world, pids) = filled(pool(1, 1));
    world.served_by(pids[0]);
    let actions = without_logs(world.connect(FIRST));
    assert_eq!(actions, [Action::Unwatch(FIRST)]);
    assert_eq!(world.idle(pids[0]), [accept(pids[0])]);
    assert_eq!(world.now_busy(pids[0]), [Action::Watch(FIRST)]);
}

#[test]
fn idle_children_serve_also_while_the_service_is_throttled() {
    let (mut world, pids) = filled(pool(2, 3));
    world.connect(FIRST);
    let failed = world.exit((pids[0], 0), ExitStatus::Code(1));
    assert!(logged(&failed)[1].ends_with("bad command startup -- throttling"));
    world.served_by(pids[1]);
}

#[test]
fn a_child_that_ends_with_an_order_leaves_the_client_to_another() {
    let (mut world, pids) = filled(pool(2, 2));
    world.connect(FIRST);
    let pid = pids[0];
    let actions = world.step(Event::HungUp { pid });
    assert_eq!(actions, [Action::HangUp { pid }, Action::Watch(FIRST)]);
    world.served_by(pids[1]);
}

#[test]
fn a_child_that_cannot_be_written_to_is_ended_and_the_client_goes_to_another() {
    let (mut world, pids) = filled(pool(2, 2));
    world.connect(FIRST);
    let (pid, reason) = (pids[0], "Broken pipe".into());
    let actions = world.step(Event::Unwritable { pid, reason });
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
    world.served_by(pids[1]);
}

#[test]
fn a_child_that_answers_out_of_turn_is_ended() {
    for (before, report) in [
        (State::Starting, Report::Busy),
        (State::Idle, Report::Busy),
        (State::Ordered, Report::Idle),
    ] {
        let mut world = World::new([]);
        let actions = world.reload([pool(1, 1)]);
        let pid = world.start(actions)[0];
        if before != State::Starting {
            world.idle(pid);
        }
        if before == State::Ordered {
            world.connect(FIRST);
        }
        assert_eq!(world.state(pid), before);
        let actions = world.step(Event::Said { pid, report });
        assert!(logged(&actions)[0].contains("out of turn"), "{actions:?}");
        assert_eq!(world.state(pid), State::Killed, "{before:?}, {report:?}");
    }
}

#[test]
fn a_report_that_comes_twice_is_no_harm() {
    let (mut world, pids) = filled(pool(1, 1));
    assert_eq!(world.idle(pids[0]), []);
    world.served_by(pids[0]);
    assert_eq!(world.now_busy(pids[0]), []);
    assert_eq!(world.state(pids[0]), State::Busy);
}

#[test]
fn a_child_that_sends_an_unknown_message_is_ended() {
    let (mut world, pids) = filled(pool(1, 1));
    let (pid, letter) = (pids[0], b'\n');
    let actions = world.step(Event::Babbled { pid, letter });
    let line = &logged(&actions)[0];
    assert!(
        line.ends_with("it sent an unknown message (it begins with \"\\n\")"),
        "{line}"
    );
    assert_eq!(without_logs(actions), ending(pid));
}

#[test]
fn a_child_that_is_silent_after_an_order_is_ended_after_the_reply_timeout() {
    let (mut world, pids) = filled(pool(1, 1));
    world.connect(FIRST);
    let before = world.pass(Pool::REPLY_TIMEOUT - Duration::from_millis(1));
    assert!(logged(&before).is_empty(), "{before:?}");
    let actions = world.pass(Duration::from_millis(1));
    let line = &logged(&actions)[0];
    assert!(
        line.ends_with("it did not answer an order within 300 s"),
        "{line}"
    );
    assert_eq!(world.state(pids[0]), State::Killed);
}

#[test]
fn a_child_that_is_not_ready_after_300_seconds_is_ended_and_replaced() {
    let mut world = World::new([]);
    let mut impatient = pool(1, 1);
    impatient.pool.reply_timeout = Duration::from_secs(1);
    let actions = world.reload([impatient]);
    let pid = world.start(actions)[0];
    let actions = world.pass(Duration::from_secs(299));
    assert!(logged(&actions).is_empty(), "{actions:?}");
    let actions = world.pass(Duration::from_secs(1));
    let line = &logged(&actions)[0];
    assert!(line.ends_with("it was not ready within 300 s"), "{line}");
    let actions = world.exit((pid, 0), ExitStatus::Signal(2));
    assert!(logged(&actions).is_empty(), "{actions:?}");
    assert_eq!(world.start(actions).len(), 1);
}

#[test]
fn a_rogue_that_does_not_end_is_killed_after_service_kill_time() {
    let (mut world, pids) = filled(pool(1, 1));
    let (pid, letter) = (pids[0], b'X');
    world.step(Event::Babbled { pid, letter });
    let actions = world.pass(KILL_TIME);
    let signal = Signal::Kill;
    assert!(
        actions.contains(&Action::Signal { pid, signal }),
        "{actions:?}"
    );
    assert!(logged(&actions)[0].ends_with("is still there, sending SIGKILL"));
    let quiet = world.exit((pid, 0), ExitStatus::Signal(9));
    assert!(logged(&quiet).is_empty(), "{quiet:?}");
}

#[test]
fn a_child_that_closes_its_channel_and_lives_on_is_killed() {
    let (mut world, pids) = filled(pool(1, 1));
    let pid = pids[0];
    world.step(Event::HungUp { pid });
    assert_eq!(world.counts(FIRST).0, 0);
    let signal = Signal::Kill;
    assert!(
        world
            .pass(KILL_TIME)
            .contains(&Action::Signal { pid, signal })
    );
}

#[test]
fn what_a_child_says_after_it_was_told_to_end_does_not_count() {
    let (mut world, pids) = filled(pool(2, 2));
    let (pid, letter) = (pids[0], b'X');
    world.step(Event::Babbled { pid, letter });
    assert_eq!(world.idle(pid), []);
    assert_eq!(world.counts(FIRST), (1, 2));
}

#[test]
fn children_are_pinged_whatever_they_do_and_reloads_do_not_put_it_off() {
    let (mut world, pids) = filled(pool(2, 2));
    world.served_by(pids[0]);
    world.pass(Pool::PING_INTERVAL - SECOND);
    world.reload([pool(2, 2)]);
    let order = Order::Ping;
    let pings = |actions: Vec<Action>| {
        let pings = pids.iter().map(|&pid| Action::Order { pid, order });
        pings.filter(|ping| actions.contains(ping)).count()
    };
    assert_eq!(pings(world.pass(SECOND)), 1, "the other one was replaced");
    assert_eq!(pings(world.pass(Pool::PING_INTERVAL)), 1);
}

#[test]
fn a_child_that_ends_before_it_was_ready_throttles_its_service_also_with_status_zero() {
    for first in [None, Some(())] {
        let mut world = World::new([]);
        let actions = world.reload([pool(1, 1)]);
        let pid = world.start(actions)[0];
        if first.is_some() {
            // The end of its channel is often seen before its own.
            world.step(Event::HungUp { pid });
        }
        let actions = world.exit((pid, 0), ExitStatus::Code(0));
        assert!(
            logged(&actions)[0].ends_with("exit status 0"),
            "{actions:?}"
        );
        assert!(logged(&actions)[1].ends_with("bad command startup -- throttling"));
        assert_eq!(world.pass(THROTTLE_TIME - SECOND), []);
        assert!(!world.pass(SECOND).is_empty(), "another one is started");
    }
}

#[test]
fn a_child_that_is_killed_while_it_is_idle_throttles_nothing_and_is_replaced() {
    let (mut world, pids) = filled(pool(1, 1));
    world.pass(SECOND);
    world.step(Event::HungUp { pid: pids[0] });
    let actions = world.exit((pids[0], 0), ExitStatus::Signal(9));
    assert!(logged(&actions)[0].ends_with("killed by signal 9"));
    assert_eq!(logged(&actions).len(), 1);
    assert_eq!(world.start(actions).len(), 1);
}

#[test]
fn a_child_that_has_served_enough_is_replaced() {
    let (mut world, pids) = filled(pool(1, 1));
    world.pass(SECOND);
    world.served_by(pids[0]);
    world.idle(pids[0]);
    let actions = world.exit((pids[0], 0), ExitStatus::Code(0));
    assert!(logged(&actions).is_empty(), "{actions:?}");
    assert_eq!(world.start(actions).len(), 1);
}

#[test]
fn a_removed_pools_children_are_told_to_end_and_their_channels_are_closed() {
    let (mut world, pids) = filled(pool(1, 1));
    let pid = pids[0];
    let signal = Signal::Term;
    assert_eq!(
        without_logs(world.reload([])),
        [
            Action::Signal { pid, signal },
            Action::HangUp { pid },
            Action::Close(FIRST)
        ]
    );
    let quiet = world.exit((pid, 0), ExitStatus::Signal(15));
    assert!(quiet.is_empty(), "{quiet:?}");
}

#[test]
fn a_listener_that_could_not_be_watched_is_watched_later() {
    let (mut world, _) = filled(pool(1, 1));
    let (service, reason) = (FIRST, "no room".into());
    let actions = world.step(Event::WatchFailed { service, reason });
    assert_eq!(without_logs(actions), [Action::Unwatch(FIRST)]);
    assert!(world.pass(THROTTLE_TIME).contains(&Action::Watch(FIRST)));
}

#[test]
fn a_pool_becomes_shared_and_ordered_again() {
    let (mut world, pids) = filled(pool(2, 5));
    world.served_by(pids[0]);
    let actions = world.reload([inet(783, 5)]);
    assert!(actions.contains(&ending(pids[1])[0]), "{actions:?}");
    assert!(world.idle(pids[0]).contains(&ending(pids[0])[0]));
    let child = world.spawn(FIRST);
    world.taken(FIRST, child);
    assert_eq!(world.counts(FIRST), (0, 3));
    world.pass(SECOND);
    let actions = world.reload([pool(1, 5)]);
    let new = world.start(actions)[0];
    world.idle(new);
    world.served_by(new);
    assert_eq!(world.available(FIRST, child), [], "it was told to leave");
}

#[test]
fn a_report_in_the_shared_channel_says_nothing_of_a_pools_child() {
    let mut world = World::new([]);
    let actions = world.reload([pool(1, 1)]);
    let pid = world.start(actions)[0];
    let generation = world.table.children_of(FIRST)[0].generation;
    assert_eq!(world.available(FIRST, (pid, generation)), []);
    assert_eq!(world.counts(FIRST), (0, 1));
    assert_eq!(world.state(pid), State::Starting);
}
