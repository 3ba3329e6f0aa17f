//! The policy in a simulated world that goes wrong in all the ways that a seed comes up with, and
//! in a small world in all the ways that there are.
//!
//! `cargo test --test sim` does both. `cargo test --test sim -- --seed 7 --steps 1000000` chooses
//! another part of the first, and `--forever` goes on until something breaks. What breaks is
//! shrunk to a short list of happenings, which is fit for `regressions.rs`.

mod book;
mod exhaust;
mod happening;
mod kernel;
mod lines;
mod options;
mod random;
mod regressions;
mod shrink;
mod simulate;
mod swarm;
mod world;

use std::process::ExitCode;

use options::Options;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    println!("seed {}", options.seed);
    let failures = regressions::run(&options) + simulate::run(&options) + exhaust::run(&options);
    match failures {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
