//! What is fuzzed, and what must hold whatever the input is: everything that takes bytes from
//! files and children, and the policy. With a new target goes a line in [`TARGETS`], a directory
//! of `seeds`, a file of `words`, and in `fuzz/` a program like the others.
//!
//! Both `tests/fuzz` and the programs of `fuzz/` are made from this.

mod findings;
mod main_cf;
mod master_cf;
mod master_toml;
mod status;
mod step;
/// The configuration's own stand-in for the system's names.
#[allow(dead_code)] // its tests use more of it
#[path = "../../../src/config/testing.rs"]
mod testing;

use master::config::*;

/// Takes any bytes, and panics if something does not hold.
type Run = fn(&[u8]);

/// By name.
pub const TARGETS: [(&str, Run); 5] = [
    ("main_cf", main_cf::run),
    ("master_cf", master_cf::run),
    ("master_toml", master_toml::run),
    ("status", status::run),
    ("step", step::run),
];

/// Gives the target an input.
pub fn run(target: &str, input: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, run) = found.expect("a target's name");
    run(input);
}
