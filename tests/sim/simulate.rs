//! Run after run, each with a seed of its own.

use crate::Outcome;
use crate::happening::Happening;
use crate::options::Options;
use crate::random::Random;
use crate::replay::{guarded, replay, written};
use crate::seen::Seen;
use crate::shrink::shrink;
use crate::swarm::Swarm;
use crate::world::{Broken, World};

/// Happenings in one run: enough for the rare to meet the rare, and few enough for many mixtures.
const RUN: usize = 1000;
/// Who simulates for ever hears of it after so many runs.
const PROGRESS: u64 = 10_000;
/// In so many steps there is room for every sort of event, action and record.
const ALL_SEEN: u64 = 1_000_000;

/// Simulates as long as the options say, or until something breaks.
pub fn run(options: &Options) -> Outcome {
    let mut steps = 0;
    let mut seed = options.seed;
    let mut seen = Seen::default();
    while options.choose("simulation", "") && options.go_on(steps) {
        let mut list = Vec::new();
        match guarded(|| one_run(seed, &mut list, &mut seen)) {
            Ok(happened) => steps += happened,
            Err(_) => return Err(explain(seed, &list)),
        }
        seed += 1;
        if options.steps.is_none() && seed % PROGRESS == 0 {
            println!("{steps} steps simulated, seed {seed} comes next");
        }
    }
    match seen.missing() {
        missing if steps >= ALL_SEEN && !missing.is_empty() => {
            Err(format!("never seen in {steps} steps: {missing:?}"))
        }
        _ => Ok(format!("{steps} steps simulated")),
    }
}

/// What a seed makes happen is kept in `list`, and what it has to do with in `seen`; the number of
/// what could.
fn one_run(seed: u64, list: &mut Vec<Happening>, seen: &mut Seen) -> Result<u64, Broken> {
    let mut random = Random::new(seed);
    let swarm = Swarm::new(&mut random);
    let mut world = World::new();
    let mut happened = 0;
    for happening in swarm.opening(&mut random) {
        list.push(happening);
        happened += u64::from(world.apply(happening)?);
    }
    for _ in 0..RUN {
        let happening = swarm.next(&mut random);
        list.push(happening);
        happened += u64::from(world.apply(happening)?);
    }
    list.push(Happening::Calm);
    world.apply(Happening::Calm)?;
    *seen |= world.seen;
    Ok(happened + 1)
}

/// The seed, and the shortest list that shows what is wrong.
fn explain(seed: u64, list: &[Happening]) -> String {
    let short = shrink(list, |list| replay(list).is_err());
    let what = replay(&short).expect_err("a shrunk list fails");
    let (all, few) = (list.len(), short.len());
    format!(
        "seed {seed}: {few} of {all} happenings suffice: {what}\n{}",
        written(&short)
    )
}
