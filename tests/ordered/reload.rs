//! Changes of a running pool.

use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::client::{Client, talk};
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::programs::service;
use testkit::vitals::expect_rest;
use testkit::{needs_root, test};

use crate::load::serve_all;
use crate::pool::needs_module;
use crate::pool::{HANDFUL, Pool};

/// Every client is served at the first attempt, and no child is killed, however often the service
/// is reloaded.
#[track_caller]
pub fn every_client_is_served_during_fifty_reloads(pool: &Pool) {
    let mut reloads = 0;
    while reloads < 50 {
        serve_all(&pool.address, || {
            if reloads < 50 && pool.postfix.log_lines("reload done").len() == reloads {
                reloads += 1;
                pool.postfix.hang_up();
            }
        });
    }
    for failure in ["rogue", "exit status", "killed by", "SIGKILL"] {
        assert_eq!(pool.postfix.log_lines(failure), [""; 0]);
    }
}

#[test]
fn fifty_reloads_cost_no_client_its_connection() {
    needs_module();
    let pool = Pool::perl(12, HANDFUL);
    pool.wait_for_idle(8);
    every_client_is_served_during_fifty_reloads(&pool);
}

#[test]
fn a_reload_replaces_every_child() {
    needs_module();
    let mut pool = Pool::perl(4, "accept = \"ordered\"\nmax_idle = 3\n");
    pool.wait_for_idle(3);
    let before = pool.children();
    pool.postfix.reload();
    until(SOON, "three new children", || {
        let now = pool.children();
        now.len() == 3 && now.iter().all(|child| !before.contains(child))
    });
    assert!(talk(&pool.address).is_some());
}

#[test]
fn a_reload_with_a_mistake_in_a_services_table_changes_nothing() {
    needs_module();
    let mut pool = Pool::perl(4, "accept = \"ordered\"\nmax_idle = 3\n");
    pool.wait_for_idle(3);
    let before = pool.children();
    pool.set("accept = \"ordred\"\n");
    pool.postfix.hang_up();
    pool.postfix
        .wait_for_log("reload failed and changed nothing");
    pool.postfix.wait_for_log(
        "master.toml: line 2: column 10: bad value of \"accept\": expected \"shared\" or \"ordered\"",
    );
    assert_eq!(pool.children(), before);
    assert!(talk(&pool.address).is_some());
}

#[test]
fn settings_that_contradict_each_other_are_corrected_with_a_warning() {
    needs_module();
    let pool = Pool::perl(4, "accept = \"ordered\"\nmin_idle = 2\nmax_idle = 1\n");
    let line = "\"max_idle\" = 1 is less than \"min_idle\": using 3";
    assert!(pool.postfix.wait_for_log(line).contains("warning: "));
    pool.wait_for_idle(3);
}

#[test]
fn a_reload_makes_a_pool_of_a_shared_service_and_a_shared_service_of_a_pool() {
    needs_root("a mail system");
    let mut pool = Pool::rust(4, "echo", "", "accept = \"shared\"\n");
    pool.postfix.install(&service("ordered"), "ordered");
    for _ in 0..2 {
        until(SOON, "the shared service to serve", || {
            let mut client = Client::connect(&pool.address);
            client.try_say("hello").is_ok() && client.try_line().is_ok_and(|said| said == "hello")
        });
        pool.become_of(4, "ordered", "accept = \"ordered\"\n");
        until(SOON, "the pool to serve", || talk(&pool.address).is_some());
        pool.become_of(4, "echo", "accept = \"shared\"\n");
    }
}

/// Whether a service, which may greet its clients, returns a client's text.
fn echoes(address: &str) -> std::io::Result<bool> {
    let mut client = Client::try_connect(address)?;
    client.try_say("hello")?;
    Ok(client.try_line()? == "hello" || client.try_line()? == "hello")
}

#[test]
fn no_client_is_lost_while_a_service_becomes_a_pool_and_a_shared_service_again() {
    needs_root("a mail system");
    let mut pool = Pool::rust(4, "echo", "", "accept = \"shared\"\n");
    pool.postfix.install(&service("ordered"), "ordered");
    let address = pool.address.clone();
    let changes = std::thread::spawn(move || {
        for _ in 0..5 {
            pool.become_of(4, "ordered", "accept = \"ordered\"\n");
            pool.become_of(4, "echo", "accept = \"shared\"\n");
        }
        pool
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !changes.is_finished() {
                    let echoes = echoes(&address);
                    assert!(echoes.as_ref().is_ok_and(|echoes| *echoes), "{echoes:?}");
                }
            });
        }
    });
    let pool = changes.join().expect("all changes");
    for failure in ["rogue", "killed by", "SIGKILL"] {
        assert_eq!(pool.postfix.log_lines(failure), [""; 0]);
    }
}

#[test]
fn a_client_that_waits_for_a_pool_which_was_a_shared_service_costs_the_master_nothing() {
    needs_root("a mail system");
    let mut pool = Pool::rust(1, "echo", "", "accept = \"shared\"\n");
    pool.postfix.install(&service("ordered"), "ordered");
    // No client has connected yet, so the master watches the listener during the reload.
    let settings = "accept = \"ordered\"\nmax_idle = 1\n";
    pool.become_of(1, "ordered", settings);
    pool.wait_for_idle(1);
    let child = pool.children()[0];
    child.signal(Signal::SIGSTOP);
    let mut client = Client::connect(&pool.address);
    expect_rest(pool.postfix.master_process(), Duration::from_secs(1));
    child.signal(Signal::SIGCONT);
    assert_eq!(client.line(), child.0.to_string());
}
