//! The table itself.

use std::cell::Cell;

use super::super::timers::Timer;
use super::*;

#[test]
fn ending_is_said_before_it_is_done() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let signal = 15;
    assert_eq!(
        fixture.step(Event::Stop { signal }),
        [
            Action::Log(Record::new(None, None, Kind::Terminating(signal))),
            Action::Terminate { signal }
        ]
    );
}

#[test]
fn a_verbose_table_says_what_it_does() {
    let mut fixture = Fixture::new([]);
    fixture.table.cx.verbose = true;
    let actions = fixture.reload([waking(inet(25, 10), 60, false)]);
    assert_eq!(
        logged(&actions),
        [
            "service \"25\" (25): added",
            "service \"25\" (25): waking up",
            "service \"25\" (25): avail 0 total 0 max 10"
        ]
    );
}

#[test]
fn cancelled_deadlines_do_not_pile_up() {
    let services = || (0..10).map(|n| waking(unix(&n.to_string(), 1), 60, false));
    let mut fixture = Fixture::new(services());
    // The first deadline is one that holds, so that the others are not dropped on the way to it.
    let child = fixture.spawn(FIRST);
    fixture.exit(child, ExitStatus::Code(1));
    for _ in 0..2000 {
        fixture.now += Duration::from_millis(1);
        fixture.reload(services());
        fixture.table.next_deadline();
    }
    assert!(fixture.table.cx.timers.len() < 5000);
}

#[test]
fn deadlines_that_hold_are_rarely_looked_at() {
    let mut timers = Timers::default();
    let looks = Cell::new(0);
    let holds = |_, _, _| {
        looks.set(looks.get() + 1);
        true
    };
    for n in 0..20_000 {
        timers.add(n * SECOND, Timer::Wakeup, FIRST);
        timers.next(holds);
    }
    assert!(looks.get() < 4 * 20_000, "{} looks", looks.get());
}

#[test]
fn generations_go_round() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    fixture.table.cx.generation = u32::MAX;
    let child = fixture.busy(FIRST);
    assert_eq!(child.1, 0);
    assert_eq!(fixture.counts(FIRST), (0, 1), "its reports are believed");
}

#[test]
fn children_of_one_service_come_and_go_in_any_order() {
    let mut fixture = Fixture::new([unix("local", 0)]);
    let mut children: Vec<_> = (0..50).map(|_| fixture.busy(FIRST)).collect();
    // A fixed shuffle: every seventh, until none is left.
    let mut at = 0;
    while !children.is_empty() {
        at = (at + 7) % children.len();
        let child = children.remove(at);
        fixture.exit(child, ExitStatus::Code(0));
        assert_eq!(fixture.counts(FIRST), (0, children.len() as u32));
    }
}
