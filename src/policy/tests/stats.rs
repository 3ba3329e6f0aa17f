//! What is counted for those who look on.

use super::ordered::pool;
use super::*;

fn stats(world: &World) -> Stats {
    *world.table.service(FIRST).expect("a service").stats()
}

#[test]
fn the_most_that_were_busy_is_remembered_with_its_time() {
    let mut world = World::new([unix("a", 0)]);
    let children = [(); 3].map(|()| world.busy(FIRST));
    let at = world.now;
    world.pass(SECOND);
    world.available(FIRST, children[0]);
    world.taken(FIRST, children[0]);
    let Stats { peak, peak_at, .. } = stats(&world);
    assert_eq!((peak, peak_at), (3, Some(at)));
    assert_eq!(stats(&world).limit_reached, 0, "there is none");
}

#[test]
fn the_limit_is_reached_once_until_somebody_is_free_again() {
    let mut world = World::new([unix("a", 2)]);
    let first = world.busy(FIRST);
    assert_eq!(stats(&world).limit_reached, 0);
    let second = world.busy(FIRST);
    world.taken(FIRST, second);
    // Another look at it, with everybody busy still.
    world.step(Event::Resume { service: FIRST });
    assert_eq!(stats(&world).limit_reached, 1);
    world.available(FIRST, first);
    world.taken(FIRST, first);
    assert_eq!(stats(&world).limit_reached, 2);
}

#[test]
fn clients_are_counted_when_they_are_taken() {
    let mut world = World::new([unix("a", 2)]);
    let child = world.busy(FIRST);
    world.taken(FIRST, child);
    world.available(FIRST, child);
    world.taken(FIRST, child);
    assert_eq!(stats(&world).connections, 2);
    assert_eq!(world.table.children_of(FIRST)[0].clients, 2);
}

#[test]
fn ends_are_counted_by_sort() {
    let mut world = World::new([unix("a", 0)]);
    for status in [
        ExitStatus::Code(0),
        ExitStatus::Code(0),
        ExitStatus::Code(7),
        ExitStatus::Signal(9),
    ] {
        let child = world.busy(FIRST);
        world.available(FIRST, child);
        world.taken(FIRST, child);
        world.exit(child, status);
    }
    let Stats {
        started,
        ended,
        failed,
        killed,
        ..
    } = stats(&world);
    assert_eq!((started, ended, failed, killed), (4, 2, 1, 1));
}

#[test]
fn children_are_shown_oldest_first_with_what_they_do() {
    let mut world = World::new([unix("a", 0)]);
    let busy = world.busy(FIRST);
    world.pass(SECOND);
    world.step(Event::Replace { service: FIRST });
    let idle = world.spawn(FIRST);
    let sights = world.table.children_of(FIRST);
    let shown: Vec<_> = sights.iter().map(|s| (s.pid, s.activity)).collect();
    let expected = [(busy.0, Activity::Leaving), (idle.0, Activity::Available)];
    assert_eq!(shown, expected);
    assert_eq!(sights[1].started - sights[0].started, SECOND);
}

#[test]
fn a_pools_children_start_before_they_wait() {
    let mut world = World::new([]);
    let actions = world.reload([pool(2, 2)]);
    let pids = world.start(actions);
    world.idle(pids[0]);
    world.served_by(pids[0]);
    let service = world.table.service(FIRST).expect("a pool");
    assert_eq!((service.busy(), service.starting()), (1, 1));
    let sights = world.table.children_of(FIRST);
    let shown: Vec<_> = sights.iter().map(|s| (s.activity, s.clients)).collect();
    assert_eq!(shown, [(Activity::Busy, 1), (Activity::Starting, 0)]);
}
