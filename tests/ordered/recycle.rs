//! Children that leave for others to take their places, in every way to accept.

use std::collections::BTreeMap;

use testkit::client::talk;
use testkit::instance::SOON;
use testkit::needs_root;
use testkit::poll::until;
use testkit::test;

use crate::load::serve;
use crate::pool::Pool;

const ORDERED: &str = "accept = \"ordered\"\nmin_children = 4\nmax_idle = 4\n";
const CLIENTS: usize = 500;
const WARM: &str = "min_idle = 2\n";

/// Pools of children in Rust and Python: ordered, preloaded, and warm.
fn pools(settings: &str) -> Vec<(&'static str, Pool)> {
    needs_root("children change their user");
    let python = "services/examples/ordered.py";
    let preloaded = "services/examples/preload.py";
    let with = |more: &str| format!("{more}{settings}");
    vec![
        (
            "Rust, ordered",
            Pool::rust(8, "ordered", "-o max_use=0", &with(ORDERED)),
        ),
        (
            "Python, ordered",
            Pool::new(8, python, "nobody", &with(ORDERED)),
        ),
        (
            "Python, preloaded and ordered",
            Pool::new(
                8,
                preloaded,
                "nobody",
                &with(&format!("preload = true\n{ORDERED}")),
            ),
        ),
        (
            "Python, preloaded and warm",
            Pool::new(
                8,
                preloaded,
                "nobody",
                &with(&format!("preload = true\n{WARM}")),
            ),
        ),
    ]
}

/// No child was called bad, and none had to be ended.
#[track_caller]
fn no_complaint(name: &str, pool: &Pool) {
    let mut warnings = pool.postfix.log_lines("warning");
    // On a busy machine all children may have a client while one of them is being replaced.
    warnings.retain(|line| !line.contains("the process limit"));
    assert_eq!(warnings, [""; 0], "{name}");
}

#[test]
fn every_client_is_served_while_children_leave_after_few() {
    for (name, pool) in pools("max_uses = 20\n") {
        let load = serve(&pool.address, CLIENTS, || {});
        let found = (load.served, load.lost, load.broken);
        assert_eq!(found, (CLIENTS, 0, 0), "{name}: {load:?}");
        // One that shares the listener can take some more before it knows.
        let least = CLIENTS / 100;
        assert!(load.children.len() >= least, "{name}: {load:?}");
        no_complaint(name, &pool);
    }
}

#[test]
fn a_child_of_an_ordered_pool_serves_no_more_than_its_uses() {
    for (name, pool) in pools("max_uses = 3\n").into_iter().take(3) {
        let mut served = BTreeMap::new();
        for _ in 0..30 {
            let child = talk(&pool.address);
            *served.entry(child).or_insert(0) += 1;
        }
        assert!(
            served.values().all(|count| *count <= 3),
            "{name}: {served:?}"
        );
        assert!(served.len() >= 10, "{name}: {served:?}");
        no_complaint(name, &pool);
    }
}

#[test]
fn children_are_replaced_at_their_age_without_a_client() {
    for (name, pool) in pools("max_age = 2\n") {
        let first = talk(&pool.address).expect("a client is served");
        until(SOON, format_args!("{name}: {first} has left"), || {
            !pool.children().iter().any(|child| child.0 == first)
        });
        serve(&pool.address, 20, || {});
        no_complaint(name, &pool);
    }
}

#[test]
fn children_that_use_too_much_memory_leave_and_small_ones_stay() {
    for (name, pool) in pools("memory_recycle = \"8K\"\n") {
        let first = talk(&pool.address).expect("a client is served");
        pool.postfix
            .wait_for_log("KB of memory, telling it to leave");
        until(SOON, format_args!("{name}: {first} has left"), || {
            !pool.children().iter().any(|child| child.0 == first)
        });
        no_complaint(name, &pool);
    }
}
