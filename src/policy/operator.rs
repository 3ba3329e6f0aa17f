//! What an operator tells the master to do with one service. The runtime has checked that the
//! service exists; a command for a service that was removed meanwhile changes nothing.

use super::Service;
use super::service::Context;

impl Service {
    /// Stops watching the listeners and starting children, until the service is resumed. Children
    /// that share the listeners would go on taking clients, so they are told to leave; children
    /// of an ordered pool are given no orders.
    pub(super) fn pause(&mut self, cx: &mut Context) {
        if std::mem::replace(&mut self.paused, true) {
            return;
        }
        if let Some(pool) = &mut self.pool {
            // Clients that wait are reported again after the pause.
            pool.overloaded = false;
        } else {
            self.tell_to_leave(cx);
        }
        self.touch(cx);
    }

    pub(super) fn resume(&mut self, cx: &mut Context) {
        self.paused = false;
        self.touch(cx);
    }

    /// Wakes the service up now, whatever the table says of wake-ups; the table's next
    /// wake-up is a whole period away.
    pub(super) fn wake_now(&mut self, cx: &mut Context) {
        if !self.may_be_woken() {
            return;
        }
        if self.wakeup_at().is_some() {
            self.wake(cx);
        } else {
            self.send_wakeup(cx);
        }
    }
}
