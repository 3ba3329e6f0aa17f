//! Records the kinds of events, actions and records in a simulation: a simulation that never has
//! one of them proves nothing about it.

use std::ops::BitOrAssign;

use master::policy::{Action, Event, Kind};

/// The compiler checks that no kind is missing.
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

/// One kind.
struct Bit(u64);

sorts! {
    EVENTS of Event: Connection Waiting Report PoolReport PoolGarbage OrderFailed ChannelClosed
        SentDescriptors Spawned SpawnFailed ExecHangs WatchFailed Exited Deadline Reload Pause
        Resume Replace Wake Verbose Stop Measured;
    ACTIONS of Action: Watch Unwatch Spawn Signal Order CloseChannel Wake Close Terminate Log Measure;
    KINDS of Kind: Ended BadStartup Crashing Throttled Unthrottled InVain StartLimit SpawnFailed WatchFailed
        LimitReached Stalled StressBegins StressEnds Added Removed Killing PartialReport ForgedReport
        StaleReport UnknownStatus SentDescriptors Suppressed ExecHangs Rogue Overdue TooLong
        Lingering PoolFull Terminating Counts States Spawned Waking Recycled;
}

/// Kinds that only occur with ordered pools, which have a simulation of their own.
const POOLS: [&str; 11] = [
    "Event::PoolReport",
    "Event::PoolGarbage",
    "Event::OrderFailed",
    "Event::ChannelClosed",
    "Action::Order",
    "Kind::Rogue",
    "Kind::PoolFull",
    "Kind::States",
    "Event::Measured",
    "Action::Measure",
    "Kind::Recycled",
];

/// Kinds that occur with pools, too.
const BOTH: [&str; 12] = [
    "Kind::InVain",
    "Event::SentDescriptors",
    "Event::ExecHangs",
    "Action::CloseChannel",
    "Kind::BadStartup",
    "Kind::Overdue",
    "Kind::Throttled",
    "Kind::Unthrottled",
    "Kind::TooLong",
    "Kind::Lingering",
    "Kind::SentDescriptors",
    "Kind::ExecHangs",
];

/// All kinds that have occurred.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    events: u64,
    actions: u64,
    kinds: u64,
}

impl Coverage {
    pub fn event(&mut self, event: &Event) {
        self.events |= Bit::from(event).0;
    }

    pub fn action(&mut self, action: &Action) {
        self.actions |= Bit::from(action).0;
        if let Action::Log(record) = action {
            self.kinds |= Bit::from(&record.kind).0;
        }
    }

    /// The names of the kinds that have not occurred, without those of pools.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = self.never();
        missing.retain(|name| !POOLS.contains(name));
        missing
    }

    /// The names of the kinds of pools that have not occurred.
    pub fn missing_of_pools(&self) -> Vec<&'static str> {
        let mut missing = self.never();
        missing.retain(|name| POOLS.contains(name) || BOTH.contains(name));
        missing
    }

    fn never(&self) -> Vec<&'static str> {
        let all = [
            (EVENTS, self.events),
            (ACTIONS, self.actions),
            (KINDS, self.kinds),
        ];
        let never = all.into_iter().flat_map(|(names, bits)| {
            let names = names.iter().enumerate();
            names.filter_map(move |(at, name)| ((bits >> at) & 1 == 0).then_some(*name))
        });
        never.collect()
    }
}

impl BitOrAssign for Coverage {
    fn bitor_assign(&mut self, other: Self) {
        self.events |= other.events;
        self.actions |= other.actions;
        self.kinds |= other.kinds;
    }
}
