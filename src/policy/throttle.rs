//! Back-off after failing children: the command may be broken, its configuration wrong, or the
//! system out of some resource (Postfix, `master_spawn.c`).

use std::sync::Arc;

use super::timers::Timer;
use super::{Action, Record, ServiceId, Table, Time};
use crate::config;

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

    /// Starts no children of the service for its throttle time.
    pub(super) fn throttle(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        let until = now + service.config.throttle_time;
        service.throttled_until = Some(until);
        self.timers.add(until, Timer::Unthrottle(id));
        self.detail(id, out, Record::Throttled);
        self.touch(id);
    }

    pub(super) fn unthrottle(&mut self, id: ServiceId, out: &mut Vec<Action>) {
        if let Some(service) = self.service_mut(id) {
            service.throttled_until = None;
            self.detail(id, out, Record::Unthrottled);
            self.touch(id);
        }
    }
}
