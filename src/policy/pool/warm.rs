//! How many children there are before clients ask for them: `min_idle` that wait, in ordered pools
//! also a floor under the total and an end to the surplus, and after a reload new ones for old.
//!
//! Children that are starting count as idle: they soon will be, and starting more because these
//! are slow would make them slower (Apache's prefork module counts so too; spamd does not, and
//! starts children under load that it ends a moment later). A surplus must last before a child is
//! ended for it, so that a load which comes and goes by the second is met by the same children.
//!
//! Starts that no client asked for keep a pace, so that a command which ends at once costs little.

use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

use crate::config::Ramp;
use crate::policy::child::Leaving;
use crate::policy::service::Context;
use crate::policy::timers::Timer;
use crate::policy::{Pid, Service, Time};

/// The next child is started when the last one is ready, or after this time (spamd,
/// `server-scale-period`).
const PERIOD: Duration = Duration::from_secs(2);
/// Two starts are at least this far apart, however fast the children are ready: 32 in a second.
const APART: Duration = Duration::from_micros(31_250);
/// The steps of a ramp.
const STEP: Duration = Duration::from_secs(1);
/// A ramp's steepest step (Apache, `MAX_SPAWN_RATE`).
const STEEPEST: u32 = 32;
/// How long a surplus must last before the first child is ended for it.
const SURPLUS_TIME: Duration = Duration::from_secs(30);
/// How many children are started at a time to replace children from before a reload.
const REPLACED_AT_A_TIME: u32 = 4;

/// How fast children are started that no client has asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::policy) struct Pace {
    /// Children of a new service that are started at once.
    filling: u32,
    last: Option<Time>,
    /// Of a ramp's present step: when it began, its number of children, and how many of these are
    /// left to be started.
    step: u32,
    left: u32,
    began: Option<Time>,
}

impl Pace {
    /// When the next child may be started, with `starting` that are not ready yet; it is `urgent`
    /// where others have ended or are about to.
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
        let began = self.began.map(|began| now.saturating_sub(began));
        let since = began.unwrap_or(Time::MAX);
        if since >= STEP {
            // A service that had enough for a whole step begins with the smallest.
            let steeper = if since < 2 * STEP { 2 * self.step } else { 1 };
            self.step = steeper.min(STEEPEST);
            self.left = self.step;
            self.began = Some(now);
        }
        self.left = self.left.saturating_sub(1);
    }
}

impl Service {
    /// Children that are there for clients: neither told to leave nor ended.
    fn staying(&self) -> u32 {
        self.total() - self.departing
    }

    /// Children that are lacking for the clients to come.
    fn lacking(&self) -> u32 {
        let coming = self.avail + self.starting();
        let idle = self.config.pool().min_idle.saturating_sub(coming);
        let overloaded = self.pool.as_ref().is_some_and(|pool| pool.overloaded);
        idle.max(overloaded.into())
    }

    /// Children to start, to replace children from before the last reload.
    fn replacements(&self) -> u32 {
        let pool = self.pool.as_ref();
        let wanted = pool.map_or(0, |pool| pool.old - pool.replaced);
        let wanted = wanted.min(REPLACED_AT_A_TIME);
        wanted.saturating_sub(self.starting())
    }

    /// Whether not only clients decide how many children there are, as for most services.
    pub(in crate::policy) fn keeps_warm(&self) -> bool {
        self.pool.is_some() || self.config.pool().min_idle > 0
    }

    /// Whether others have ended or are about to, in whose places children are to be started.
    fn has_gaps(&self) -> bool {
        let floor = self.config.pool().floor(self.config.max);
        self.staying() < floor || self.replacements() > 0
    }

    /// Whether another child should be there, although no client asked for it.
    fn wants_another(&self) -> bool {
        self.lacking() > 0 || self.has_gaps()
    }

    /// Whether an ordered pool lacks children that its limit has no room for.
    pub(in crate::policy) fn is_short(&self) -> bool {
        let settled = || self.starting() == 0;
        let open = self.pool.is_some() && self.is_open();
        open && settled() && self.lacking() > 0 && !self.has_room(self.total())
    }

    fn has_surplus(&self) -> bool {
        let settings = self.config.pool();
        let pool = self.pool.as_ref().filter(|pool| pool.old == 0);
        pool.is_some() && self.avail > settings.max_idle && self.staying() > settings.min_children
    }

    /// A new service: its pool is filled.
    pub(in crate::policy) fn fill(&mut self) {
        let pool = self.config.pool();
        let filling = pool.floor(self.config.max).max(pool.min_idle);
        if filling > 0 && pool.spawn_ramp == Ramp::Single {
            self.rare_mut().pace.filling = filling;
        }
    }

    /// After every change of a service that keeps children warm: ends surplus children, and
    /// starts one that is lacking. What comes of it is a change again.
    pub(in crate::policy) fn adapt(&mut self, cx: &mut Context) {
        self.end_replaced(cx);
        self.end_excess(cx);
        self.mark_surplus(cx);
        self.start_lacking(cx);
    }

    fn start_lacking(&mut self, cx: &mut Context) {
        let mut later = None;
        if !self.wants_another() {
            self.rare_mut().pace.filling = 0;
        } else if self.may_start() {
            let ramp = self.config.pool().spawn_ramp;
            let (starting, urgent) = (self.starting(), self.has_gaps());
            let pace = &mut self.rare_mut().pace;
            let at = pace.next(ramp, starting, urgent);
            if at > cx.now {
                later = Some(at);
            } else {
                pace.start(cx.now, ramp);
                self.request_spawn(cx);
            }
        }
        self.set_timer(cx, Timer::Start, later);
    }

    fn mark_surplus(&mut self, cx: &mut Context) {
        let marked = self.timer(Timer::Surplus);
        let at = self
            .has_surplus()
            .then(|| marked.unwrap_or(cx.now + SURPLUS_TIME));
        self.set_timer(cx, Timer::Surplus, at);
    }

    /// The surplus has lasted: the idle child whose turn comes last ends, and if there are still
    /// too many, another one a little later.
    pub(in crate::policy) fn end_surplus(&mut self, cx: &mut Context) {
        self.set_timer(cx, Timer::Surplus, Some(cx.now + PERIOD));
        let last = self.pool.as_ref().and_then(|pool| pool.idle.last());
        if let Some(&pid) = last {
            self.end_member(cx, pid, Leaving::Told);
        }
    }

    /// Ends idle children from before the last reload: one for each new child that is ready, and one
    /// at a time where the limit has no room for a new one.
    fn end_replaced(&mut self, cx: &mut Context) {
        let full = !self.throttled() && !self.has_room(self.total());
        while let Some(pool) = &mut self.pool {
            let stuck = full && pool.starting + self.departing == 0;
            if pool.old == 0 || pool.replaced == 0 && !stuck {
                return;
            }
            let is_old = |pid: &&Pid| self.children.get(pid).is_some_and(|child| child.old);
            let Some(&pid) = pool.idle.iter().rev().find(is_old) else {
                return;
            };
            pool.replaced = pool.replaced.saturating_sub(1);
            self.end_member(cx, pid, Leaving::Told);
        }
    }

    /// Ends idle children beyond a limit that a reload has lowered.
    fn end_excess(&mut self, cx: &mut Context) {
        while let Some(pool) = &self.pool {
            let staying = self.staying();
            let excess = staying > 0 && !self.has_room(staying - 1);
            let Some(&pid) = pool.idle.last().filter(|_| excess) else {
                return;
            };
            self.end_member(cx, pid, Leaving::Told);
        }
    }
}
