//! What once broke a promise, as short as it got.

use crate::happening::Edit::Add;
use crate::happening::Happening::{
    self, Calm, Client, Edit, Hangup, Live, Sleep, Turn, WatchFails,
};
use crate::options::Options;
use crate::simulate::replay;

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

/// The number of lists that fail.
pub fn run(options: &Options) -> usize {
    let lists = LISTS.iter().filter(|(name, _)| options.choose(name));
    let failed = lists.filter(|(name, list)| match replay(list) {
        Ok(()) => false,
        Err(what) => {
            println!("{name}: {what}");
            true
        }
    });
    failed.count()
}
