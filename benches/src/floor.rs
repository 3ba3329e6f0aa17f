//! The lower bound: the same work without a master, measured in the same run. No master can be
//! cheaper. The last column of the table compares our master with it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, recv, socket,
    socketpair,
};

use master::protocol::StatusReport;

use crate::effort::Effort;
use crate::measure::Measure;
use crate::spawn::{cpu, spawn};
use crate::spread::Spread;
use crate::system::System;
use crate::{micros, millis};

/// Samples of the lower bounds, one for each round.
#[derive(Default)]
pub struct Floors {
    spawn_cpu: Vec<f64>,
    spawn_millis: Vec<f64>,
    reports: Vec<f64>,
    start: BTreeMap<usize, Vec<f64>>,
}

impl Floors {
    /// Takes one sample of each bound.
    pub fn measure(&mut self, effort: Effort) -> Result<()> {
        let spawn = spawn(effort.spawns as u32)?;
        self.spawn_cpu.push(micros(spawn.cpu));
        self.spawn_millis.push(millis(spawn.elapsed));
        let connections = effort.connections as u32;
        self.reports.push(micros(reports(connections)?));
        for &services in effort.services {
            let system = System::new()?;
            let cpu = listeners(&system.path("queue/private"), services)?;
            self.start.entry(services).or_default().push(millis(cpu));
        }
        Ok(())
    }

    /// The lower bound of a measure; for a rate, the upper bound.
    pub fn of(&self, measure: Measure) -> Option<f64> {
        let median = |samples: &[f64]| Spread::of(samples).median;
        match measure {
            Measure::WarmCpu(_) => Some(median(&self.reports)),
            Measure::SpawnRate(1) => Some(1e3 / median(&self.spawn_millis)),
            Measure::FirstByte(_) => Some(median(&self.spawn_millis)),
            Measure::SpawnCpu(_) | Measure::CrowdedSpawnCpu(_) => Some(median(&self.spawn_cpu)),
            Measure::StartCpu(services) => Some(median(self.start.get(&services)?)),
            _ => None,
        }
    }
}

/// The processor time for receiving two reports for each connection, many in one call.
fn reports(connections: u32) -> Result<Duration> {
    const AT_ONCE: u32 = 16;
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    let mut bytes = [0; AT_ONCE as usize * 2 * StatusReport::SIZE];
    let mut spent = Duration::ZERO;
    for _ in 0..connections / AT_ONCE {
        for _ in 0..AT_ONCE * 2 {
            nix::unistd::write(&theirs, &[0; StatusReport::SIZE])?;
        }
        let before = cpu()?;
        recv(ours.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
        spent += cpu()? - before;
    }
    Ok(spent / (connections / AT_ONCE * AT_ONCE))
}

/// The processor time for creating `count` listening sockets.
fn listeners(directory: &Path, count: usize) -> Result<Duration> {
    let before = cpu()?;
    let listeners = (0..count)
        .map(|n| listener(&directory.join(format!("s{n}"))))
        .collect::<Result<Vec<_>>>()?;
    let spent = cpu()? - before;
    drop(listeners);
    Ok(spent)
}

fn listener(path: &Path) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    listen(&fd, Backlog::new(100)?)?;
    Ok(fd)
}
