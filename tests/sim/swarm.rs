//! Draws random happenings. Every run has its own weights and omits some kinds of happenings: a
//! permanent fault hides the effects of others (Groce et al., "Swarm testing", 2012).

use crate::happening::{Edit, Happening, OperatorRequest};
use crate::random::Random;

/// A kind of happenings, and how to draw one.
type Sort = fn(&mut Random) -> Happening;

/// The happenings without which nothing proceeds.
const LIFE: [Sort; 5] = [
    |_| Happening::Turn,
    |_| Happening::Turn,
    |random| Happening::Live(random.byte()),
    |random| Happening::Live(random.byte()),
    |random| Happening::Client(random.byte()),
];

const SOMETIMES: [Sort; 39] = [
    |_| Happening::Sleep,
    |random| Happening::Pass(random.below(2_000)),
    |random| Happening::Pass(random.below(100_000)),
    |random| Happening::Pass(random.below(3_000_000)),
    |random| Happening::Disorder(random.byte()),
    |random| Happening::Retire(random.byte()),
    |random| Happening::Fail(random.byte()),
    |random| Happening::Crash(random.byte(), random.pick(&[9, 11, 15])),
    |random| Happening::Defy(random.byte()),
    |random| Happening::Vanish(random.byte()),
    |random| Happening::Lose(random.byte()),
    |random| Happening::Echo(random.byte()),
    |random| Happening::Stale(random.byte()),
    |random| Happening::Forge(random.byte(), random.byte()),
    |random| Happening::Stray(random.byte(), random.byte()),
    |random| Happening::Unknown(random.byte()),
    |random| Happening::Garbage(random.byte()),
    |random| Happening::SendDescriptors(random.byte()),
    |random| Happening::Hang(random.byte()),
    |random| Happening::Late(random.pick(&[0, 1, 2, 5])),
    |random| Happening::Template(random.byte()),
    |random| Happening::Template(random.byte()),
    |random| Happening::TemplateEnds(random.byte()),
    |random| Happening::TemplateRefuses(random.byte()),
    |random| Happening::TemplateHangs(random.byte()),
    |random| Happening::TemplateRenewed(random.byte()),
    |_| Happening::SpawnFails,
    |_| Happening::WatchFails,
    |_| Happening::Count,
    |_| Happening::Look,
    edit,
    |random| Happening::KillTime(random.pick(&[0, 1, 10, 60])),
    |_| Happening::Hangup,
    |random| Happening::Operator(random.byte(), OperatorRequest::Pause),
    |random| Happening::Operator(random.byte(), OperatorRequest::Resume),
    |random| Happening::Operator(random.byte(), OperatorRequest::Replace),
    |random| Happening::Operator(random.byte(), OperatorRequest::Wake),
    |random| Happening::Verbose(random.coin()),
    |random| Happening::Stop(random.coin()),
];

fn edit(random: &mut Random) -> Happening {
    let edit = match random.below(14) {
        0 => Edit::Add,
        1 => Edit::Remove,
        2 => Edit::Rename,
        3 => Edit::Move(random.byte()),
        4 => Edit::Max(random.pick(&[0, 1, 2, 3, 5])),
        5 => Edit::Wakeup(random.pick(&[0, 1, 30, 60, 100])),
        6 => Edit::WakeupOnceUsed(random.pick(&[1, 30, 60, 100])),
        7 => Edit::ThrottleMost(random.pick(&[0, 1, 10, 60])),
        8 => Edit::CrashPercent(random.pick(&[0, 1, 10, 50, 100])),
        9 => Edit::StopTimeout(random.pick(&[0, 1, 10, 60])),
        10 => Edit::RequestTimeout(random.pick(&[0, 1, 10, 60])),
        11 => Edit::StartLimit(random.pick(&[0, 1, 3])),
        12 => Edit::Preload(random.coin()),
        _ => Edit::ThrottleTime(random.pick(&[0, 1, 10, 60])),
    };
    Happening::Edit(random.byte(), edit)
}

/// The mixture of a run.
#[derive(Debug)]
pub struct Swarm {
    /// Each kind, as often as its weight.
    sorts: Vec<Sort>,
}

impl Swarm {
    pub fn new(random: &mut Random) -> Self {
        let mut sorts = Vec::new();
        for sort in LIFE {
            sorts.extend([sort].repeat(8 << random.below(3)));
        }
        for sort in SOMETIMES {
            if random.coin() {
                sorts.extend([sort].repeat(1 << random.below(4)));
            }
        }
        Self { sorts }
    }

    /// The first lines of the table.
    pub fn opening(&self, random: &mut Random) -> Vec<Happening> {
        let mut opening = Vec::new();
        for endpoint in 0..4 {
            if random.coin() {
                opening.push(Happening::Edit(endpoint, Edit::Add));
            }
        }
        opening.extend((0..random.below(6)).map(|_| edit(random)));
        opening.extend([Happening::Hangup, Happening::Turn]);
        opening
    }

    pub fn next(&self, random: &mut Random) -> Happening {
        random.pick(&self.sorts)(random)
    }
}
