//! A network of a test's own, with addresses that a machine may not have.

use std::process::Command;

use nix::sched::CloneFlags;

use crate::instance::SOON;
use crate::namespace;
use crate::run::run;

/// A second address of the loopback network.
pub const LOOPBACK_2: &str = "127.0.0.2";
/// An address that is not of the loopback network, so its services are for remote clients. No
/// remote client is there.
pub const REMOTE: &str = "192.0.2.1";

/// Runs a test in a network namespace of its own, where the loopback interface has the addresses
/// above.
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
