//! The invariants' check, without which the other tests and the simulation would prove less. What
//! it is to find cannot happen, so it is made to.

use super::*;

/// A table with a child that is available and one that is busy, corrupted.
fn corrupted(corrupt: impl FnOnce(&mut Table)) -> String {
    let mut world = World::new([inet(25, 10), unix("local", 10)]);
    world.busy(FIRST);
    world.spawn(FIRST);
    assert_eq!(world.table.check(), Ok(()));
    corrupt(&mut world.table);
    world.table.check().expect_err("a broken invariant")
}

fn first(table: &mut Table) -> &mut Service {
    table.service_mut(FIRST).expect("a service")
}

#[test]
fn a_child_without_its_service_is_found() {
    let what = corrupted(|table| table.services[FIRST.index()] = None);
    assert!(what.ends_with("of a service that is gone"), "{what}");
}

#[test]
fn a_child_in_a_wrong_place_is_found() {
    let what = corrupted(|table| first(table).children.swap(0, 1));
    assert!(what.ends_with("is not in its service's list"), "{what}");
}

#[test]
fn a_child_that_is_listed_and_not_known_is_found() {
    let what = corrupted(|table| first(table).children.push(4711));
    assert_eq!(what, "3 listed, 2 known");
}

#[test]
fn a_wrong_count_of_children_is_found() {
    let what = corrupted(|table| first(table).total += 1);
    assert_eq!(what, "ServiceId(0) 25: total 3 of 2");
}

#[test]
fn a_wrong_count_of_available_children_is_found() {
    let what = corrupted(|table| first(table).avail += 1);
    assert!(
        what.ends_with("avail 2 is not what the children are marked"),
        "{what}"
    );
}

#[test]
fn a_listener_that_is_watched_without_need_is_found() {
    let what = corrupted(|table| first(table).listening = true);
    assert!(what.ends_with("listening is true"), "{what}");
}

#[test]
fn a_removed_service_that_is_kept_for_nobody_is_found() {
    let what = corrupted(|table| {
        let service = table.service_mut(SECOND_SERVICE).expect("a service");
        service.removed = true;
        service.listening = false;
    });
    assert!(what.ends_with("removed, and nothing to wait for"), "{what}");
}
