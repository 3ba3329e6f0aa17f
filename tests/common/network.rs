//! A network of a test's own, with addresses that a machine may not have.

use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::instance::SOON;
use super::run::run;

/// A second address of the loopback network.
pub const LOOPBACK_2: &str = "127.0.0.2";
/// An address that is not of the loopback network, so its services are for remote clients. No
/// remote client is there.
pub const REMOTE: &str = "192.0.2.1";

/// Runs a test in a network namespace of its own, where the loopback interface has the addresses
/// above. Namespaces belong to threads: what the test starts is in it as well.
pub fn in_own_network(test: impl FnOnce() + Send) {
    let isolated = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        ip(&["link", "set", "lo", "up"]);
        for address in [LOOPBACK_2, REMOTE] {
            ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        test();
    };
    thread::scope(|scope| {
        // Not the caller's thread, which would stay in the namespace.
        let name = thread::current().name().unwrap_or("test").to_owned();
        let started = thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, isolated);
        if let Err(panic) = started.expect("a thread").join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[track_caller]
fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments), SOON).expect_success();
}
