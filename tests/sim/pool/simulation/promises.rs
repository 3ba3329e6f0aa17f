//! The invariants of the pool, after every turn and at the end.

use std::time::Duration;

use master::policy::State;

use super::process::{Phase, Process};
use super::{Broken, Faults, Settings, Simulation};
use crate::happening::OperatorRequest;
use crate::template::Template;

/// How long an unanswered order delays other orders (master(8)).
const TIMEOUT: Duration = Duration::from_millis(50);
/// Longer than all timeouts of a child and of a throttle in sequence.
const CALM: Duration = Duration::from_secs(500);
const ROUNDS_MAX: usize = 20_000;
/// How long a pool whose children have an age may take to come to rest after that.
const AGING_ROUNDS: usize = 100;

impl Simulation {
    /// Checked after the deadlines.
    pub(super) fn check_clients_time(&self) -> Result<(), Broken> {
        let limit = self.in_force.limits.request_timeout;
        let too_long = |p: &Process| {
            let ends = p.busy_since.zip(limit).map(|(since, limit)| since + limit);
            ends.is_some_and(|at| at <= self.now)
        };
        match self.processes.iter().find(|p| too_long(p)) {
            Some(process) => Err(format!("{} has its client for too long", process.pid)),
            None => Ok(()),
        }
    }

    /// Checked after every turn.
    pub(super) fn check(&self) -> Result<(), Broken> {
        self.table.check()?;
        let Some(service) = self.table.service(self.place) else {
            return Ok(());
        };
        let idle = self.processes.iter().filter(|p| p.idle).count();
        let found = (service.avail() as usize, service.total() as usize);
        if found != (idle, self.processes.len()) {
            let expected = (idle, self.processes.len());
            return Err(format!(
                "(idle, total) is {found:?} and should be {expected:?}"
            ));
        }
        if self.queue.is_empty() && service.listening() != self.watched {
            return Err("the table believes something else to be watched".into());
        }
        let recent = |p: &Process| p.ordered_at.is_some_and(|at| self.now < at + TIMEOUT);
        let excused = self.watched
            || self.refused
            || !self.queue.is_empty()
            || self.processes.iter().any(recent);
        let blind = self.refused || service.throttled();
        if self.queue.is_empty() && self.paused && self.watched {
            return Err("a paused service is watched".into());
        }
        if self.waiting > 0 && idle > 0 && !excused && !blind && !self.paused {
            return Err("a client waits although a child is idle".into());
        }
        Ok(())
    }

    pub(super) fn sleep(&mut self) -> Result<(), Broken> {
        let hangs = |p: &Process| p.phase == Phase::Hanging && !p.hang_reported;
        let talking =
            |p: &Process| hangs(p) || p.held && (!p.words.is_empty() || !p.open && !p.end_read);
        let busy = self.watched && self.waiting > 0 && !self.refused;
        let quiet = self.template.as_ref().is_none_or(Template::is_quiet);
        if quiet && !busy && !self.processes.iter().any(|p| talking(p) || p.end.is_some()) {
            let template = self.template.as_ref().and_then(Template::deadline);
            let next = self.table.next_deadline().into_iter().chain(template).min();
            if let Some(at) = next {
                self.now = self.now.max(at);
            }
        }
        self.turn()
    }

    pub(super) fn calm(&mut self) -> Result<(), Broken> {
        self.faults = Faults::default();
        self.late = None;
        self.steerings.push(OperatorRequest::Resume);
        for process in &mut self.processes {
            process.stopped = false;
            process.defiant = false;
        }
        if let Some(template) = &mut self.template {
            template.recover();
        }
        let end = self.now + CALM;
        let mut served = false;
        for _ in 0..ROUNDS_MAX {
            served |= self.waiting == 0;
            if self.now >= end {
                break;
            }
            let lived = self.live_all();
            if lived { self.turn()? } else { self.sleep()? }
        }
        if self.table.service(self.place).is_none() {
            return Ok(());
        }
        // Children come of age all the time; not all of them at once.
        for _ in 0..AGING_ROUNDS {
            if self.in_force.limits.max_age.is_none() || self.check_rest().is_ok() {
                break;
            }
            let lived = self.live_all();
            if lived { self.turn()? } else { self.sleep()? }
        }
        if served {
            self.check_rest()
        } else {
            Err("a client is not served".into())
        }
    }

    /// Lets the template and all processes take a step; false if none had one.
    fn live_all(&mut self) -> bool {
        let any = self.template.as_mut().is_some_and(Template::live);
        let count = self.processes.len();
        (0..count).fold(any, |any, at| self.live(at) | any)
    }

    /// Checks that a pool at rest is within its bounds.
    fn check_rest(&self) -> Result<(), Broken> {
        let Settings {
            max,
            min_children,
            min_idle,
            max_idle,
            ..
        } = self.in_force;
        let state = |p: &Process| self.table.state_of(p.pid);
        let states: Vec<_> = self.processes.iter().filter_map(state).collect();
        let total = states.len() as u32;
        let idle = states.iter().filter(|s| **s == State::Idle).count() as u32;
        let most = if max == 0 { u32::MAX } else { max };
        let rest = states
            .iter()
            .all(|s| matches!(s, State::Idle | State::Busy));
        let enough = idle >= min_idle || total == most;
        let surplus = idle > max_idle && total > min_children;
        if rest && total >= min_children && total <= most && enough && !surplus {
            Ok(())
        } else {
            Err(format!("at rest: {states:?} under {:?}", self.in_force))
        }
    }
}
