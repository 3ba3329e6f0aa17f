//! Back-off after failing children: the command may be broken, its configuration wrong, or the
//! system out of some resource (Postfix, `master_spawn.c`).

use super::timers::Timer;
use super::{Action, Record, ServiceId, Table, Time};

impl Table {
    /// Starts no children of the service for its throttle time.
    pub(super) fn throttle(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let verbose = self.verbose;
        let Some(service) = self.service_mut(id) else {
            return;
        };
        if service.throttled() {
            return;
        }
        let until = now + service.config.throttle_time;
        service.throttled_until = Some(until);
        if verbose {
            out.push(Action::Log(Record::Throttled(service.config.clone())));
        }
        self.timers.add(until, Timer::Unthrottle(id));
        self.touch(id);
    }

    pub(super) fn unthrottle(&mut self, id: ServiceId, out: &mut Vec<Action>) {
        let verbose = self.verbose;
        let Some(service) = self.service_mut(id) else {
            return;
        };
        service.throttled_until = None;
        if verbose {
            out.push(Action::Log(Record::Unthrottled(service.config.clone())));
        }
        self.touch(id);
    }
}
