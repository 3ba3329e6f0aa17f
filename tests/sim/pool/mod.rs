//! Simulates ordered pools: children that talk to the master one by one and may violate the
//! protocol, and the promises of the master about each of them.

pub mod churn;
pub mod exhaust;
mod simulation;

use std::time::Duration;

use master::config::{ChildLimits, Pool, Ramp, StartLimit};

use crate::Outcome;
use crate::coverage::Coverage;
use crate::happening::OperatorRequest;
use crate::options::Options;
use crate::random::Random;
use crate::replay::guarded;
use crate::shrink::leave_out;
use crate::upgraded::has_upgrades;
use simulation::Simulation;

/// Number of happenings in one run.
const RUN: usize = 500;
/// One step of this simulation for this many steps of the other one.
const SHARE: u64 = 10;
/// After this many steps, every kind of event, action and record of pools must have occurred.
const ALL_COVERED: u64 = 400_000;

/// What can happen. A number selects a child, modulo their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The master makes a turn.
    Turn,
    /// Time passes until the master's next deadline, which is then due.
    Sleep,
    /// Milliseconds pass.
    Pass(u32),
    Client,
    /// A child takes its next step.
    Live(u8),
    /// A child has served enough clients, and leaves.
    Retire(u8),
    /// A child fails with an exit code, in any state.
    Fail(u8),
    /// A child is killed.
    Crash(u8),
    /// A child is stopped until it is continued.
    Stop(u8),
    Continue(u8),
    /// A child ignores all signals except SIGKILL.
    Defy(u8),
    /// A child does nothing more and sends nothing.
    Silence(u8),
    /// A child sends an unknown message, and nothing more.
    Letter(u8),
    /// A child sends a false report, and nothing more.
    Lie(u8),
    /// A child closes its channel and stays.
    HangUp(u8),
    /// A child sends file descriptors.
    SendDescriptors(u8),
    /// The exec of a starting child hangs.
    Hang(u8),
    /// The template takes its next step: it has loaded, or has forked a child.
    Template,
    /// The template ends, or is ended because it breaks a rule.
    TemplateEnds,
    /// The template cannot fork the child, or that leaves at once.
    TemplateRefuses,
    /// The template does nothing more.
    TemplateHangs,
    /// The template is old, and another one takes its place, which has loaded.
    TemplateRenewed,
    /// From now on, the master executes at most this many actions per turn, at its end; 0 means all
    /// at once again.
    Late(u8),
    /// The next child that is ordered to accept appears dead.
    ChildFails,
    /// Toggles whether children leave as soon as they are ready.
    Leave,
    /// The next order is written a turn later.
    WriteWaits,
    /// The next child that is pinged appears dead.
    PingFails,
    SpawnFails,
    WatchFails,
    /// The next child that is measured uses much memory.
    Grow,
    /// Toggles whether the system counts waiting clients, as for TCP.
    Count,
    /// An administrator edits the settings and the process limit.
    Edit(Settings),
    /// An administrator requests a reload.
    Reload,
    /// An operator's request for the service.
    Operator(OperatorRequest),
    /// The faults end, all clients are served, and the pool comes to rest within its bounds.
    Calm,
}

/// Postfix's behavior.
const NO_LIMITS: ChildLimits = ChildLimits::DEFAULT;

/// Settings of the service in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub max: u32,
    pub min_children: u32,
    pub min_idle: u32,
    pub max_idle: u32,
    pub double: bool,
    /// Whether a template forks the children.
    pub preload: bool,
    pub limits: ChildLimits,
}

impl Settings {
    /// Random settings, as corrected by the parser.
    fn random(random: &mut Random) -> Self {
        let max = random.pick(&[0, 1, 2, 3, 5, 8]);
        let most = if max == 0 { 8 } else { max };
        let min_idle = random.below(most);
        Self {
            max,
            min_children: 1 + random.below(most),
            min_idle,
            max_idle: min_idle + random.below(4),
            double: random.coin(),
            preload: random.coin(),
            limits: Self::random_limits(random),
        }
    }

    /// Random limits; none in half of the cases.
    fn random_limits(random: &mut Random) -> ChildLimits {
        let time = |random: &mut Random| {
            let seconds = random.pick(&[0, 0, 0, 1, 4, 30]);
            (seconds > 0).then(|| Duration::from_secs(seconds))
        };
        ChildLimits {
            throttle_most: None,
            crash_percent: random.coin().then(|| random.pick(&[1, 50, 100])),
            stop_timeout: time(random),
            request_timeout: time(random),
            start_limit: (random.below(4) == 0).then(|| StartLimit {
                starts: 1 + random.below(5),
                period: Duration::from_secs(2),
            }),
            capture_output: false,
            max_uses: (random.below(3) == 0).then(|| 1 + random.below(4)),
            max_age: (random.below(3) == 0).then(|| Duration::from_secs(random.pick(&[60, 3_600]))),
            memory_recycle: random.coin().then_some(1 << 20),
        }
    }

    pub fn pool(self) -> Pool {
        Pool {
            min_children: self.min_children,
            min_idle: self.min_idle,
            max_idle: self.max_idle,
            spawn_ramp: if self.double {
                Ramp::Double
            } else {
                Ramp::Single
            },
            reply_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(7),
            preload: self.preload,
            ..Pool::ordered()
        }
    }
}

type Sort = fn(&mut Random) -> Happening;

/// The happenings without which nothing proceeds.
const LIFE: [Sort; 5] = [
    |_| Happening::Turn,
    |random| Happening::Live(random.byte()),
    |random| Happening::Live(random.byte()),
    |_| Happening::Template,
    |_| Happening::Client,
];

const SOMETIMES: [Sort; 35] = [
    |_| Happening::Sleep,
    |random| Happening::Pass(random.below(100)),
    |random| Happening::Pass(random.below(3_000)),
    |random| Happening::Pass(random.below(100_000)),
    |random| Happening::Retire(random.byte()),
    |random| Happening::Fail(random.byte()),
    |random| Happening::Crash(random.byte()),
    |random| Happening::Stop(random.byte()),
    |random| Happening::Continue(random.byte()),
    |random| Happening::Defy(random.byte()),
    |random| Happening::Silence(random.byte()),
    |random| Happening::Letter(random.byte()),
    |random| Happening::Lie(random.byte()),
    |random| Happening::HangUp(random.byte()),
    |random| Happening::SendDescriptors(random.byte()),
    |random| Happening::Hang(random.byte()),
    |random| Happening::Late(random.pick(&[0, 1, 2, 5])),
    |_| Happening::ChildFails,
    |_| Happening::Leave,
    |_| Happening::WriteWaits,
    |_| Happening::PingFails,
    |_| Happening::TemplateEnds,
    |_| Happening::TemplateRefuses,
    |_| Happening::TemplateHangs,
    |_| Happening::TemplateRenewed,
    |_| Happening::SpawnFails,
    |_| Happening::WatchFails,
    |_| Happening::Grow,
    |_| Happening::Count,
    |random| Happening::Edit(Settings::random(random)),
    |_| Happening::Reload,
    |_| Happening::Operator(OperatorRequest::Pause),
    |_| Happening::Operator(OperatorRequest::Resume),
    |_| Happening::Operator(OperatorRequest::Replace),
    |_| Happening::Calm,
];

/// Simulates as long as the options say, or until a failure.
pub fn run(options: &Options) -> Outcome {
    let mut steps = 0;
    let mut seed = options.seed;
    // With `--forever`, the other simulation does not end.
    let most = options.steps.unwrap_or(1_000_000) / SHARE;
    let mut coverage = Coverage::default();
    while options.choose("pools", "") && steps < most {
        let list = list(seed);
        if let Err(what) = replay(&list, &mut coverage, has_upgrades(seed)) {
            return Err(explain(seed, list, &what));
        }
        steps += list.len() as u64;
        seed += 1;
    }
    match coverage.missing_of_pools() {
        missing if steps >= ALL_COVERED && !missing.is_empty() => {
            Err(format!("never seen in {steps} steps of pools: {missing:?}"))
        }
        _ => Ok(format!("{steps} steps of pools simulated")),
    }
}

fn list(seed: u64) -> Vec<Happening> {
    let mut random = Random::new(seed);
    let mut sorts: Vec<Sort> = Vec::new();
    for sort in LIFE {
        sorts.extend([sort].repeat(8 << random.below(3)));
    }
    for sort in SOMETIMES {
        if random.coin() {
            sorts.extend([sort].repeat(1 << random.below(3)));
        }
    }
    let settings = Settings::random(&mut random);
    let mut list = vec![
        Happening::Edit(settings),
        Happening::Reload,
        Happening::Turn,
    ];
    list.extend((0..RUN).map(|_| random.pick(&sorts)(&mut random)));
    list.push(Happening::Calm);
    list
}

fn replay(list: &[Happening], coverage: &mut Coverage, has_upgrades: bool) -> Result<(), String> {
    guarded(|| {
        let mut simulation = if has_upgrades {
            Simulation::upgraded()
        } else {
            Simulation::new()
        };
        let result = list
            .iter()
            .try_for_each(|&happening| simulation.apply(happening));
        *coverage |= simulation.coverage;
        result
    })
}

/// The message with the seed and the shortest failing list.
fn explain(seed: u64, list: Vec<Happening>, what: &str) -> String {
    let all = list.len();
    let mut list = list;
    let replay = |list: &[Happening]| replay(list, &mut Coverage::default(), true);
    leave_out(&mut list, &|list: &[Happening]| replay(list).is_err());
    let few = list.len();
    let what = replay(&list).err().unwrap_or_else(|| what.to_owned());
    format!(
        "pools: seed {seed}: {few} of {all} happenings suffice: {what}\n{}",
        written(&list)
    )
}

/// The list in the form of a test.
fn written(list: &[Happening]) -> String {
    let items: String = list.iter().map(|h| format!("    {h:?},\n")).collect();
    format!("&[\n{items}]")
}
