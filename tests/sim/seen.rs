//! What the policy was told and what it wished, by sorts: a world that never comes up with one of
//! them proves nothing about it.

use std::ops::BitOrAssign;

use master::policy::{Action, Event, Record};

/// The compiler sees to it that no sort is left out.
macro_rules! sorts {
    ($($names:ident of $kind:ident: $($sort:ident)+;)+) => {$(
        const $names: &[&str] = &[
            $(concat!(stringify!($kind), "::", stringify!($sort))),+
        ];

        impl From<&$kind> for Bit {
            fn from(seen: &$kind) -> Self {
                enum Place { $($sort),+ }
                Self(match seen {
                    $($kind::$sort { .. } => 1 << Place::$sort as u64,)+
                })
            }
        }
    )+};
}

/// One sort.
struct Bit(u64);

sorts! {
    EVENTS of Event: Connection Connections Report Garbage Said Babbled Unwritable
        HungUp Spawned SpawnFailed WatchFailed Exit Deadline Reload Pause Resume Replace Wake
        Verbose Stop;
    ACTIONS of Action: Watch Unwatch Spawn Signal Order HangUp Dismiss Wake Close Terminate Log;
    RECORDS of Record: Ended BadStartup Crashing Throttled Unthrottled SpawnFailed WatchFailed
        LimitReached StressBegins StressEnds Added Removed Killing PartialReport ForgedReport StaleReport UnknownStatus
        Suppressed Rogue Overdue TooLong Lingering PoolFull Terminating Counts States Spawned Waking;
}

/// What only ordered pools have to do with, which have a world of their own.
const POOLS: [&str; 10] = [
    "Event::Connections",
    "Event::Said",
    "Event::Babbled",
    "Event::Unwritable",
    "Event::HungUp",
    "Action::Order",
    "Action::HangUp",
    "Record::Rogue",
    "Record::PoolFull",
    "Record::States",
];

/// What pools have to do with, too.
const BOTH: [&str; 6] = [
    "Record::BadStartup",
    "Record::Overdue",
    "Record::Throttled",
    "Record::Unthrottled",
    "Record::TooLong",
    "Record::Lingering",
];

/// All sorts that were seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    events: u64,
    actions: u64,
    records: u64,
}

impl Seen {
    pub fn event(&mut self, event: &Event) {
        self.events |= Bit::from(event).0;
    }

    pub fn action(&mut self, action: &Action) {
        self.actions |= Bit::from(action).0;
        if let Action::Log(record) = action {
            self.records |= Bit::from(record).0;
        }
    }

    /// The names of those that were not, of all that do not need pools.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = self.never();
        missing.retain(|name| !POOLS.contains(name));
        missing
    }

    /// The names of those that were not, of all that only pools have.
    pub fn missing_of_pools(&self) -> Vec<&'static str> {
        let mut missing = self.never();
        missing.retain(|name| POOLS.contains(name) || BOTH.contains(name));
        missing
    }

    fn never(&self) -> Vec<&'static str> {
        let all = [
            (EVENTS, self.events),
            (ACTIONS, self.actions),
            (RECORDS, self.records),
        ];
        let never = all.into_iter().flat_map(|(names, bits)| {
            let names = names.iter().enumerate();
            names.filter_map(move |(at, name)| ((bits >> at) & 1 == 0).then_some(*name))
        });
        never.collect()
    }
}

impl BitOrAssign for Seen {
    fn bitor_assign(&mut self, other: Self) {
        self.events |= other.events;
        self.actions |= other.actions;
        self.records |= other.records;
    }
}
