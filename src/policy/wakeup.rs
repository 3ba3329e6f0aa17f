//! Periodic wake-ups, for services that have work to do although nobody connects (Postfix,
//! `master_wakeup.c`).

use super::timers::Timer;
use super::{Action, Record, Service, ServiceId, Table, Time};

impl Service {
    /// Whether a child could come of it.
    pub fn may_be_woken(&self) -> bool {
        !self.throttled() && !self.paused()
    }
}

impl Table {
    /// Begins the service's wake-ups with one at once, unless they wait for its first use.
    pub(super) fn start_wakeups(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let waits = |s: &Service| s.wakeup_waits || s.config.wakeup.is_none();
        if self.service(id).is_some_and(|s| !waits(s)) {
            self.wake(now, id, out);
        }
    }

    /// The service has a child: wake-ups that waited for its first use begin.
    pub(super) fn start_conditional_wakeups(
        &mut self,
        now: Time,
        id: ServiceId,
        out: &mut Vec<Action>,
    ) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        if std::mem::take(&mut service.wakeup_waits) {
            self.start_wakeups(now, id, out);
        }
    }

    /// Sets the next time, and wakes the service up unless it is throttled or paused.
    pub(super) fn wake(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        let Some(wakeup) = service.config.wakeup else {
            return;
        };
        let next = now + wakeup.every;
        service.wakeup_at = Some(next);
        let woken = service.may_be_woken();
        self.timers.add(next, Timer::Wakeup(id));
        if woken {
            self.detail(id, out, Record::Waking);
            out.push(Action::Wake(id));
        }
    }
}
