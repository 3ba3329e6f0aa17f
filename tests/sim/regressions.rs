//! The shortest lists that have failed once, or that detect a mutant of the policy that the random
//! simulation finds too rarely.

use crate::Outcome;
use crate::happening::Edit::{Add, Max, Wakeup};
use crate::happening::Happening::{
    self, Calm, Client, Edit, Fail, Hangup, Live, Pass, Sleep, Turn, WatchFails,
};
use crate::options::Options;
use crate::replay::replay;

/// What the list shows, and the list.
const LISTS: [(&str, &[Happening]); 2] = [
    (
        "a_listener_that_could_not_be_watched_is_watched_later",
        &[
            Edit(0, Add),
            Hangup,
            WatchFails,
            Turn,
            Sleep,
            Client(0),
            Calm,
        ],
    ),
    (
        "a_throttled_service_is_not_said_to_be_at_its_limit",
        &[
            Edit(0, Max(3)),
            Edit(0, Add),
            Hangup,
            Turn,
            Client(0),
            Turn,
            Live(0),
            Live(0),
            Turn,
            Client(0),
            Turn,
            Live(1),
            Live(1),
            Turn,
            Client(0),
            Turn,
            Fail(2),
            Edit(0, Max(2)),
            Hangup,
            Turn,
        ],
    ),
];

/// Enough reloads that cancelled wake-ups are removed in bulk: a throttle that ends earlier
/// prevents their removal one by one.
fn a_deadline_outlives_a_thousand_cancelled_ones() -> Vec<Happening> {
    let table = [Edit(0, Add), Edit(3, Wakeup(100)), Edit(3, Add)];
    let throttle = [Hangup, Turn, Client(0), Turn, Fail(0), Turn];
    let reload = [Pass(1), Hangup, Turn];
    [&table[..], &throttle, &reload.repeat(1100), &[Sleep, Sleep]].concat()
}

/// Runs all lists.
pub fn run(options: &Options) -> Outcome {
    let lists = LISTS.map(|(name, list)| (name, list.to_vec()));
    let long = (
        "a_deadline_outlives_a_thousand_cancelled_ones",
        a_deadline_outlives_a_thousand_cancelled_ones(),
    );
    let lists = lists.into_iter().chain([long]);
    let mut count = 0;
    for (name, list) in lists.filter(|(name, _)| options.choose("regressions", name)) {
        replay(&list).map_err(|what| format!("{name}: {what}"))?;
        count += 1;
    }
    Ok(format!("{count} regressions replayed"))
}
