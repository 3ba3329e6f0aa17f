//! All possible sequences in a small pool, up to a number of happenings: breadth first, with equal
//! states merged, and from every state the pool must come to rest with all clients served.

use std::collections::HashSet;

use super::Happening::{self, *};
use super::simulation::Simulation;
use super::{Settings, written};
use crate::Outcome;
use crate::options::Options;
use crate::replay::guarded;

/// A limit of two children, with one at the start.
const SETTINGS: Settings = Settings {
    max: 2,
    min_children: 1,
    min_idle: 0,
    max_idle: 1,
    double: false,
    preload: false,
    limits: super::NO_LIMITS,
};
const OPENING: [Happening; 4] = [Edit(SETTINGS), Count, Reload, Turn];
const HAPPENINGS: [Happening; 9] = [
    Turn,
    Sleep,
    Client,
    Live(0),
    Live(1),
    Fail(0),
    Silence(0),
    HangUp(0),
    Reload,
];
const DEPTH: usize = 9;
/// The number of states and of transitions; exact, as in the other exhaustion.
const EXPECTED: (usize, usize) = (16_975, 72_639);

/// Runs the search.
pub fn run(options: &Options) -> Outcome {
    if !options.choose("all states of a pool", "") {
        return Ok("no state of a pool".into());
    }
    let mut seen = HashSet::new();
    let mut transitions = 0;
    let mut frontier = vec![OPENING.to_vec()];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for way in frontier {
            for happening in HAPPENINGS {
                let mut way = way.clone();
                way.push(happening);
                let arrived = guarded(|| arrive(&way, &mut seen));
                let new = arrived.map_err(|what| format!("pool: {what}\n{}", written(&way)))?;
                transitions += 1;
                if new {
                    next.push(way);
                }
            }
        }
        frontier = next;
    }
    let found = (seen.len(), transitions);
    let text = format!("a pool: {} states, {transitions} transitions", seen.len());
    if found == EXPECTED {
        Ok(text)
    } else {
        Err(format!(
            "{text}\ninstead of {EXPECTED:?}: what else can happen now?"
        ))
    }
}

/// Whether the path leads to a new state. From every state the pool must come to rest.
fn arrive(way: &[Happening], seen: &mut HashSet<u64>) -> Result<bool, String> {
    let mut simulation = Simulation::new();
    way.iter()
        .try_for_each(|&happening| simulation.apply(happening))?;
    let new = seen.insert(simulation.fingerprint());
    if new {
        simulation.apply(Calm)?;
    }
    Ok(new)
}
