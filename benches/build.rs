//! Builds the measured child as a static C-library program without Rust's runtime, so that its
//! start costs little and the same under every master. cargo has no linker flags for a single
//! program.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "child/main.rs";
    println!("cargo:rerun-if-changed={source}");
    println!("cargo:rerun-if-changed=build.rs");
    let directory = env::var_os("OUT_DIR").expect("cargo says where");
    let child = PathBuf::from(directory).join("child");
    let status = Command::new(env::var_os("RUSTC").expect("cargo says which"))
        .args(["--edition=2024", "--crate-type=bin", "--crate-name=child"])
        .args(["-Copt-level=3", "-Cpanic=abort", "-Cstrip=symbols"])
        .args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static"])
        .arg("-o")
        .arg(&child)
        .arg(source)
        .status();
    assert!(status.expect("a compiler").success(), "{source}");
    println!("cargo:rustc-env=CHILD={}", child.display());
}
