//! The measures, their descriptions and their goals.

use std::collections::BTreeMap;

use crate::spread::Goal;

/// One measure. Its parameter is named in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Processor time for a connection to a running child (clients).
    WarmCpu(usize),
    /// Connections per second to running children (clients).
    WarmRate(usize),
    /// The same with all processes on one processor (clients).
    WarmRateOfOne(usize),
    /// Connections per second with a new child for each (clients).
    SpawnRate(usize),
    /// Median time to the first byte of such a connection (clients).
    FirstByte(usize),
    /// Processor time for such a connection (services).
    SpawnCpu(usize),
    /// The same with one service, while another service has many children (children).
    CrowdedSpawnCpu(usize),
    /// Longest time to the first byte of a service's client while all children of another service
    /// end at once (children).
    FirstByteAtEnds(usize),
    /// Processor time of the start (services).
    StartCpu(usize),
    /// Processor time of a reload without changes (services).
    ReloadCpu(usize),
    /// The master's private memory after the start (services).
    Private(usize),
    /// The master's proportional memory (PSS) after the start (services).
    Pss(usize),
}

/// Samples of each measure, one for each round.
pub type Series = BTreeMap<Measure, Vec<f64>>;

impl Measure {
    /// The description and the unit; `None` for a measure that is not in the table.
    pub fn described(self) -> Option<(String, &'static str)> {
        let described = match self {
            Self::WarmCpu(clients) => (
                format!("CPU per connection, warm children, {clients} at a time"),
                "us",
            ),
            Self::WarmRate(clients) => (
                format!("connections, warm children, {clients} at a time"),
                "1/s",
            ),
            Self::WarmRateOfOne(clients) => (
                format!("connections, warm children, one processor, {clients} at a time"),
                "1/s",
            ),
            Self::SpawnRate(clients) => (
                format!("connections, a child for each, {clients} at a time"),
                "1/s",
            ),
            Self::FirstByte(_) => ("first byte from a new child".into(), "ms"),
            Self::SpawnCpu(services) => (format!("CPU per spawn, {}", counted(services)), "us"),
            Self::CrowdedSpawnCpu(children) => (
                format!("CPU per spawn, 2 services, {children} children of the other"),
                "us",
            ),
            Self::FirstByteAtEnds(children) => (
                format!("{children} children that end at once: another service's first byte"),
                "ms",
            ),
            Self::StartCpu(services) => (format!("CPU to start, {}", counted(services)), "ms"),
            Self::ReloadCpu(5_000) => ("CPU to reload, 5000 services".into(), "ms"),
            Self::Private(services) => (format!("private memory, {}", counted(services)), "KiB"),
            Self::Pss(1) => ("Pss, 1 service".into(), "KiB"),
            Self::ReloadCpu(_) | Self::Pss(_) => return None,
        };
        Some(described)
    }

    /// The goal for the ratio of our value to Postfix's.
    pub fn goal(self) -> Goal {
        use Goal::{AtLeast, AtMost, Within};
        match self {
            Self::WarmCpu(1) => AtMost(0.45),
            Self::WarmCpu(8) => AtMost(0.25),
            Self::WarmRate(8) => AtLeast(0.97),
            Self::SpawnRate(1 | 8) => AtLeast(1.4),
            Self::FirstByte(1) => AtMost(0.5),
            Self::SpawnCpu(1) => AtMost(0.42),
            Self::SpawnCpu(5_000) => AtMost(0.17),
            Self::CrowdedSpawnCpu(5_000) => AtMost(0.2),
            Self::FirstByteAtEnds(5_000) => Within(1.2, 250.0),
            Self::StartCpu(5_000) => AtMost(0.42),
            Self::ReloadCpu(5_000) => AtMost(0.35),
            Self::Private(1) => AtMost(0.5),
            Self::Private(5_000) => AtMost(1.0),
            Self::Pss(1) => AtMost(0.5),
            _ => Goal::None,
        }
    }
}

fn counted(services: usize) -> String {
    match services {
        1 => "1 service".into(),
        n => format!("{n} services"),
    }
}
