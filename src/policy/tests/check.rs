//! The invariants' check, without which the other tests and the simulation would prove less. What
//! it is to find cannot happen, so it is made to.

use super::*;

/// A table with a child that is busy and one that is available, corrupted.
fn corrupted(corrupt: impl FnOnce(&mut Table)) -> String {
    let mut fixture = Fixture::new([inet(25, 10), unix("local", 10)]);
    fixture.busy(FIRST);
    fixture.spawn(FIRST);
    assert_eq!(fixture.table.check(), Ok(()));
    corrupt(&mut fixture.table);
    fixture.table.check().expect_err("a broken invariant")
}

fn service(table: &mut Table, id: ServiceId) -> &mut Service {
    table.services[id.index()].as_mut().expect("a service")
}

fn first(table: &mut Table) -> &mut Service {
    service(table, FIRST)
}

#[test]
fn a_child_without_its_service_is_found() {
    let what = corrupted(|table| table.services[FIRST.index()] = None);
    assert_eq!(what, "unknown children are known");
}

#[test]
fn a_child_that_is_known_for_another_services_is_found() {
    let what = corrupted(|table| {
        table.pids.insert(101, SECOND_SERVICE);
    });
    assert_eq!(what, "ServiceId(0): a child is known for another service's");
}

#[test]
fn a_child_that_is_owned_and_not_known_is_found() {
    let what = corrupted(|table| {
        table.pids.remove(&101);
    });
    assert!(
        what.ends_with("a child is known for another service's"),
        "{what}"
    );
}

#[test]
fn a_wrong_count_of_available_children_is_found() {
    let what = corrupted(|table| first(table).avail += 1);
    assert!(what.ends_with("others are available"), "{what}");
}

#[test]
fn a_wrong_count_of_departing_children_is_found() {
    let what = corrupted(|table| first(table).departing += 1);
    assert!(what.ends_with("others are departing"), "{what}");
}

#[test]
fn a_wrong_count_of_hanging_children_is_found() {
    let what = corrupted(|table| first(table).rare_mut().hanging += 1);
    assert!(what.ends_with("others hang in exec"), "{what}");
    let what = corrupted(|table| table.cx.hanging += 1);
    assert_eq!(what, "others hang in exec");
}

#[test]
fn a_deadline_of_no_child_is_found() {
    let what = corrupted(|table| {
        first(table).rare_mut().deadlines.insert((SECOND, 4711));
    });
    assert!(what.ends_with("children have other deadlines"), "{what}");
}

#[test]
fn a_listener_that_is_watched_without_need_is_found() {
    let what = corrupted(|table| first(table).listening = true);
    assert!(
        what.ends_with("watched or not, and should not be"),
        "{what}"
    );
}

#[test]
fn a_removed_service_without_children_is_found() {
    let what = corrupted(|table| {
        let service = service(table, SECOND_SERVICE);
        service.removed = true;
        service.listening = false;
    });
    assert!(what.ends_with("removed, and nothing to wait for"), "{what}");
}

#[test]
#[should_panic(expected = "others are available")]
fn a_debug_build_checks_each_service_that_settles() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    fixture.busy(FIRST);
    fixture.spawn(FIRST);
    first(&mut fixture.table).avail += 1;
    fixture.table.step(
        fixture.now,
        Event::Resume { service: FIRST },
        &mut fixture.actions,
    );
    fixture.table.settle(fixture.now, &mut fixture.actions);
}
