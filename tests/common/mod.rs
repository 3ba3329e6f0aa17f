//! What every test of a running master shares: a private Postfix instance, reserved ports, facts
//! about processes, a child that does as it is told, and the one way to wait.
//!
//! `MASTER_UNDER_TEST` names the binary to test; without it, it is the one this package builds. So
//! the same tests run against Postfix's own master, which is how they were found to be right:
//!
//! ```text
//! MASTER_UNDER_TEST=/usr/lib/postfix/sbin/master cargo test --test conformance --test postfix
//! ```
#![allow(dead_code)] // each test crate uses its own part of this

pub mod cgroup;
pub mod client;
pub mod clock;
pub mod differs;
pub mod disk;
pub mod documents;
pub mod fake_master;
pub mod instance;
pub mod layout;
pub mod namespace;
pub mod network;
pub mod observe;
pub mod operator;
pub mod poll;
pub mod ports;
pub mod process;
pub mod puppet;
pub mod run;
pub mod vitals;
pub mod world;

use std::path::{Path, PathBuf};

/// Where the distribution keeps Postfix's daemons, its own master among them.
pub const POSTFIX_DAEMONS: &str = "/usr/lib/postfix/sbin";

/// Postfix's own master, the oracle.
pub fn original() -> PathBuf {
    Path::new(POSTFIX_DAEMONS).join("master")
}

/// The master that the tests are about.
pub fn under_test() -> PathBuf {
    std::env::var_os("MASTER_UNDER_TEST")
        .map_or_else(|| env!("CARGO_BIN_EXE_master").into(), PathBuf::from)
}

/// Whether the master under test is Postfix's own.
pub fn is_original() -> bool {
    under_test().canonicalize().ok() == original().canonicalize().ok()
}

/// Says why a test, or a part of one, does not run here.
pub fn skip(reason: &str) {
    // Not through `println!`, which the test runner captures.
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let _ = writeln!(std::io::stderr(), "{name}: skipped: {reason}");
}

/// Leaves the test unless it runs as root, and says what root is needed for.
#[macro_export]
macro_rules! needs_root {
    ($purpose:literal) => {
        if !nix::unistd::geteuid().is_root() {
            $crate::common::skip(concat!("needs root (", $purpose, ")"));
            return;
        }
    };
}

/// Whether the master under test is one that keeps a promise which Postfix's own does not. Where
/// it is not, the test goes on to check what the original does instead, which proves that there is
/// a difference.
pub fn ours_promises(promise: &str) -> bool {
    if is_original() {
        skip(&format!("the original does not promise that {promise}"));
    }
    !is_original()
}
