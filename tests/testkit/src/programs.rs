//! The programs that tests start: the master, the programs in its directory, and the helpers of
//! `tests/programs`.
//!
//! They are in cargo's output directory. `cargo test --test NAME` builds the master and the test,
//! and no other package, so the others are built here when first needed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::file;
use crate::run::run;

/// Timeout for a build from scratch on a slow machine.
const BUILD: Duration = Duration::from_secs(600);

/// Our master.
pub fn master() -> PathBuf {
    built(profile().join("master"), "--bin master")
}

/// A helper program of `tests/programs`.
pub fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let what = "--package testkit --examples";
    BUILT.get_or_init(|| build(what));
    built(profile().join("examples").join(name), what)
}

/// A program or an example of the package `services`.
pub fn service(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let what = "--package master-services --bins --examples";
    BUILT.get_or_init(|| build(what));
    let program = profile().join(name);
    if program.exists() {
        program
    } else {
        built(profile().join("examples").join(name), what)
    }
}

/// masterctl.
pub fn masterctl() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let what = "--package masterctl";
    BUILT.get_or_init(|| build(what));
    built(profile().join("masterctl"), what)
}

/// The program that applies limits and sandboxes.
pub fn executor() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let what = "--package master-exec";
    BUILT.get_or_init(|| build(what));
    built(profile().join("master-exec"), what)
}

pub fn statusd() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let what = "--package statusd";
    BUILT.get_or_init(|| build(what));
    built(profile().join("statusd"), what)
}

/// The directory of built programs: a test is target/PROFILE/deps/TEST.
fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("the test's path");
    let profile = test.parent().and_then(Path::parent);
    profile.expect("a directory").to_owned()
}

/// Whether a program was built here, and all users may run it. Tests change none of these.
pub(crate) fn is_built(program: &Path) -> bool {
    let mode = fs::metadata(program).map(|program| program.permissions().mode());
    program.starts_with(profile()) && mode.is_ok_and(|mode| mode & 0o055 == 0o055)
}

fn is_release() -> bool {
    profile().ends_with("release")
}

/// Builds programs, if cargo runs the test.
fn build(what: &str) {
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build
            .args(["build", "--quiet", "--locked"])
            .args(what.split(' '))
            .current_dir(file(""));
        if is_release() {
            build.arg("--release");
        }
        run(&mut build, BUILD).expect_success();
    }
}

/// A program that must have been built.
#[track_caller]
fn built(program: PathBuf, what: &str) -> PathBuf {
    let release = if is_release() { " --release" } else { "" };
    assert!(
        program.exists(),
        "{} is missing: \"cargo build{release} {what}\" builds it",
        program.display()
    );
    program
}
