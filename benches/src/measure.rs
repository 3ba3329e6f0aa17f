//! What is measured of a master, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::growth;
use crate::load::{self, Load};
use crate::processor::OneProcessor;
use crate::system::{Running, System, table};
use crate::{micros, millis};

/// One number; what it counts is in the parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Processor time for a connection that a child takes by itself (clients).
    WarmCpu(usize),
    /// Such connections in a second (clients).
    WarmRate(usize),
    /// The same where all share one processor (clients).
    WarmRateOfOne(usize),
    /// Connections in a second, each with a child of its own (clients).
    SpawnRate(usize),
    /// How long the first byte of such a connection takes, for half of them (clients).
    FirstByte(usize),
    /// Processor time for such a connection (services).
    SpawnCpu(usize),
    /// The same with one service, while another has many children (children).
    CrowdedSpawnCpu(usize),
    /// Processor time of the start (services).
    StartCpu(usize),
    /// Processor time of a reload that changes nothing (services).
    ReloadCpu(usize),
    /// Memory of the master's own after the start (services).
    Private(usize),
    /// Memory after the start (services).
    Pss(usize),
}

/// Samples of each measure, one from every round.
pub type Series = BTreeMap<Measure, Vec<f64>>;

/// How much is done for one sample.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub connections: usize,
    pub spawns: usize,
    /// Connections that children accept when told to.
    pub ordered: usize,
    /// How many children live at a time, and end at once.
    pub children: usize,
    /// Numbers of services that masters are started with.
    pub services: &'static [usize],
}

impl Effort {
    pub const FULL: Self = Self {
        connections: 20_000,
        spawns: 1_000,
        ordered: 5_000,
        children: 5_000,
        services: &[1, 100, 1_000, 3_000, 5_000],
    };
    pub const QUICK: Self = Self {
        connections: 2_000,
        spawns: 200,
        ordered: 500,
        children: 1_000,
        services: &[1, 100, 1_000, 3_000, 5_000],
    };
}

/// Clients and children share the processors in one of two ways for as long as a master lives, and
/// are nearly twice as fast in one of them, whoever the master is. One master would tell of nothing
/// else, so many are started.
const MASTERS: usize = 12;
/// A pool is put under load so many times, for the same reason.
pub const RUNS: usize = 6;

/// Takes one sample of everything.
pub fn sample(master: &Path, effort: Effort, series: &mut Series) -> Result<()> {
    let system = System::new()?;
    warm(&system, master, effort, series)?;
    crowded(&system, master, effort, series)?;
    for &services in effort.services {
        grown(&system, master, effort, services, series)?;
    }
    Ok(())
}

/// Connections that children take by themselves.
fn warm(system: &System, master: &Path, effort: Effort, series: &mut Series) -> Result<()> {
    const CLIENTS: [usize; 2] = [1, 8];
    let mut totals = CLIENTS.map(|_| (Duration::ZERO, Duration::ZERO));
    for _ in 0..MASTERS {
        let (running, socket) = warmed_up(system, master, effort)?;
        for (clients, (spent, elapsed)) in CLIENTS.into_iter().zip(&mut totals) {
            let (cost, load) = under_load(&running, &socket, effort.connections, clients)?;
            *spent += cost;
            *elapsed += load.elapsed;
        }
    }
    for (clients, (spent, elapsed)) in CLIENTS.into_iter().zip(totals) {
        let connections = (MASTERS * effort.connections) as f64;
        add(
            series,
            Measure::WarmCpu(clients),
            micros(spent) / connections,
        );
        let rate = connections / elapsed.as_secs_f64();
        add(series, Measure::WarmRate(clients), rate);
    }
    let _processor = OneProcessor::take()?;
    let (_running, socket) = warmed_up(system, master, effort)?;
    for clients in CLIENTS {
        let load = load::run(&socket, effort.connections * 2, clients)?;
        add(series, Measure::WarmRateOfOne(clients), load.rate());
    }
    Ok(())
}

/// A master with one service, of which there are as many children as will ever be needed.
fn warmed_up<'a>(
    system: &'a System,
    master: &Path,
    effort: Effort,
) -> Result<(Running<'a>, PathBuf)> {
    system.configure(&table(1, "warm"))?;
    let running = system.start(master)?;
    let socket = system.socket("s0");
    load::run(&socket, effort.connections / 4, 8)?;
    Ok((running, socket))
}

/// The processor time that a master uses while it has so many clients, and what these have seen.
fn under_load(
    running: &Running<'_>,
    socket: &Path,
    connections: usize,
    clients: usize,
) -> Result<(Duration, Load)> {
    running.rest()?;
    let before = running.process().cpu()?;
    let load = load::run(socket, connections, clients)?;
    running.rest()?;
    Ok((running.process().cpu()? - before, load))
}

/// A child for each connection to a service, while another one's children are many.
fn crowded(system: &System, master: &Path, effort: Effort, series: &mut Series) -> Result<()> {
    system.configure(growth::BOTH)?;
    let running = system.start(master)?;
    let _clients = growth::hold(&system.socket("s0"), effort.children)?;
    let socket = system.socket("other");
    load::run(&socket, 20, 1)?;
    let (cost, _) = under_load(&running, &socket, effort.spawns, 1)?;
    let measure = Measure::CrowdedSpawnCpu(effort.children);
    add(series, measure, micros(cost) / effort.spawns as f64);
    Ok(())
}

/// A master with so many services: its start, its memory, a child for each connection, a reload.
fn grown(
    system: &System,
    master: &Path,
    effort: Effort,
    services: usize,
    series: &mut Series,
) -> Result<()> {
    system.configure(&table(services, "once"))?;
    let mut running = system.start(master)?;
    let process = running.process();
    add(series, Measure::StartCpu(services), millis(process.cpu()?));
    let memory = process.memory()?;
    add(series, Measure::Private(services), memory.private as f64);
    add(series, Measure::Pss(services), memory.pss as f64);
    let socket = system.socket("s0");
    load::run(&socket, 20, 1)?;
    let (cost, load) = under_load(&running, &socket, effort.spawns, 1)?;
    add(
        series,
        Measure::SpawnCpu(services),
        micros(cost) / effort.spawns as f64,
    );
    if services == 1 {
        add(series, Measure::SpawnRate(1), load.rate());
        let wait = millis(load.median_wait());
        add(series, Measure::FirstByte(1), wait);
        let load = load::run(&socket, effort.spawns * 2, 8)?;
        add(series, Measure::SpawnRate(8), load.rate());
    }
    let before = process.cpu()?;
    running.reload()?;
    let cost = millis(process.cpu()? - before);
    add(series, Measure::ReloadCpu(services), cost);
    Ok(())
}

fn add(series: &mut Series, measure: Measure, value: f64) {
    series.entry(measure).or_default().push(value);
}
