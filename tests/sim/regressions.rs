//! What once broke a promise, as short as it got.

use crate::Outcome;
use crate::happening::Edit::Add;
use crate::happening::Happening::{
    self, Calm, Client, Edit, Hangup, Live, Sleep, Turn, WatchFails,
};
use crate::options::Options;
use crate::replay::replay;

/// What it shows, and how.
const LISTS: [(&str, &[Happening]); 1] = [(
    "a_listener_that_could_not_be_watched_is_watched_later",
    &[
        Edit(0, Add),
        Hangup,
        WatchFails,
        Turn,
        Client(0),
        Sleep,
        Live(0),
        Calm,
    ],
)];

/// Runs them all.
pub fn run(options: &Options) -> Outcome {
    let chosen = LISTS.iter().filter(|(name, _)| options.choose(name));
    let mut count = 0;
    for (name, list) in chosen {
        replay(list).map_err(|what| format!("{name}: {what}"))?;
        count += 1;
    }
    Ok(format!("{count} regressions replayed"))
}
