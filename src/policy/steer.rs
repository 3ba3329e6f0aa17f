//! What an operator tells the master to do with one service. Whoever steers has looked before
//! whether the service is there; what comes too late changes nothing.

use super::{Action, Record, Service, ServiceId, Table, Time};

impl Table {
    /// Leaves the service's listeners alone and starts nobody, until it is [resumed](Self::resume).
    /// Children that share the listeners would go on taking clients, so they are told to leave;
    /// those of an ordered pool are given no orders.
    pub(super) fn pause(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.in_service(id).filter(|s| !s.paused) else {
            return;
        };
        service.paused = true;
        // Who waits is heard of again later.
        if let Some(pool) = service.pool.changed() {
            pool.overloaded = false;
        }
        self.dismiss(now, id, out);
    }

    pub(super) fn resume(&mut self, id: ServiceId) {
        if let Some(service) = self.in_service(id) {
            service.paused = false;
            self.touch(id);
        }
    }

    /// Replaces the children of one service as a reload does those of all.
    pub(super) fn replace_children(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        if self.in_service(id).is_some() {
            self.restart(now, id, out);
        }
    }

    /// Wakes the service up now, whatever the table says of wake-ups; the next one of those that
    /// the table asks for is a whole period away.
    pub(super) fn wake_now(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.in_service(id).filter(|s| s.may_be_woken()) else {
            return;
        };
        if service.wakeup_at.is_some() {
            return self.wake(now, id, out);
        }
        self.detail(id, out, Record::Waking);
        out.push(Action::Wake(id));
    }

    fn in_service(&mut self, id: ServiceId) -> Option<&mut Service> {
        self.service_mut(id).filter(|s| !s.removed())
    }
}
