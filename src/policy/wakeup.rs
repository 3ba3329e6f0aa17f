//! Periodic wake-ups, for services that have work to do although no client connects (Postfix,
//! `master_wakeup.c`).

use super::service::Context;
use super::timers::Timer;
use super::{Action, Kind, Service, Time};

impl Service {
    /// When the service is woken up next.
    pub fn wakeup_at(&self) -> Option<Time> {
        self.timer(Timer::Wakeup)
    }

    /// Whether a wake-up could start a child.
    pub fn may_be_woken(&self) -> bool {
        !self.throttled() && !self.paused
    }

    /// Begins the wake-ups with one at once, unless they wait for the first use of the service.
    pub(super) fn start_wakeups(&mut self, cx: &mut Context) {
        if !self.wakeup_waits {
            self.wake(cx);
        }
    }

    /// The service has a child: wake-ups that waited for its first use begin.
    pub(super) fn start_conditional_wakeups(&mut self, cx: &mut Context) {
        if std::mem::take(&mut self.wakeup_waits) {
            self.start_wakeups(cx);
        }
    }

    /// Sets the next time, and wakes the service up unless it is throttled or paused.
    pub(super) fn wake(&mut self, cx: &mut Context) {
        let Some(wakeup) = self.config.wakeup else {
            return;
        };
        self.set_timer(cx, Timer::Wakeup, Some(cx.now + wakeup.every));
        if self.may_be_woken() {
            self.send_wakeup(cx);
        }
    }

    pub(super) fn send_wakeup(&self, cx: &mut Context) {
        self.log(cx, Kind::Waking);
        cx.out.push(Action::Wake(cx.id));
    }
}
