//! Back-off after failing children: the command may be broken, its configuration wrong, or the
//! system out of some resource (Postfix, `master_spawn.c`).
//!
//! Where Postfix waits for the same time after each failure, a service may ask for a time that
//! doubles: what is soon corrected is soon served, and what stays broken costs little. A client
//! who was served brings it back to the first.
//!
//! A child that has served and then fails throttles nothing in Postfix, so a program that crashes
//! with every second client goes on doing so. A service may set the share of clients from which on
//! that is enough. Clients are counted and not children, as one child may have many; and only the
//! last [`CLIENTS`] of them, so that a good year does not excuse a bad minute. Fewer prove nothing.

use std::sync::Arc;
use std::time::Duration;

use super::timers::Timer;
use super::{Action, Record, Service, ServiceId, Table, Time};
use crate::config;

/// So many clients are remembered.
pub(super) const CLIENTS: u32 = 20;

/// What a service has learned about its command.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    /// How long the last throttle was, if nothing has gone well since.
    last: Option<Duration>,
    /// The last clients, the latest in the lowest bit: whether the child ended abnormally.
    crashes: u32,
    /// How many these are.
    clients: u32,
}

impl Backoff {
    /// How long to wait after the next failure.
    fn next(&self, config: &config::Service) -> Duration {
        let first = config.throttle_time;
        match (self.last, config.care.throttle_most) {
            (Some(last), Some(most)) => last.saturating_mul(2).clamp(first, most),
            _ => first,
        }
    }

    fn remember(&mut self, crashed: bool) {
        self.crashes = ((self.crashes << 1) | u32::from(crashed)) & ((1 << CLIENTS) - 1);
        self.clients = CLIENTS.min(self.clients + 1);
    }

    /// So many of the remembered clients had a child that ended abnormally.
    fn crashed(&self) -> u32 {
        self.crashes.count_ones()
    }

    fn crashes_too_often(&self, config: &config::Service) -> bool {
        let limit = config.care.crash_percent.map(|percent| percent * CLIENTS);
        self.clients == CLIENTS && limit.is_some_and(|limit| self.crashed() * 100 >= limit)
    }
}

impl Service {
    /// Until when no children are started, if it is throttled.
    pub fn throttled_until(&self) -> Option<Time> {
        self.trouble.own()?.throttled_until
    }

    /// How long the service was throttled last, unless a client was served since.
    pub fn throttle_time(&self) -> Option<Duration> {
        self.trouble.backoff.last
    }

    /// How long the next failure will throttle it, if failures make that longer.
    pub fn next_throttle_time(&self) -> Option<Duration> {
        let grows = self.config.care.throttle_most.is_some();
        grows.then(|| self.trouble.backoff.next(&self.config))
    }

    /// Of how many recent clients, at most 20, the child ended abnormally, and how many those are.
    pub fn crashes(&self) -> (u32, u32) {
        (self.trouble.backoff.crashed(), self.trouble.backoff.clients)
    }

    /// Whether it can be throttled: it is there, and is not yet.
    pub(super) fn may_throttle(&self) -> bool {
        !self.throttled() && !self.removed()
    }

    /// A reload: the command may be another, and so may the times.
    pub(super) fn forgive(&mut self) {
        if let Some(trouble) = self.trouble.changed() {
            trouble.backoff = Backoff::default();
        }
    }
}

impl Table {
    /// The system had no room for another process.
    pub(super) fn spawn_failed(
        &mut self,
        now: Time,
        id: ServiceId,
        reason: String,
        out: &mut Vec<Action>,
    ) {
        if let Some(service) = self.service_mut(id) {
            service.spawning = false;
        }
        let record = |service| Record::SpawnFailed { service, reason };
        self.back_off(now, id, record, out);
    }

    /// The kernel watches no more descriptors for us.
    pub(super) fn watch_failed(
        &mut self,
        now: Time,
        id: ServiceId,
        reason: String,
        out: &mut Vec<Action>,
    ) {
        if let Some(service) = self.service_mut(id) {
            service.pool.blind = true;
            self.touch(id);
        }
        let record = |service| Record::WatchFailed { service, reason };
        self.back_off(now, id, record, out);
    }

    /// The system lacks something: better tried again later.
    fn back_off(
        &mut self,
        now: Time,
        id: ServiceId,
        record: impl FnOnce(Arc<config::Service>) -> Record,
        out: &mut Vec<Action>,
    ) {
        if let Some(service) = self.service(id) {
            out.push(Action::Log(record(service.config.clone())));
        }
        self.throttle(now, id, out);
    }

    /// A client was served.
    pub(super) fn served(&mut self, id: ServiceId) {
        if let Some(service) = self.service_mut(id) {
            service.trouble.backoff.remember(false);
            if !service.trouble.backoff.crashes_too_often(&service.config) {
                service.trouble.backoff.last = None;
            }
        }
    }

    /// A client's child has ended abnormally. Throttles the service if that happens too often.
    pub(super) fn crashed(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        service.trouble.backoff.remember(true);
        if !service.may_throttle() || !service.trouble.backoff.crashes_too_often(&service.config) {
            return;
        }
        let crashed = service.trouble.backoff.crashed();
        let service = service.config.clone();
        out.push(Action::Log(Record::Crashing { service, crashed }));
        self.throttle(now, id, out);
    }

    /// Starts no children of the service for its throttle time. Further failures meanwhile, of
    /// children that were there already, say nothing new.
    pub(super) fn throttle(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let open = |service: &&mut Service| service.may_throttle();
        let Some(service) = self.service_mut(id).filter(open) else {
            return;
        };
        let time = service.trouble.backoff.next(&service.config);
        service.trouble.backoff.last = Some(time);
        let until = now + time;
        service.trouble.throttled_until = Some(until);
        out.push(Action::Log(Record::Throttled {
            service: service.config.clone(),
            time,
            counts: service.counts(),
        }));
        self.timers.add(until, Timer::Unthrottle(id));
        self.touch(id);
    }

    pub(super) fn unthrottle(&mut self, id: ServiceId, out: &mut Vec<Action>) {
        if let Some(service) = self.service_mut(id) {
            service.trouble.throttled_until = None;
            if let Some(pool) = service.pool.changed() {
                pool.blind = false;
            }
            out.push(Action::Log(Record::Unthrottled {
                service: service.config.clone(),
                counts: service.counts(),
            }));
            self.touch(id);
        }
    }
}
