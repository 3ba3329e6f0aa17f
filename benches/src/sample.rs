//! Takes a sample of each measure of a master.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::effort::Effort;
use crate::load::{self, Load};
use crate::measure::{Measure, Series};
use crate::processor::OneProcessor;
use crate::system::{CROWD, Running, System, table};
use crate::{micros, millis};

/// The number of masters that are started for one sample. The scheduler places clients and children
/// on the processors in one of two ways for the lifetime of a master, one of which is nearly twice
/// as fast with any master, so one master is not enough.
const MASTERS: usize = 12;

/// Takes one sample of each measure.
pub fn sample(master: &Path, effort: Effort, series: &mut Series) -> Result<()> {
    let system = System::new()?;
    warm(&system, master, effort, series)?;
    crowded(&system, master, effort, series)?;
    for &services in effort.services {
        grown(&system, master, effort, services, series)?;
    }
    Ok(())
}

/// Connections to running children.
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

/// A master with one service that has as many children as the load needs.
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

/// The master's processor time under load from `clients` clients, and the clients' measurements.
fn under_load(
    running: &Running<'_>,
    socket: &Path,
    connections: usize,
    clients: usize,
) -> Result<(Duration, Load)> {
    running.rest()?;
    let before = running.process().cpu_with_helpers()?;
    let load = load::run(socket, connections, clients)?;
    running.rest()?;
    Ok((running.process().cpu_with_helpers()? - before, load))
}

/// Connections to a service, with a child for each, while another service has many children; and
/// the time to the first byte while all of these end at once.
fn crowded(system: &System, master: &Path, effort: Effort, series: &mut Series) -> Result<()> {
    system.configure(CROWD)?;
    let running = system.start(master)?;
    let clients = load::hold(&system.socket("s0"), effort.children)?;
    let socket = system.socket("other");
    load::run(&socket, 20, 1)?;
    let (cost, _) = under_load(&running, &socket, effort.spawns, 1)?;
    let measure = Measure::CrowdedSpawnCpu(effort.children);
    add(series, measure, micros(cost) / effort.spawns as f64);
    let ends = load::while_visited(&socket, || {
        drop(clients);
        running.wait_for_few_children()
    })?;
    let measure = Measure::FirstByteAtEnds(effort.children);
    add(series, measure, millis(ends.longest_wait()));
    Ok(())
}

/// A master with `services` services: its start, its memory, a child for each connection, a reload.
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
    add(
        series,
        Measure::StartCpu(services),
        millis(running.cpu_of_all()?),
    );
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
    running.wait_for_few_children()?;
    let before = running.cpu_of_all()?;
    running.reload()?;
    let cost = millis(running.cpu_of_all()? - before);
    add(series, Measure::ReloadCpu(services), cost);
    Ok(())
}

fn add(series: &mut Series, measure: Measure, value: f64) {
    series.entry(measure).or_default().push(value);
}
