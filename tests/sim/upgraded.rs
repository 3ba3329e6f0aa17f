//! A table that an upgrade interrupts again and again: its state becomes text, and another table goes
//! on from it. Beside it a table has the same events without an upgrade, and must ask for the same
//! actions.

use std::ops::Deref;
use std::sync::Arc;

use master::config::Service;
use master::policy::{Action, Event, Snapshot, Table, Time};

/// The average number of calls from one upgrade to the next.
const INTERVAL: u32 = 16;

/// Whether the run with this seed has upgrades: one of four, because they make a run take four times as
/// long.
pub fn has_upgrades(seed: u64) -> bool {
    seed % 4 == 0
}

#[derive(Debug)]
pub struct Upgraded {
    table: Table,
    /// None where nothing is upgraded.
    without: Option<Table>,
    /// Calls so far, in an order that has no period with those of the simulation.
    calls: u32,
}

impl Upgraded {
    /// A table that is not upgraded until that is [begun](Self::begin).
    pub fn new(table: Table) -> Self {
        Self {
            table,
            without: None,
            calls: 1,
        }
    }

    /// Upgrades from now on the table, which must be new; `same` is another new one.
    pub fn begin(&mut self, same: Table) {
        self.without = Some(same);
    }

    pub fn is_begun(&self) -> bool {
        self.without.is_some()
    }

    pub fn step(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        self.both(out, |table, out| table.step(now, event.clone(), out));
    }

    pub fn settle(&mut self, now: Time, out: &mut Vec<Action>) {
        self.both(out, |table, out| table.settle(now, out));
    }

    pub fn next_deadline(&mut self) -> Option<Time> {
        let deadline = self.table.next_deadline();
        if let Some(without) = &mut self.without {
            assert_eq!(deadline, without.next_deadline(), "after an upgrade");
        }
        deadline
    }

    fn both(&mut self, out: &mut Vec<Action>, act: impl Fn(&mut Table, &mut Vec<Action>)) {
        let Some(without) = &mut self.without else {
            return act(&mut self.table, out);
        };
        let mut expected = Vec::new();
        act(without, &mut expected);
        let before = out.len();
        act(&mut self.table, out);
        assert_eq!(out[before..], expected, "after an upgrade");
        // xorshift32 (Marsaglia, 2003).
        self.calls ^= self.calls << 13;
        self.calls ^= self.calls >> 17;
        self.calls ^= self.calls << 5;
        if self.calls % INTERVAL == 0 {
            self.upgrade();
        }
    }

    fn upgrade(&mut self) {
        let mut configs: Vec<Arc<Service>> = Vec::new();
        let snapshot = self.table.snapshot(|config| {
            configs.push(config.clone());
            configs.len() - 1
        });
        let text = serde_json::to_string(&snapshot).expect("text and numbers");
        let read: Snapshot = serde_json::from_str(&text).expect("what was written");
        self.table = Table::restore(&read, &configs).expect("what fits together");
        let again = self.table.snapshot(|_| 0);
        let again = serde_json::to_string(&again).expect("text and numbers");
        assert_eq!(without_configs(&again), without_configs(&text));
    }
}

/// A snapshot whose numbers of configurations do not matter.
fn without_configs(text: &str) -> String {
    let parts = text.split("\"config\":");
    let rest = parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
    rest.collect()
}

impl Deref for Upgraded {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}
