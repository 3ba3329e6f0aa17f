//! Preloaded pools under load, while children are killed, stopped and made rogue, templates are
//! killed, and the service is reloaded.

use std::fs;

use nix::sys::signal::Signal;
use testkit::process::Process;
use testkit::test;

use crate::load::serve;
use crate::preload::{ORDERED, SHARED, processes, rogue};

/// How much is done at least: clients served, reloads, and children killed or made rogue.
fn amounts() -> (usize, usize, usize) {
    match std::env::var_os("MASTER_TEST_FAULTS") {
        Some(_) => (20_000, 20, 20),
        None => (400, 3, 3),
    }
}

#[test]
fn no_client_is_lost_but_a_killed_childs_own_in_an_ordered_pool() {
    all_faults_together(ORDERED);
}

#[test]
fn no_client_is_lost_but_a_killed_childs_own_of_children_that_share_the_listener() {
    all_faults_together(SHARED);
}

#[track_caller]
fn all_faults_together(settings: &str) {
    let (pool, mark) = rogue("garbage-child", settings);
    let (clients, least_reloads, faults) = amounts();
    // The children whose client may be lost.
    let mut ended = 0;
    let mut stopped: Option<Process> = None;
    let (mut nth, mut served, mut broken, mut reloads) = (0, 0, 0, 0);
    while served < clients || reloads < least_reloads || ended < faults {
        let load = serve(&pool.address, clients / 4, || {
            nth += 1;
            if let Some(child) = stopped.take() {
                child.signal(Signal::SIGCONT);
            }
            let (templates, children) = processes(&pool);
            let child = children.get(nth % children.len().max(1));
            match nth % 20 {
                3 | 13 => {
                    if let Some(child) = child {
                        child.signal(Signal::SIGKILL);
                        ended += 1;
                    }
                }
                6 | 16 => {
                    if let Some(child) = child {
                        child.signal(Signal::SIGSTOP);
                        stopped = Some(*child);
                    }
                }
                8 => {
                    fs::write(&mark, "").expect("a mark");
                    ended += 1;
                }
                18 => {
                    if let Some(template) = templates.first() {
                        template.signal(Signal::SIGKILL);
                    }
                }
                _ => {
                    let begun = pool.postfix.log_lines("reload -- version").len();
                    let over = ["reload done", "reload failed"];
                    let over = over.map(|line| pool.postfix.log_lines(line).len());
                    if begun == over.iter().sum::<usize>() && over[0] < least_reloads {
                        pool.postfix.hang_up();
                    }
                    reloads = over[0];
                }
            }
        });
        assert_eq!(load.lost, 0, "{load:?}");
        (served, broken) = (served + load.served, broken + load.broken);
    }
    if let Some(child) = stopped {
        child.signal(Signal::SIGCONT);
    }
    assert!(
        broken <= ended,
        "{broken} clients were lost of {ended} children"
    );
    pool.postfix.wait_for_log("killed by signal 9");
}
