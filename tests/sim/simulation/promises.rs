//! The invariants of the simulation, after every turn and at the end.

use std::sync::Arc;
use std::time::Duration;

use master::config::Service;
use master::policy::{Event, Time};

use super::{Broken, PARTS, Simulation, pid_of};
use crate::kernel::Kernel;

/// Maximum sleep of the runtime's loop.
const TURN_MAX: Duration = Duration::from_secs(500);
/// Every process takes a step in each round, so few rounds serve all clients; but wake-ups continue
/// while a service is throttled.
const ROUNDS_MAX: usize = 2000;

impl Simulation {
    /// The kernel has the listeners of these services and of removed services whose listeners are
    /// not closed yet.
    pub(super) fn check_open(&self, services: &[Arc<Service>]) -> Result<(), Broken> {
        if !self.queue.is_empty() {
            return Ok(());
        }
        let open = self.kernel.ports().map(|(_, port)| port.service.identity());
        let mut wanted: Vec<_> = services.iter().map(|service| service.identity()).collect();
        let mut open: Vec<_> = open.collect();
        wanted.sort_unstable();
        open.sort_unstable();
        if open == wanted {
            Ok(())
        } else {
            Err(format!("{open:?} are open instead of {wanted:?}"))
        }
    }

    /// Checked after every turn.
    pub(super) fn check(&mut self) -> Result<(), Broken> {
        self.table.check()?;
        self.model.compare_watched(&self.table)?;
        let (wanted, found) = (self.model.next_deadline(), self.deadline());
        if wanted != found {
            return Err(format!("the next deadline is {wanted:?}, not {found:?}"));
        }
        let known = |pid| self.table.service_of(pid).is_some();
        let Kernel {
            processes,
            vanished,
            ..
        } = &self.kernel;
        let mut pids = processes.iter().map(|process| process.pid);
        if !pids.all(known) || self.table.pids().count() != processes.len() + vanished.len() {
            return Err("the table has other processes".into());
        }
        for (at, process) in processes.iter().enumerate() {
            let account = &self.model.accounts[&process.place];
            let member = account.members[&process.pid];
            let removed = account.kill_at.is_some();
            let pending = self.queue.iter().any(|a| pid_of(a) == Some(process.pid));
            let known = removed || pending;
            if !known && self.kernel.told(at) != member.leaving {
                return Err(format!("pid {} was told something else", process.pid));
            }
        }
        Ok(())
    }

    /// Starts a new master after the old one and its children have ended.
    pub(super) fn start_again(&mut self, verbose: bool) -> Result<(), Broken> {
        let next = Self::with(Kernel::at(self.kernel.now), self.lines.clone(), verbose);
        let upgrades = self.table.is_begun();
        *self = Self {
            coverage: self.coverage,
            hangup: true,
            ..next
        };
        if upgrades {
            self.begin_upgrades(verbose);
        }
        self.reload()?;
        self.settle()
    }

    /// Sleeps until the next deadline; true if nothing else was to do.
    pub(super) fn sleep(&mut self) -> Result<bool, Broken> {
        let idle = self.kernel.connections().is_empty() && !self.hangup && self.stop.is_none();
        if !idle || !self.kernel.is_quiet() {
            return Ok(false);
        }
        let now = self.kernel.now;
        let templates = self.kernel.template_deadline().unwrap_or(Time::MAX);
        let at = self.deadline().unwrap_or(Time::MAX).min(now + TURN_MAX);
        let at = at.min(templates);
        self.kernel.pass(at.saturating_sub(now));
        self.turn(PARTS)?;
        Ok(true)
    }

    /// The faults end: all waiting clients must be served within the throttle time and delays.
    pub(super) fn calm(&mut self) -> Result<(), Broken> {
        self.kernel.calm = true;
        self.kernel.recover_templates();
        self.late = None;
        let paused = self.model.accounts.iter().filter(|(_, a)| a.paused);
        for service in paused.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.operate(Event::Resume { service })?;
        }
        self.turn(PARTS)?;
        let throttles = self.model.accounts.values().map(|a| a.throttled_until);
        let mut last = throttles.flatten().max().unwrap_or(self.kernel.now);
        for _ in 0..ROUNDS_MAX {
            if self.kernel.ports().all(|(_, port)| port.waiting == 0) {
                self.kernel.calm = false;
                return Ok(());
            }
            let lived = self.live_all();
            self.turn(PARTS)?;
            // `start_limit` allows a start in each of its periods.
            let delays = self.model.accounts.values().map(|a| a.delayed_until);
            last = last.max(delays.flatten().max().unwrap_or_default());
            if !lived && !self.live_all() {
                self.sleep()?;
            }
            if self.kernel.now > last {
                break;
            }
        }
        Err("a client is not served".into())
    }

    /// Lets all processes take a step; false if none had one.
    fn live_all(&mut self) -> bool {
        let count = self.kernel.processes.len();
        let any = self.kernel.live_templates();
        (0..count).fold(any, |any, at| self.kernel.live(at) | any)
    }
}

/// Checks that a record has words.
pub(super) fn said(line: &str) -> Result<(), Broken> {
    if line.is_empty() {
        Err("a record without words".into())
    } else {
        Ok(())
    }
}
