//! A network for a test, with addresses that the machine may not have.

use std::process::Command;

use nix::sched::CloneFlags;

use crate::instance::SOON;
use crate::namespace;
use crate::run::run;

/// A second address of the loopback network.
pub const LOOPBACK_2: &str = "127.0.0.2";
/// An address outside the loopback network, so that its services are for remote clients. It has
/// none.
pub const REMOTE: &str = "192.0.2.1";

/// Runs a test in a new network namespace, whose loopback interface has the addresses above.
pub fn in_own_network(test: impl FnOnce() + Send) {
    namespace::in_own(CloneFlags::CLONE_NEWNET, || {
        ip(&["link", "set", "lo", "up"]);
        for address in [LOOPBACK_2, REMOTE] {
            ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        test();
    });
}

#[track_caller]
fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments), SOON).expect_success();
}
