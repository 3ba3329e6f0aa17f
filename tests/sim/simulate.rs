//! Random runs, each with its own seed.

use crate::Outcome;
use crate::coverage::Coverage;
use crate::happening::Happening;
use crate::options::Options;
use crate::random::Random;
use crate::replay::{guarded, replay, written};
use crate::shrink::shrink;
use crate::simulation::{Broken, Simulation};
use crate::swarm::Swarm;
use crate::upgraded::has_upgrades;

/// Happenings in one run: enough for combinations of rare ones, and few enough for many mixtures.
const RUN: usize = 1000;
/// With `--forever`, the interval of progress messages, in runs.
const PROGRESS: u64 = 10_000;
/// After this many steps, every kind of event, action and record must have occurred.
const ALL_COVERED: u64 = 1_000_000;

/// Simulates as long as the options say, or until a failure.
pub fn run(options: &Options) -> Outcome {
    let mut steps = 0;
    let mut seed = options.seed;
    let mut coverage = Coverage::default();
    while options.choose("simulation", "") && options.go_on(steps) {
        let mut list = Vec::new();
        match guarded(|| one_run(seed, &mut list, &mut coverage)) {
            Ok(happened) => steps += happened,
            Err(_) => return Err(explain(seed, &list)),
        }
        seed += 1;
        if options.steps.is_none() && seed % PROGRESS == 0 {
            println!("{steps} steps simulated, seed {seed} comes next");
        }
    }
    match coverage.missing() {
        missing if steps >= ALL_COVERED && !missing.is_empty() => {
            Err(format!("never seen in {steps} steps: {missing:?}"))
        }
        _ => Ok(format!("{steps} steps simulated")),
    }
}

/// Runs one seed. Stores the happenings in `list` and their kinds in `coverage`. Returns the number
/// of possible happenings.
fn one_run(seed: u64, list: &mut Vec<Happening>, coverage: &mut Coverage) -> Result<u64, Broken> {
    let mut random = Random::new(seed);
    let swarm = Swarm::new(&mut random);
    let mut simulation = if has_upgrades(seed) {
        Simulation::upgraded()
    } else {
        Simulation::new()
    };
    let mut happened = 0;
    for happening in swarm.opening(&mut random) {
        list.push(happening);
        happened += u64::from(simulation.apply(happening)?);
    }
    for _ in 0..RUN {
        let happening = swarm.next(&mut random);
        list.push(happening);
        happened += u64::from(simulation.apply(happening)?);
    }
    list.push(Happening::Calm);
    simulation.apply(Happening::Calm)?;
    *coverage |= simulation.coverage;
    Ok(happened + 1)
}

/// The message with the seed and the shortest failing list.
fn explain(seed: u64, list: &[Happening]) -> String {
    let short = shrink(list, |list| replay(list).is_err());
    let what = replay(&short).expect_err("a shrunk list fails");
    let (all, few) = (list.len(), short.len());
    format!(
        "seed {seed}: {few} of {all} happenings suffice: {what}\n{}",
        written(&short)
    )
}
