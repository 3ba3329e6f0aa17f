//! How many children there are before anybody asks for them: `min_idle` that wait, in ordered pools
//! also a floor under the total and an end to the surplus, and after a reload new ones for old.
//!
//! Children that are starting count as idle: they soon will be, and starting more because these
//! are slow would make them slower (Apache's prefork module counts so too; spamd does not, and
//! starts children under load that it ends a moment later). A surplus must last before a child is
//! ended for it, so that a load which comes and goes by the second is met by the same children.
//!
//! Starts that no client asked for keep a pace, so that a command which ends at once costs little.

use std::time::Duration;

use super::ordered::State;
use super::timers::Timer;
use super::{Action, Service, ServiceId, Table, Time};
use crate::config::{Pool, Ramp};
use crate::seldom::usual;

/// The next child is started when the last one is ready, or after so long (spamd,
/// `server-scale-period`).
const PERIOD: Duration = Duration::from_secs(2);
/// Two starts are at least so far apart, however fast the children are ready: 32 in a second.
const APART: Duration = Duration::from_micros(31_250);
/// The steps of a ramp.
const STEP: Duration = Duration::from_secs(1);
/// A ramp's steepest step (Apache, `MAX_SPAWN_RATE`).
const STEEPEST: u32 = 32;
/// A surplus must last so long before the first child is ended for it.
const SURPLUS_TIME: Duration = Duration::from_secs(30);
/// So many children are started at a time to take the places of those from before a reload.
const REPLACED_AT_A_TIME: u32 = 4;

/// How fast children are started that no client has asked for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Those of a new service that are started at once.
    filling: u32,
    last: Option<Time>,
    /// Of a ramp: the size of the step that began then, and how much of it is left.
    step: u32,
    left: u32,
    began: Option<Time>,
    /// When to look again whether one may be started.
    pub(super) start_at: Option<Time>,
    /// When one child too many is ended.
    pub(super) surplus_at: Option<Time>,
}

usual!(Pace);

impl Pace {
    /// Whether nothing is under way.
    fn is_still(&self) -> bool {
        self.filling == 0 && self.start_at.is_none() && self.surplus_at.is_none()
    }

    /// When the next child may be started, with so many that are not ready yet, and others that
    /// are gone or about to be.
    fn next(&self, ramp: Ramp, starting: u32, urgent: bool) -> Time {
        if self.filling > 0 {
            return Time::ZERO;
        }
        let after = |at: Option<Time>, time| at.map_or(Time::ZERO, |at| at + time);
        match ramp {
            Ramp::Double if self.left > 0 => Time::ZERO,
            Ramp::Double => after(self.began, STEP),
            Ramp::Single if starting == 0 || urgent => after(self.last, APART),
            Ramp::Single => after(self.last, PERIOD),
        }
    }

    fn start(&mut self, now: Time, ramp: Ramp) {
        self.last = Some(now);
        self.filling = self.filling.saturating_sub(1);
        if ramp == Ramp::Single {
            return;
        }
        let since = self
            .began
            .map_or(Time::MAX, |began| now.saturating_sub(began));
        if since >= STEP {
            // Who has had enough for a whole step begins with the smallest.
            let steeper = if since < 2 * STEP { 2 * self.step } else { 1 };
            self.step = steeper.min(STEEPEST);
            self.left = self.step;
            self.began = Some(now);
        }
        self.left = self.left.saturating_sub(1);
    }

    /// The service is no more.
    pub(super) fn stop(&mut self) {
        self.start_at = None;
        self.surplus_at = None;
    }
}

impl Service {
    /// Children that are there for clients: neither told to leave nor gone.
    fn staying(&self) -> u32 {
        match self.config.is_ordered() {
            true => self.pool.staying(),
            false => self.total - self.departing,
        }
    }

    /// Children that are lacking for the clients to come.
    fn lacking(&self) -> u32 {
        let pool = &self.config.pool;
        let coming = self.avail + self.pool.count(State::Starting);
        let idle = pool.min_idle.saturating_sub(coming);
        idle.max(self.pool.overloaded.into())
    }

    /// Children to start in the place of those from before the last reload.
    fn replacements(&self) -> u32 {
        let wanted = (self.pool.stale - self.pool.replaced).min(REPLACED_AT_A_TIME);
        wanted.saturating_sub(self.pool.count(State::Starting))
    }

    /// Whether clients alone decide how many children there are, as for most services.
    pub(super) fn keeps_nothing_warm(&self) -> bool {
        let wanted = |pool: &Pool| pool.is_ordered() || pool.min_idle > 0;
        let wanted = self.config.pool.own().is_some_and(wanted);
        let left = self.pool.own().is_some_and(|pool| !pool.is_empty());
        let moving = self.pace.own().is_some_and(|pace| !pace.is_still());
        !wanted && !left && !moving
    }

    /// Whether others are gone or about to be, in whose places children are to be started.
    fn has_gaps(&self) -> bool {
        let floor = self.config.pool.floor(self.config.max);
        self.staying() < floor || self.replacements() > 0
    }

    /// Whether another child should be there, although no client asked for it.
    fn wants_another(&self) -> bool {
        self.lacking() > 0 || self.has_gaps()
    }

    /// When another child can be started, if it can.
    fn next_start(&self) -> Option<Time> {
        let able = !self.spawning && !self.paused && !self.throttled() && self.has_room(self.total);
        let starting = self.pool.count(State::Starting);
        let ramp = self.config.pool.spawn_ramp;
        able.then(|| self.pace.next(ramp, starting, self.has_gaps()))
    }

    /// Whether an ordered pool lacks children that its limit has no room for.
    pub(super) fn is_short(&self) -> bool {
        let open = !self.throttled() && !self.removed() && !self.paused;
        let settled = || self.pool.count(State::Starting) == 0;
        let ordered = self.config.is_ordered();
        ordered && open && settled() && self.lacking() > 0 && !self.has_room(self.total)
    }

    fn has_surplus(&self) -> bool {
        let pool = &self.config.pool;
        let ordered = pool.is_ordered() && self.pool.stale == 0;
        ordered && self.avail > pool.max_idle && self.staying() > pool.min_children
    }
}

impl Table {
    /// A new service: its pool is filled.
    pub(super) fn fill(&mut self, id: ServiceId) {
        if let Some(service) = self.service_mut(id) {
            let pool = &service.config.pool;
            let filling = pool.floor(service.config.max).max(pool.min_idle);
            if filling > 0 && pool.spawn_ramp == Ramp::Single {
                service.pace.filling = filling;
            }
        }
    }

    /// After every change of a service that keeps children warm: ends those that are too many, and
    /// starts one that is lacking. What comes of it is a change again.
    pub(super) fn adapt(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        self.end_replaced(now, id, out);
        self.end_excess(now, id, out);
        self.mark_surplus(now, id);
        self.start_lacking(now, id, out);
    }

    fn start_lacking(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        service.pace.start_at = None;
        if !service.wants_another() {
            service.pace.filling = 0;
            return;
        }
        match service.next_start() {
            Some(at) if at > now => {
                service.pace.start_at = Some(at);
                self.timers.add(at, Timer::Start(id));
            }
            Some(_) => {
                let ramp = service.config.pool.spawn_ramp;
                service.pace.start(now, ramp);
                self.start_one(now, id, out);
            }
            None => {}
        }
    }

    /// The pace allows another start.
    pub(super) fn start_again(&mut self, id: ServiceId) {
        if let Some(service) = self.service_mut(id) {
            service.pace.start_at = None;
        }
        self.touch(id);
    }

    fn mark_surplus(&mut self, now: Time, id: ServiceId) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        if !service.has_surplus() {
            service.pace.surplus_at = None;
        } else if service.pace.surplus_at.is_none() {
            let at = now + SURPLUS_TIME;
            service.pace.surplus_at = Some(at);
            self.timers.add(at, Timer::Surplus(id));
        }
    }

    /// The surplus has lasted: the idle child whose turn comes last ends, and if there are still
    /// too many, another one a little later.
    pub(super) fn end_surplus(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        let at = now + PERIOD;
        service.pace.surplus_at = Some(at);
        let last = service.pool.last_idle();
        self.timers.add(at, Timer::Surplus(id));
        if let Some(pid) = last {
            self.end_member(now, pid, out);
        }
    }

    /// Ends idle children from before the last reload: those that others have replaced, and where
    /// the limit has no room for others first, one at a time.
    fn end_replaced(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        while let Some(service) = self.service_mut(id) {
            let pool = &mut service.pool;
            let Some(pid) = pool.stale_idle() else {
                return;
            };
            let on_the_way = pool.count(State::Starting) + pool.leaving();
            let replaced = pool.replaced > 0;
            pool.replaced = pool.replaced.saturating_sub(1);
            let stuck = on_the_way == 0 && !service.throttled() && !service.has_room(service.total);
            if !replaced && !stuck {
                return;
            }
            self.end_member(now, pid, out);
        }
    }

    /// Ends idle children beyond a limit that a reload has lowered.
    fn end_excess(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        while let Some(service) = self.service_mut(id) {
            let last = service.pool.last_idle();
            let excess = service.staying() > 0 && !service.has_room(service.staying() - 1);
            let Some(pid) = last.filter(|_| excess) else {
                return;
            };
            self.end_member(now, pid, out);
        }
    }
}
