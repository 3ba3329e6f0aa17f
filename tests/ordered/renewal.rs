//! Templates that are replaced because of their age, or of the number of children they have forked.

use std::fs;

use nix::sys::signal::Signal;
use testkit::client::{Client, talk};
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::process::Process;
use testkit::test;

use crate::load::serve;
use crate::pool::Pool;
use crate::preload::{ORDERED, SHARED, pool, processes, rogue, template, wait_for_children};

const NEW: &str = "is the new one";

/// Waits for another template, and for other children.
#[track_caller]
fn wait_for_others(pool: &Pool, templates: &[Process], children: &[Process]) {
    until(SOON, "another template and other children", || {
        let (now, serving) = processes(pool);
        let all = now.iter().chain(&serving);
        let mut old = all.filter(|one| templates.contains(one) || children.contains(one));
        now.len() == 1 && old.next().is_none()
    });
}

#[test]
fn a_template_is_replaced_at_its_age_and_every_client_is_served() {
    for settings in [ORDERED, SHARED] {
        let pool = pool(&format!("{settings}preload_max_age = 1\n"));
        while pool.postfix.log_lines(NEW).len() < 3 {
            let load = serve(&pool.address, 200, || {});
            assert_eq!((load.served, load.broken), (200, 0), "{load:?}");
        }
        let line = &pool.postfix.log_lines(NEW)[0];
        assert!(line.contains(" s old and has forked "), "{line}");
        let (_, first) = line.split_once(": pid ").expect("a former template");
        let first = first.split(' ').next().and_then(|pid| pid.parse().ok());
        assert!(!Process(first.expect("a pid")).runs());
        assert_eq!(pool.postfix.log_lines("throttled"), [""; 0]);
        assert_eq!(pool.postfix.log_lines("rogue"), [""; 0]);
    }
}

#[test]
fn a_template_is_replaced_after_its_uses_with_its_children() {
    let pool = pool(&format!("{ORDERED}preload_max_uses = 5\n"));
    wait_for_children(&pool, 4);
    let (templates, children) = processes(&pool);
    children[0].signal(Signal::SIGKILL);
    wait_for_others(&pool, &templates, &children);
    let line = pool.postfix.wait_for_log(NEW);
    assert!(line.ends_with("has forked 5 children"), "{line}");
    // The next one has forked four, and is not replaced by itself.
    wait_for_children(&pool, 4);
    assert!(talk(&pool.address).is_some());
    assert_eq!(pool.postfix.log_lines(NEW).len(), 1);
}

#[test]
fn a_new_template_that_cannot_load_changes_nothing_and_is_tried_again_later() {
    let settings = format!("{ORDERED}preload_max_age = 100\nthrottle_time = \"60s\"\n");
    let (mut pool, mark) = rogue("load-exit", &settings);
    let clock = pool.restart_with_clock();
    wait_for_children(&pool, 4);
    let (templates, children) = processes(&pool);
    fs::write(&mark, "").expect("a mark");
    clock.turn(&pool.postfix, 101);
    let line = "the new template has not loaded: exit status 3: the old one serves on, another \
                one is started in 60 s";
    pool.postfix.wait_for_log(line);
    assert_eq!(processes(&pool), (templates.clone(), children.clone()));
    assert!(talk(&pool.address).is_some());
    // It takes longer each time, and is over with the first that loads.
    fs::write(&mark, "").expect("a mark");
    clock.turn(&pool.postfix, 165);
    pool.postfix.wait_for_log("another one is started in 120 s");
    assert_eq!(processes(&pool), (templates.clone(), children.clone()));
    clock.turn(&pool.postfix, 300);
    wait_for_others(&pool, &templates, &children);
    assert_eq!(pool.postfix.log_lines("throttled"), [""; 0]);
}

#[test]
fn a_reload_changes_the_age_and_takes_the_place_of_a_replacement() {
    let (mut pool, mark) = rogue("load-hang", &format!("{SHARED}preload_max_age = 1000\n"));
    let first = template(&pool);
    assert!(talk(&pool.address).is_some());
    // The new one hangs while it loads.
    pool.set(&format!("{SHARED}preload_max_age = 1\n"));
    pool.postfix.reload();
    let mut second = first;
    until(SOON, "another template alone", || {
        let now = processes(&pool).0;
        second = now.first().copied().unwrap_or(first);
        now.len() == 1 && second != first
    });
    fs::write(&mark, "").expect("a mark");
    until(SOON, "a replacement that loads", || {
        !mark.exists() && processes(&pool).0.len() == 2
    });
    let loading = processes(&pool).0.into_iter().find(|one| *one != second);
    let loading = loading.expect("another one");
    pool.set(SHARED);
    pool.postfix.reload();
    until(SOON, "one template, a third one", || {
        let now = processes(&pool).0;
        now.len() == 1 && ![first, second, loading].contains(&now[0])
    });
    let mut client = Client::connect(&pool.address);
    client.say("hello");
    assert!(client.line().parse::<i32>().is_ok());
    assert_eq!(pool.postfix.log_lines("not loaded"), [""; 0]);
}

#[test]
fn a_template_that_is_killed_during_its_replacement_costs_no_more_than_before() {
    let settings = format!("{ORDERED}preload_max_age = 100\n");
    let (mut pool, mark) = rogue("load-hang", &settings);
    let clock = pool.restart_with_clock();
    wait_for_children(&pool, 4);
    let children = processes(&pool).1;
    let old = template(&pool);
    fs::write(&mark, "").expect("a mark");
    clock.turn(&pool.postfix, 101);
    until(SOON, "a replacement that loads", || {
        !mark.exists() && processes(&pool).0.len() == 2
    });
    old.signal(Signal::SIGKILL);
    pool.postfix
        .wait_for_log(&format!("pid {} killed by signal 9", old.0));
    assert!(talk(&pool.address).is_some());
    // The one that loads hangs: another one takes the place of the old one after the throttle.
    clock.turn(&pool.postfix, 103);
    until(SOON, "a template that loads", || {
        processes(&pool).0.len() == 2
    });
    for child in &children {
        child.signal(Signal::SIGKILL);
    }
    assert!(talk(&pool.address).is_some());
}
