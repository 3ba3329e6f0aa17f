//! The numbers that the status shows.

use super::ordered::pool;
use super::*;

fn stats(fixture: &Fixture) -> Statistics {
    *fixture.table.service(FIRST).expect("a service").stats()
}

#[test]
fn the_most_that_were_busy_is_remembered_with_its_time() {
    let mut fixture = Fixture::new([unix("a", 0)]);
    let children = [(); 3].map(|()| fixture.busy(FIRST));
    let at = fixture.now;
    fixture.pass(SECOND);
    fixture.available(FIRST, children[0]);
    fixture.taken(FIRST, children[0]);
    let Statistics { peak, peak_at, .. } = stats(&fixture);
    assert_eq!((peak, peak_at), (3, Some(at)));
    assert_eq!(stats(&fixture).limit_reached, 0, "there is none");
}

#[test]
fn the_limit_is_reached_once_until_somebody_is_free_again() {
    let mut fixture = Fixture::new([unix("a", 2)]);
    let first = fixture.busy(FIRST);
    assert_eq!(stats(&fixture).limit_reached, 0);
    let second = fixture.busy(FIRST);
    fixture.taken(FIRST, second);
    // Another look at it, with everybody busy still.
    fixture.step(Event::Resume { service: FIRST });
    assert_eq!(stats(&fixture).limit_reached, 1);
    fixture.available(FIRST, first);
    fixture.taken(FIRST, first);
    assert_eq!(stats(&fixture).limit_reached, 2);
}

#[test]
fn clients_are_counted_when_they_are_taken() {
    let mut fixture = Fixture::new([unix("a", 2)]);
    let child = fixture.busy(FIRST);
    fixture.taken(FIRST, child);
    fixture.available(FIRST, child);
    fixture.taken(FIRST, child);
    assert_eq!(stats(&fixture).connections, 2);
    assert_eq!(fixture.table.children_of(FIRST)[0].clients, 2);
}

#[test]
fn ends_are_counted_by_sort() {
    let mut fixture = Fixture::new([unix("a", 0)]);
    for status in [
        ExitStatus::Code(0),
        ExitStatus::Code(0),
        ExitStatus::Code(7),
        ExitStatus::Signal(9),
    ] {
        let child = fixture.busy(FIRST);
        fixture.available(FIRST, child);
        fixture.taken(FIRST, child);
        fixture.exit(child, status);
    }
    let Statistics {
        started,
        ended,
        failed,
        killed,
        ..
    } = stats(&fixture);
    assert_eq!((started, ended, failed, killed), (4, 2, 1, 1));
}

#[test]
fn children_are_shown_oldest_first_with_what_they_do() {
    let mut fixture = Fixture::new([unix("a", 0)]);
    let busy = fixture.busy(FIRST);
    fixture.pass(SECOND);
    fixture.step(Event::Replace { service: FIRST });
    let idle = fixture.spawn(FIRST);
    let sights = fixture.table.children_of(FIRST);
    let shown: Vec<_> = sights.iter().map(|s| (s.pid, s.state)).collect();
    let expected = [
        (busy.0, ChildState::Leaving),
        (idle.0, ChildState::Available),
    ];
    assert_eq!(shown, expected);
    assert_eq!(sights[1].started - sights[0].started, SECOND);
}

#[test]
fn a_pools_children_start_before_they_wait() {
    let mut fixture = Fixture::new([]);
    let actions = fixture.reload([pool(2, 2)]);
    let pids = fixture.start(actions);
    fixture.idle(pids[0]);
    fixture.served_by(pids[0]);
    let service = fixture.table.service(FIRST).expect("a pool");
    assert_eq!((service.busy(), service.starting()), (1, 1));
    let sights = fixture.table.children_of(FIRST);
    let shown: Vec<_> = sights.iter().map(|s| (s.state, s.clients)).collect();
    assert_eq!(shown, [(ChildState::Busy, 1), (ChildState::Starting, 0)]);
}
