//! Ordered pools, in a simulated world of their own: children that talk to the master one by one,
//! keep to the rules or do not, and a master that has promises to keep about each of them.

pub mod churn;
pub mod exhaust;
mod simulation;

use std::time::Duration;

use master::config::{ChildLimits, Pool, Ramp};

use crate::Outcome;
use crate::coverage::Coverage;
use crate::happening::Steering;
use crate::options::Options;
use crate::random::Random;
use crate::replay::guarded;
use crate::shrink::leave_out;
use simulation::Simulation;

/// Happenings in one run.
const RUN: usize = 500;
/// For every so many steps of the rest of the simulation, one of this one.
const SHARE: u64 = 20;
/// In so many steps there is room for every sort of event, action and record that pools have.
const ALL_COVERED: u64 = 400_000;

/// What can happen. A number says to which child, modulo how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The master has a turn.
    Turn,
    /// Nothing happens until the master's next deadline, which gets its turn.
    Sleep,
    /// Milliseconds go by.
    Pass(u32),
    Client,
    /// A child does what comes next in its life.
    Live(u8),
    /// A child has served enough, and leaves.
    Retire(u8),
    /// A child fails with an exit code, whatever it does.
    Fail(u8),
    /// Somebody kills a child.
    Crash(u8),
    /// A child does nothing until it is continued.
    Stop(u8),
    Continue(u8),
    /// A child does not end for any signal but SIGKILL.
    Defy(u8),
    /// A child does nothing more, without having said so.
    Silence(u8),
    /// A child says something that nobody understands, and nothing more.
    Letter(u8),
    /// A child says the contrary of the truth, and nothing more.
    Lie(u8),
    /// A child closes its channel, and lives on.
    HangUp(u8),
    /// A child sends file descriptors.
    SendDescriptors(u8),
    /// A child that is starting does not execute its program.
    Hang(u8),
    /// From now on, the master carries out only so many actions a turn, at its end; for 0, it
    /// carries out all at once again.
    Late(u8),
    /// The next child that is ordered to accept seems dead.
    ChildFails,
    /// The next order can only be written a turn later.
    WriteWaits,
    /// The next child that is pinged seems dead.
    PingFails,
    SpawnFails,
    WatchFails,
    /// From now on the system counts who waits, as for TCP, or no longer.
    Count,
    /// Somebody edits the settings and the process limit.
    Edit(Settings),
    /// Somebody asks for a reload.
    Reload,
    /// An operator wants something of the service.
    Steer(Steering),
    /// The faults end, everybody is served, and the pool comes to rest within its bounds.
    Calm,
}

/// Those of Postfix.
const NO_LIMITS: ChildLimits = ChildLimits::DEFAULT;

/// What somebody may write into the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub max: u32,
    pub min_children: u32,
    pub min_idle: u32,
    pub max_idle: u32,
    pub double: bool,
    pub limits: ChildLimits,
}

impl Settings {
    /// As the parser would have corrected it.
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
            limits: Self::random_limits(random),
        }
    }

    /// Half of all have none.
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
            capture_output: false,
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
            ..Pool::ordered()
        }
    }
}

type Sort = fn(&mut Random) -> Happening;

/// Without these nothing goes on.
const LIFE: [Sort; 4] = [
    |_| Happening::Turn,
    |random| Happening::Live(random.byte()),
    |random| Happening::Live(random.byte()),
    |_| Happening::Client,
];

const SOMETIMES: [Sort; 29] = [
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
    |_| Happening::WriteWaits,
    |_| Happening::PingFails,
    |_| Happening::SpawnFails,
    |_| Happening::WatchFails,
    |_| Happening::Count,
    |random| Happening::Edit(Settings::random(random)),
    |_| Happening::Reload,
    |_| Happening::Steer(Steering::Pause),
    |_| Happening::Steer(Steering::Resume),
    |_| Happening::Steer(Steering::Replace),
    |_| Happening::Calm,
];

/// Simulates as long as the options say, or until something breaks.
pub fn run(options: &Options) -> Outcome {
    let mut steps = 0;
    let mut seed = options.seed;
    // The other simulation goes on for ever, when one does.
    let most = options.steps.unwrap_or(1_000_000) / SHARE;
    let mut coverage = Coverage::default();
    while options.choose("pools", "") && steps < most {
        let list = list(seed);
        if let Err(what) = replay(&list, &mut coverage) {
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

fn replay(list: &[Happening], coverage: &mut Coverage) -> Result<(), String> {
    guarded(|| {
        let mut simulation = Simulation::new();
        let result = list
            .iter()
            .try_for_each(|&happening| simulation.apply(happening));
        *coverage |= simulation.coverage;
        result
    })
}

/// The seed, and the shortest list that shows what is wrong.
fn explain(seed: u64, list: Vec<Happening>, what: &str) -> String {
    let all = list.len();
    let mut list = list;
    let replay = |list: &[Happening]| replay(list, &mut Coverage::default());
    leave_out(&mut list, &|list: &[Happening]| replay(list).is_err());
    let few = list.len();
    let what = replay(&list).err().unwrap_or_else(|| what.to_owned());
    format!(
        "pools: seed {seed}: {few} of {all} happenings suffice: {what}\n{}",
        written(&list)
    )
}

/// The list as a test would have it.
fn written(list: &[Happening]) -> String {
    let items: String = list.iter().map(|h| format!("    {h:?},\n")).collect();
    format!("&[\n{items}]")
}
