//! Simulates the policy in a world with random faults, and exhaustively in a small world.
//!
//! `cargo test --test sim` does both. `cargo test --test sim -- --seed 7 --steps 1000000` selects
//! another random part, and `--forever` continues until a failure; `-- exhaustion` does only the
//! exhaustive part. A failing list is shrunk to a short one, which can be added to
//! `regressions.rs`.
//!
//! Ten million steps take a minute or two without optimization. For long simulations, set
//! `CARGO_PROFILE_TEST_OPT_LEVEL=1`, which is five times as fast.

mod coverage;
mod exhaust;
mod happening;
mod kernel;
mod lines;
mod model;
mod pool;
mod recycle;
mod regressions;
mod replay;
mod shrink;
mod simulate;
mod simulation;
mod state;
mod swarm;
mod template;
mod upgraded;

use std::panic;
use std::process::ExitCode;
use std::thread;

use testkit::{options, random};

use options::Options;

/// The default number of steps.
const STEPS: u64 = 10_000_000;

/// The result of a part: a summary, or a description of the failure.
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
    // Panics are caught and reported like other failures; shrinking causes many.
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

/// Runs all parts; the two slow ones run in parallel.
fn run(options: &Options) -> [Outcome; 7] {
    thread::scope(|scope| {
        let exhausted = scope.spawn(|| exhaust::run(options));
        let replayed = regressions::run(options);
        let pools = pool::run(options);
        let states = pool::exhaust::run(options);
        let steady = pool::churn::run(options);
        let recycled = recycle::run(options);
        let simulated = simulate::run(options);
        let exhausted = exhausted
            .join()
            .unwrap_or_else(|_| Err("the exhaustion panics".into()));
        [
            replayed, exhausted, pools, states, steady, recycled, simulated,
        ]
    })
}
