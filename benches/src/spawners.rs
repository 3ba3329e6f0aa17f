//! Compares our `spawn` under our master with Postfix's spawn(8) under Postfix's master. Both start
//! the same static child for each connection, as another user.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result};

use crate::effort::Effort;
use crate::load;
use crate::millis;
use crate::others::Table;
use crate::system::System;

/// Postfix's spawn(8).
const ORIGINAL: &str = "/usr/lib/postfix/sbin/spawn";

/// Measures both alternately, in `rounds` rounds. Returns a table in Markdown.
pub fn measure(masters: [&Path; 2], effort: Effort, rounds: usize) -> Result<String> {
    let ours = masters[0].with_file_name("spawn");
    let pairs = [
        ("our master and spawn", masters[0], ours.as_path()),
        (
            "Postfix's master and spawn(8)",
            masters[1],
            Path::new(ORIGINAL),
        ),
    ];
    let mut table = Table::new(pairs.iter().map(|(name, ..)| *name));
    for _ in 0..rounds {
        for (at, (name, master, spawn)) in pairs.iter().enumerate() {
            table.add(at, sample(master, spawn, effort).context(*name)?);
        }
    }
    Ok(table.markdown("masters"))
}

/// Connections per second with one and with eight clients, and the time to the first byte with one.
fn sample(master: &Path, spawn: &Path, effort: Effort) -> Result<[f64; 3]> {
    let system = System::new()?;
    system.install(spawn, "spawn")?;
    // The port is free for a moment until the master binds it; no other program takes it.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let child = system.path("sbin/child");
    system.configure(&format!(
        "{address} inet n n n - 100 spawn user=daemon argv={} cat\n",
        child.display()
    ))?;
    let _running = system.start(master)?;
    let run = |clients| load::run_visits(effort.spawns, clients, || load::echo(address));
    run(8)?;
    let (one, eight) = (run(1)?, run(8)?);
    Ok([one.rate(), eight.rate(), millis(one.median_wait())])
}
