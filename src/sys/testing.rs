//! Tests of what belongs to the whole process: descriptor numbers, signals, alarms.

use std::process::{Command, Stdio};

const MARK: &str = "MASTER_TEST_IN_OWN_PROCESS";

/// The test program calls itself for the one test named here, and goes on there, where this is
/// true. Where it is false, the test is over.
pub(super) fn in_own_process(test: &str) -> bool {
    if is_own_process() {
        return true;
    }
    let status = own_process(test).status();
    assert!(
        status.unwrap().success(),
        "{test} failed in its own process"
    );
    false
}

/// The command that runs a test in a process of its own.
pub(super) fn own_process(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(MARK, "1")
        .stdout(Stdio::null());
    command
}

/// Whether this is the process that [`own_process`] made.
pub(super) fn is_own_process() -> bool {
    std::env::var_os(MARK).is_some()
}
