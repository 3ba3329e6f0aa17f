//! Measures how long new clients wait because of an upgrade: they come one after the other, to a
//! service that starts a child for each, while the master is upgraded; and the same without upgrades,
//! which shows the load of the machine.

use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::effort::Effort;
use crate::spread::{Goal, Spread, number};
use crate::system::{System, table};
use crate::{load, millis};

/// Upgrades of a master with each number of services: of so few, the largest is the 99th percentile.
const UPGRADES: usize = 20;
/// The numbers of services, and the goals for the largest wait in milliseconds.
const SERVICES: [(usize, Goal); 2] = [(100, Goal::AtMost(50.0)), (5_000, Goal::AtMost(200.0))];

/// The largest waits for a first byte, in milliseconds.
#[derive(Default)]
struct Waits {
    upgraded: Vec<f64>,
    calm: Vec<f64>,
    /// What the master has logged as the time of the upgrade.
    logged: Vec<f64>,
}

fn sample(master: &Path, services: usize, upgrades: usize) -> Result<Waits> {
    let system = System::new()?;
    system.configure(&table(services, "once"))?;
    let running = system.start(master)?;
    let socket = system.socket("s0");
    let mut waits = Waits::default();
    for _ in 0..upgrades {
        let mut took = Duration::ZERO;
        let upgraded = load::while_visited(&socket, || {
            let begin = Instant::now();
            running.upgrade()?;
            took = begin.elapsed();
            Ok(())
        })?;
        waits.upgraded.push(millis(upgraded.longest_wait()));
        waits.logged.push(millis(running.upgrade_took()?));
        let calm = load::while_visited(&socket, || {
            thread::sleep(took);
            Ok(())
        })?;
        waits.calm.push(millis(calm.longest_wait()));
    }
    Ok(waits)
}

/// A table of the waits, and whether a goal was missed.
pub fn measure(master: &Path, effort: Effort) -> Result<(String, bool)> {
    let upgrades = UPGRADES * effort.spawns / Effort::FULL.spawns;
    let mut text = format!(
        "| services | a client's first byte at most, ms, median of {upgrades} upgrades | p99 \
         | goal | reached | without an upgrade, median | p99 | the upgrade by the log, ms |\n\
         |---:|---:|---:|---:|---|---:|---:|---:|\n"
    );
    let mut missed = false;
    for (services, goal) in SERVICES {
        eprintln!("upgrades with {services} services");
        let waits = sample(master, services, upgrades)?;
        let [upgraded, calm, logged] =
            [&waits.upgraded, &waits.calm, &waits.logged].map(|waits| Spread::of(waits));
        let reached = goal.reached(upgraded.max);
        missed |= reached == "NO";
        let _ = writeln!(
            text,
            "| {services} | {} | {} | {} | {reached} | {} | {} | {} |",
            number(upgraded.median),
            number(upgraded.max),
            goal.text(),
            number(calm.median),
            number(calm.max),
            logged.text(),
        );
    }
    let _ = writeln!(
        text,
        "\nClients come one after the other, each for a child of its own. The wait without an upgrade \
         is the longest in a time as long as an upgrade: the machine's own."
    );
    Ok((text, missed))
}
