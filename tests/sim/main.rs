//! The policy in a simulated world that goes wrong in all the ways that a seed comes up with, and
//! in a small world in all the ways that there are.
//!
//! `cargo test --test sim` does both. `cargo test --test sim -- --seed 7 --steps 1000000` chooses
//! another part of the first, and `--forever` goes on until something breaks; `-- exhaustion` does
//! the second alone. What breaks is shrunk to a short list of happenings, which is fit for
//! `regressions.rs`.
//!
//! Ten million steps take a minute or two without optimisation, which is not worth optimising
//! every test for. Who simulates for hours sets `CARGO_PROFILE_TEST_OPT_LEVEL=1`, which makes it
//! five times as fast.

mod coverage;
mod exhaust;
mod happening;
mod kernel;
mod lines;
mod model;
mod pool;
mod regressions;
mod replay;
mod shrink;
mod simulate;
mod simulation;
mod state;
mod swarm;

use std::panic;
use std::process::ExitCode;
use std::thread;

use testkit::{options, random};

use options::Options;

/// So many steps make up the simulation unless the command line says otherwise.
const STEPS: u64 = 10_000_000;

/// What a part found: all well, or what is not, in words.
type Outcome = Result<String, String>;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1), STEPS) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    if options::are_apart() {
        println!("the simulation runs apart");
        return ExitCode::SUCCESS;
    }
    println!("seed {}", options.seed);
    // Panics are caught and told like other broken promises, and shrinking makes many.
    panic::set_hook(Box::new(|_| {}));
    let outcomes = run(&options);
    for outcome in &outcomes {
        let (Ok(text) | Err(text)) = outcome;
        println!("{text}");
    }
    if outcomes.iter().all(Result::is_ok) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// All parts; the two that take long run side by side.
fn run(options: &Options) -> [Outcome; 6] {
    thread::scope(|scope| {
        let exhausted = scope.spawn(|| exhaust::run(options));
        let replayed = regressions::run(options);
        let pools = pool::run(options);
        let states = pool::exhaust::run(options);
        let steady = pool::churn::run(options);
        let simulated = simulate::run(options);
        let exhausted = exhausted.join();
        let exhausted = exhausted.unwrap_or_else(|_| Err("the exhaustion panics".into()));
        [replayed, exhausted, pools, states, steady, simulated]
    })
}
