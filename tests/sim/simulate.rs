//! Run after run, each with a seed of its own.

use std::panic::{self, AssertUnwindSafe};

use crate::happening::Happening;
use crate::options::Options;
use crate::random::Random;
use crate::shrink::shrink;
use crate::swarm::Swarm;
use crate::world::{Broken, World};

/// Happenings in one run: enough for the rare to meet the rare, and few enough for many mixtures.
const RUN: usize = 1000;

/// Simulates as long as the options say; the number of failures, which is one at most.
pub fn run(options: &Options) -> usize {
    if !options.choose("simulation") {
        return 0;
    }
    let mut steps = 0;
    for seed in options.seed.. {
        let mut list = Vec::new();
        let result = guarded(|| one_run(seed, &mut list));
        match result {
            Ok(happened) => steps += happened,
            Err(what) => {
                explain(seed, &list, &what);
                return 1;
            }
        }
        if options.steps.is_some_and(|most| steps >= most) {
            println!("{steps} steps simulated, seeds {} to {seed}", options.seed);
            break;
        }
        if options.steps.is_none() && seed % 10_000 == 0 {
            println!("{steps} steps simulated, up to seed {seed}");
        }
    }
    0
}

/// What a seed makes happen is kept in `list`; the number of what could.
fn one_run(seed: u64, list: &mut Vec<Happening>) -> Result<u64, Broken> {
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
    Ok(happened + 1)
}

/// Runs a list of happenings.
///
/// # Errors
/// The promise that was broken.
pub fn replay(list: &[Happening]) -> Result<(), Broken> {
    guarded(|| {
        let mut world = World::new();
        list.iter().try_for_each(|h| world.apply(*h).map(drop))
    })
}

/// A panic is a broken promise, too.
fn guarded<T>(run: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    panic::set_hook(hook);
    result.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.into()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn explain(seed: u64, list: &[Happening], what: &str) {
    println!(
        "seed {seed} breaks a promise after {} happenings: {what}",
        list.len()
    );
    let short = shrink(list, |list| replay(list).is_err());
    let what = replay(&short).expect_err("a shrunk list fails");
    println!("{} of them are enough: {what}\n", short.len());
    println!("use Happening::*;");
    println!("let list = [");
    for happening in &short {
        println!("    {happening:?},");
    }
    println!("];");
}
