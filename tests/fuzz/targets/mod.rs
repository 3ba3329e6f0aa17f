//! The fuzz targets and their requirements: the policy, and all code that parses bytes from files
//! and children. A new target needs a line in [`TARGETS`], a directory of `seeds`, a file of
//! `words`, and a program in `fuzz/`.
//!
//! Both `tests/fuzz` and the programs in `fuzz/` include this.

mod findings;
mod main_cf;
mod master_cf;
mod master_toml;
mod pool;
mod sandbox;
mod state;
mod status;
mod step;
/// The resolver of the configuration's own tests.
#[allow(dead_code)] // its tests use more of it
#[path = "../../../src/config/testing.rs"]
mod testing;

use master::config::*;

/// Takes any bytes, and panics if a requirement is violated.
type Run = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Run); 8] = [
    ("main_cf", main_cf::run),
    ("master_cf", master_cf::run),
    ("master_toml", master_toml::run),
    ("pool", pool::run),
    ("sandbox", sandbox::run),
    ("state", state::run),
    ("status", status::run),
    ("step", step::run),
];

/// Runs a target with an input.
pub fn run(target: &str, input: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, run) = found.expect("a target's name");
    run(input);
}
