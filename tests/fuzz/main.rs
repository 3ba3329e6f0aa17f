//! Fuzz tests of the policy, and of all code that parses bytes from files and children.
//!
//! `cargo test --test fuzz` runs the seeds, the regressions, and a fixed number of inputs made from
//! them. `cargo test --test fuzz -- --seed 7 --steps 1000000 master_cf` selects other inputs, for
//! one target. The programs in `fuzz/` run the same targets with libFuzzer, which is guided by code
//! coverage; see CONTRIBUTING.md.

mod corpus;
mod mutate;
mod targets;

use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use testkit::{options, random};

use corpus::Input;
use options::Options;
use random::Random;
use targets::TARGETS;

/// The default number of inputs for each target.
const INPUTS: u64 = 25_000;

/// The number of inputs that a target has taken, or the failure.
type Outcome = Result<u64, String>;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1), INPUTS) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    if options::are_apart() {
        println!("fuzzing runs apart");
        return ExitCode::SUCCESS;
    }
    println!("seed {}", options.seed);
    let (mut sum, mut all_well) = (0, true);
    for (target, outcome) in run(&options) {
        match outcome {
            Ok(inputs) => {
                println!("{target}: {inputs} inputs");
                sum += inputs;
            }
            Err(what) => {
                println!("{target}: {what}");
                all_well = false;
            }
        }
    }
    println!("{sum} inputs fuzzed");
    if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs all chosen targets in parallel.
fn run(options: &Options) -> Vec<(&'static str, Outcome)> {
    thread::scope(|scope| {
        let chosen = TARGETS
            .map(|(name, _)| name)
            .into_iter()
            .filter(|target| options.choose("fuzz", target));
        let started = chosen.map(|target| {
            // The thread's name is in the messages of panics.
            let thread = thread::Builder::new().name(target.to_owned());
            let run = thread.spawn_scoped(scope, move || fuzz(target, options));
            (target, run.expect("a thread"))
        });
        let started: Vec<_> = started.collect();
        let outcomes = started.into_iter().map(|(target, run)| {
            let outcome = run.join();
            (target, outcome.unwrap_or_else(|_| Err("panics".into())))
        });
        outcomes.collect()
    })
}

/// Runs the stored inputs, then mutants of the seeds. Regressions are not mutated: some of them are
/// slow.
fn fuzz(target: &str, options: &Options) -> Outcome {
    let seeds = corpus::seeds(target)?;
    let words = corpus::words(target)?;
    let written = corpus::regressions(target)?;
    let written = seeds.iter().chain(&written);
    let mut inputs = 0;
    for Input { name, bytes } in written {
        take(target, bytes).map_err(|what| format!("{what}: {name}"))?;
        inputs += 1;
    }
    let mut random = Random::new(options.seed);
    while options.go_on(inputs) {
        let input = mutate::mutant(&mut random, &seeds, &words);
        take(target, &input).map_err(|what| format!("{what}: {}", keep(target, &input)))?;
        inputs += 1;
    }
    Ok(inputs)
}

/// # Errors
/// The target panics; its message is on standard error.
fn take(target: &str, input: &[u8]) -> Result<(), &'static str> {
    panic::catch_unwind(|| targets::run(target, input)).map_err(|_| "panics")
}

/// Writes an input to a file, and returns instructions for the developer.
fn keep(target: &str, input: &[u8]) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{target}"));
    let kept = match std::fs::write(&file, input) {
        Ok(()) => format!(
            "once it is mended, move {} to tests/fuzz/regressions/{target}/, and name it by what it shows",
            file.display()
        ),
        Err(problem) => format!("{}: {problem}", file.display()),
    };
    format!("\"{}\"\n{kept}", input.escape_ascii())
}
