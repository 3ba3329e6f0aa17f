//! Back-off after failing children: the command may be broken, its configuration wrong, or the
//! system out of some resource (Postfix, `master_spawn.c`).
//!
//! Postfix waits for the same time after each failure. A service may ask for a time that doubles:
//! clients of what is soon corrected wait shortly, and what stays broken costs little. A client
//! that was served brings back the first time.
//!
//! A child that has served and then fails throttles nothing in Postfix, so a program that crashes
//! with every second client goes on doing so. A service may set the share of clients whose child
//! ended abnormally that throttles it. Clients are counted and not children, as one child may have
//! many; and only the last [`CLIENTS`], so that a good year does not excuse a bad minute. Fewer
//! prove nothing.

use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

use super::service::Context;
use super::timers::Timer;
use super::{Errno, Kind, Service, SpawnFailure, Time};
use crate::config;

/// The number of recent clients that are remembered: one of them is 5 % for `crash_percent`.
pub(super) const CLIENTS: u32 = 20;

/// What a service has learned about its command.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct BackoffState {
    /// How long the last throttle was, if nothing has gone well since.
    last: Option<Duration>,
    /// A bit for each of the last CLIENTS clients, the latest in the lowest: 1 if its child ended
    /// abnormally.
    crashes: u32,
    /// How many bits of `crashes` are in use, at most CLIENTS.
    clients: u32,
}

impl BackoffState {
    /// How long to wait after the next failure.
    fn next(&self, config: &config::Service) -> Duration {
        let first = config.throttle_time;
        match (self.last, config.limits().throttle_most) {
            (Some(last), Some(most)) => last.saturating_mul(2).clamp(first, most),
            _ => first,
        }
    }

    fn remember(&mut self, crashed: bool) {
        self.crashes = ((self.crashes << 1) | u32::from(crashed)) & ((1 << CLIENTS) - 1);
        self.clients = CLIENTS.min(self.clients + 1);
    }

    /// The number of remembered clients whose child ended abnormally.
    fn crashed(&self) -> u32 {
        self.crashes.count_ones()
    }

    fn crashes_too_often(&self, limit: Option<u32>) -> bool {
        let reached = |percent| self.crashed() * 100 >= percent * CLIENTS;
        self.clients == CLIENTS && limit.is_some_and(reached)
    }
}

impl Service {
    /// Whether a command that fails, or does nothing, keeps the service from starting children.
    pub fn throttled(&self) -> bool {
        self.throttled_until().is_some()
    }

    /// Until when no children are started, if it is throttled.
    pub fn throttled_until(&self) -> Option<Time> {
        self.timer(Timer::Unthrottle).max(self.timer(Timer::Delay))
    }

    /// How long the service was throttled last, unless a client was served since.
    pub fn last_throttle(&self) -> Option<Duration> {
        self.rare().backoff.last
    }

    /// Whether its program has worked, and has not failed since.
    pub fn is_proven(&self) -> bool {
        let stats = self.stats();
        let has_worked = stats.connections + stats.ended > 0;
        has_worked && self.last_throttle().is_none()
    }

    /// How long the next failure will throttle it, if failures make that longer.
    pub fn next_throttle_time(&self) -> Option<Duration> {
        let grows = self.config.limits().throttle_most.is_some();
        grows.then(|| self.rare().backoff.next(&self.config))
    }

    /// The number of recent clients whose child ended abnormally, and the number of recent clients, at
    /// most 20.
    pub fn crashes(&self) -> (u32, u32) {
        let backoff = &self.rare().backoff;
        (backoff.crashed(), backoff.clients)
    }

    /// Whether a failure can throttle it: none does already, and it is not removed.
    pub(super) fn may_throttle(&self) -> bool {
        self.timer(Timer::Unthrottle).is_none() && !self.removed
    }

    /// The system had no room for another process.
    pub(super) fn spawn_failed(&mut self, cx: &mut Context, error: Errno) {
        self.spawning = false;
        self.back_off(cx, Kind::SpawnFailed(SpawnFailure::System(error)));
    }

    /// The kernel does not watch the listeners.
    pub(super) fn watch_failed(&mut self, cx: &mut Context, error: Errno) {
        if let Some(pool) = &mut self.pool {
            pool.watch_failed = true;
        }
        self.back_off(cx, Kind::WatchFailed(error));
    }

    /// The system lacks something: better tried again later.
    pub(super) fn back_off(&mut self, cx: &mut Context, kind: Kind) {
        self.log(cx, kind);
        self.throttle(cx);
        self.touch(cx);
    }

    /// A client was served.
    pub(super) fn served(&mut self) {
        let limit = self.config.limits().crash_percent;
        let backoff = &mut self.rare_mut().backoff;
        backoff.remember(false);
        if !backoff.crashes_too_often(limit) {
            backoff.last = None;
        }
    }

    /// A client's child has ended abnormally. Throttles the service if that happens too often.
    pub(super) fn crashed(&mut self, cx: &mut Context) {
        let limit = self.config.limits().crash_percent;
        let backoff = &mut self.rare_mut().backoff;
        backoff.remember(true);
        let (crashed, too_often) = (backoff.crashed(), backoff.crashes_too_often(limit));
        if self.may_throttle() && too_often {
            self.log(cx, Kind::Crashing(crashed));
            self.throttle(cx);
        }
    }

    /// Starts no children of the service for its throttle time. Further failures meanwhile, of
    /// children that were there already, say nothing new. The caller touches the service.
    pub(super) fn throttle(&mut self, cx: &mut Context) {
        if !self.may_throttle() {
            return;
        }
        let time = self.rare().backoff.next(&self.config);
        self.rare_mut().backoff.last = Some(time);
        self.set_timer(cx, Timer::Unthrottle, Some(cx.now + time));
        self.log(cx, Kind::Throttled(time, self.counts()));
    }

    pub(super) fn unthrottle(&mut self, cx: &mut Context) {
        if let Some(pool) = &mut self.pool {
            pool.watch_failed = false;
        }
        self.log(cx, Kind::Unthrottled(self.counts()));
        self.touch(cx);
    }
}
