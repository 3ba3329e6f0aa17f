//! The shared parts of all tests with a running master: a private Postfix installation, a
//! stand-alone table, reserved ports, facts about processes, children that execute a test's
//! commands, and one way to wait.
//!
//! `MASTER_UNDER_TEST` names the binary to test; by default it is the one that cargo builds. The
//! same tests therefore run against Postfix's own master, which verifies the tests themselves:
//!
//! ```text
//! MASTER_UNDER_TEST=/usr/lib/postfix/sbin/master cargo test --test conformance --test postfix
//! ```

#![allow(clippy::new_without_default)] // what is made here is more than a value

pub mod canary;
pub mod cgroup;
pub mod client;
pub mod clock;
pub mod differs;
pub mod disk;
pub mod documents;
pub mod fake_master;
pub mod groups;
pub mod harness;
pub mod instance;
pub mod layout;
pub mod name_server;
pub mod namespace;
pub mod network;
pub mod noise;
pub mod observe;
pub mod operator;
pub mod options;
pub mod poll;
pub mod ports;
pub mod process;
pub mod programs;
pub mod puppet;
pub mod puppet_service;
pub mod random;
pub mod run;
pub mod standalone;
pub mod trace;
pub mod vitals;
pub mod watch;

use std::path::{Path, PathBuf};

pub use harness::{main, needs_root, note, skip};
pub use inventory;
pub use testkit_macros::test;

/// Where the distribution keeps Postfix's daemons, its own master among them.
pub const POSTFIX_DAEMONS: &str = "/usr/lib/postfix/sbin";

/// Postfix's own master, the reference.
pub fn original() -> PathBuf {
    Path::new(POSTFIX_DAEMONS).join("master")
}

/// The tested master.
pub fn under_test() -> PathBuf {
    std::env::var_os("MASTER_UNDER_TEST").map_or_else(programs::master, PathBuf::from)
}

/// Whether the tested master is Postfix's own.
pub fn is_original() -> bool {
    under_test().canonicalize().ok() == original().canonicalize().ok()
}

/// Skips a test of our master alone; cargo reports it as ignored, with the reason.
pub fn needs_ours(reason: &str) {
    if is_original() {
        skip(reason);
    }
}

/// Whether the tested master keeps a promise that Postfix's own does not. If it does not, the test
/// continues with what the original does instead, which proves the difference.
pub fn ours_promises(promise: &str) -> bool {
    if is_original() {
        note(&format!("the original does not promise that {promise}"));
    }
    !is_original()
}

/// A file of this repository.
pub fn file(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).expect("tests/testkit is below it");
    root.join(name)
}
