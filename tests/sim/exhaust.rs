//! All possible sequences in a small simulation, up to a number of happenings.
//!
//! The search is breadth first, so that the first failing sequence is the shortest one. States with
//! the same future are equal: pids, generations and the time of day are not compared. The table's
//! private memory is compared only as far as it is visible; errors in the rest are found by the
//! long random simulation.

use std::collections::HashSet;

use crate::Outcome;
use crate::happening::Edit::{Add, Max, Preload, Remove, Wakeup};
use crate::happening::Happening::{self, *};
use crate::happening::OperatorRequest::{Pause, Replace, Resume, Wake};
use crate::options::{self, Options};
use crate::replay::{guarded, written};
use crate::simulation::{Broken, Simulation};
use crate::state;

/// A small simulation.
struct Case {
    name: &'static str,
    opening: &'static [Happening],
    happenings: &'static [Happening],
    depth: usize,
    /// The number of states and of transitions. They are exact: a change of the policy that makes
    /// other states reachable must be noticed, and the new numbers written here.
    expected: (usize, usize),
}

const CASES: [Case; 8] = [
    Case {
        name: "strangers_and_failing_children",
        opening: &[Edit(0, Add), Hangup, Turn],
        happenings: &[
            Turn,
            Sleep,
            Client(0),
            Live(0),
            Live(1),
            Retire(0),
            Retire(1),
            Fail(0),
            Fail(1),
            Lose(0),
        ],
        depth: 18,
        expected: (13_730, 58_421),
    },
    Case {
        name: "three_children_and_other_limits",
        opening: &[Edit(0, Max(3)), Edit(0, Add), Hangup, Turn],
        happenings: &[
            Turn,
            Sleep,
            Client(0),
            Live(0),
            Live(1),
            Live(2),
            Retire(0),
            Hangup,
            Edit(0, Max(1)),
            Edit(0, Max(3)),
            Edit(0, Max(0)),
        ],
        depth: 14,
        expected: (27_182, 144_781),
    },
    Case {
        name: "a_service_that_goes_and_comes_back",
        opening: &[
            Edit(1, Max(1)),
            Edit(1, Wakeup(30)),
            Edit(1, Add),
            Hangup,
            Turn,
        ],
        happenings: &[
            Turn,
            Sleep,
            Client(1),
            Live(0),
            Live(1),
            Fail(0),
            Defy(0),
            Hangup,
            Edit(1, Add),
            Edit(1, Remove),
            SpawnFails,
            WatchFails,
        ],
        depth: 13,
        expected: (24_533, 129_147),
    },
    Case {
        name: "two_services_share_the_master",
        opening: &[Edit(0, Add), Edit(1, Max(1)), Edit(1, Add), Hangup, Turn],
        happenings: &[
            Turn,
            Client(0),
            Client(1),
            Live(0),
            Live(1),
            Live(2),
            Fail(0),
            Fail(1),
            Forge(0, 1),
            Stale(0),
            Hangup,
            Edit(0, Remove),
        ],
        depth: 9,
        expected: (31_744, 120_072),
    },
    Case {
        name: "a_service_that_an_operator_steers",
        opening: &[Edit(1, Wakeup(30)), Edit(1, Add), Hangup, Turn],
        happenings: &[
            Turn,
            Sleep,
            Client(1),
            Live(0),
            Live(1),
            Retire(0),
            Fail(0),
            Hangup,
            Edit(1, Remove),
            Operator(0, Pause),
            Operator(0, Resume),
            Operator(0, Replace),
            Operator(0, Wake),
        ],
        depth: 12,
        expected: (13_939, 93_319),
    },
    Case {
        name: "clients_that_no_child_takes",
        opening: &[Edit(1, Max(1)), Edit(1, Add), Hangup, Turn],
        happenings: &[
            Turn,
            Sleep,
            Client(1),
            Look,
            Live(0),
            Retire(0),
            Edit(1, Max(2)),
            Hangup,
            Operator(0, Pause),
            Operator(0, Resume),
        ],
        depth: 10,
        expected: (4_587, 21_245),
    },
    Case {
        name: "late_actions_and_children_that_hang_or_send_descriptors",
        opening: &[Edit(1, Max(2)), Edit(1, Add), Hangup, Turn],
        happenings: &[
            Turn,
            Sleep,
            Client(1),
            Live(0),
            Live(1),
            Hang(0),
            Hang(1),
            Defy(0),
            SendDescriptors(0),
            Late(1),
            Late(0),
            Operator(0, Pause),
            Operator(0, Resume),
            Hangup,
        ],
        depth: 10,
        expected: (21_294, 108_547),
    },
    Case {
        name: "a_template_that_fails_and_is_replaced",
        opening: &[Edit(1, Preload(true)), Edit(1, Add), Hangup, Turn],
        happenings: &[
            Turn,
            Sleep,
            Client(1),
            Live(0),
            Retire(0),
            Template(0),
            TemplateEnds(0),
            TemplateRefuses(0),
            TemplateHangs(0),
            TemplateRenewed(0),
            Hangup,
            Edit(1, Preload(false)),
            Edit(1, Preload(true)),
            Edit(1, Remove),
        ],
        depth: 12,
        expected: (7_062, 31_382),
    },
];

/// A state, as the last step of a path from another state.
#[derive(Clone, Copy)]
struct Step {
    from: Option<usize>,
    happening: Happening,
}

/// Runs all cases.
pub fn run(options: &Options) -> Outcome {
    let (mut text, mut states, mut transitions) = (String::new(), 0, 0);
    let mut as_expected = true;
    let cases = if options::in_a_hurry() {
        &CASES[..1]
    } else {
        &CASES[..]
    };
    let chosen = |case: &&Case| options.choose("exhaustion", case.name);
    for case in cases.iter().filter(chosen) {
        let Case { name, expected, .. } = case;
        let found = case
            .exhaust()
            .map_err(|(list, what)| format!("{name}: {what}\n{}", written(&list)))?;
        text += &format!("{name}: {} states, {} transitions\n", found.0, found.1);
        if found != *expected {
            text += &format!("instead of {expected:?}: what else can happen now?\n");
            as_expected = false;
        }
        states += found.0;
        transitions += found.1;
    }
    text += &format!("{states} states exhausted, {transitions} transitions");
    if as_expected { Ok(text) } else { Err(text) }
}

impl Case {
    /// The number of states and transitions, or a failing sequence.
    fn exhaust(&self) -> Result<(usize, usize), (Vec<Happening>, Broken)> {
        let mut steps: Vec<Step> = Vec::new();
        let mut seen = HashSet::new();
        let mut transitions = 0;
        let mut frontier = vec![None];
        for _ in 0..self.depth {
            let mut next = Vec::new();
            for from in frontier {
                let mut way = way_to(&steps, from);
                for &happening in self.happenings {
                    way.push(happening);
                    let new = self
                        .arrive(&way, &mut seen)
                        .map_err(|what| (self.whole(&way), what))?;
                    way.pop();
                    transitions += usize::from(new.is_some());
                    if new == Some(true) {
                        next.push(Some(steps.len()));
                        steps.push(Step { from, happening });
                    }
                }
            }
            frontier = next;
        }
        Ok((seen.len(), transitions))
    }

    /// Whether the path leads to a new state; `None` if its last step is impossible. In every
    /// state, it must be possible to serve all clients.
    fn arrive(&self, way: &[Happening], seen: &mut HashSet<u64>) -> Result<Option<bool>, Broken> {
        guarded(|| {
            let mut simulation = Simulation::new();
            let mut possible = true;
            for &happening in self.opening.iter().chain(way) {
                possible = simulation.apply(happening)?;
            }
            let new = possible.then(|| seen.insert(state::fingerprint(&mut simulation)));
            if new == Some(true) {
                simulation.apply(Calm)?;
            }
            Ok(new)
        })
    }

    /// The path with the steps that precede it.
    fn whole(&self, way: &[Happening]) -> Vec<Happening> {
        [self.opening, way].concat()
    }
}

fn way_to(steps: &[Step], last: Option<usize>) -> Vec<Happening> {
    let ways = std::iter::successors(last, |&at| steps[at].from);
    let mut way: Vec<_> = ways.map(|at| steps[at].happening).collect();
    way.reverse();
    way
}
