//! The process limit: the warning about it, and stress mode, in which children are told to serve
//! their clients faster (Postfix, `master_avail.c`).

use std::time::Duration;

use super::service::Context;
use super::timers::Timer;
use super::{Kind, Service, Time};

/// How long stress mode outlasts the last moment at the limit, and how long the warning about the
/// limit is not repeated (Postfix, `master_avail.c`).
const STRESS_TIME: Duration = Duration::from_secs(1000);

impl Service {
    /// Whether children that start now are told of stress.
    pub fn stressed(&self) -> bool {
        self.stress_until().is_some()
    }

    /// When stress mode ends.
    pub fn stress_until(&self) -> Option<Time> {
        self.timer(Timer::StressEnd)
    }

    /// Whether clients have to wait because every child is busy and no more may be started.
    fn at_limit(&self) -> bool {
        self.is_open() && self.avail == 0 && !self.has_room(self.total() - self.departing)
    }

    pub(super) fn warn_of_limit(&mut self, cx: &mut Context) {
        let kind = if self.config.stress_eligible() && self.at_limit() {
            Kind::LimitReached
        } else if self.is_short() {
            Kind::PoolFull
        } else {
            return;
        };
        let recent = |at: Time| cx.now.saturating_sub(at) <= STRESS_TIME;
        if !self.rare().limit_warned.is_some_and(recent) {
            self.rare_mut().limit_warned = Some(cx.now);
            self.log(cx, kind);
        }
    }

    /// The last child that the limit allows is about to be started.
    pub(super) fn prolong_stress(&mut self, cx: &mut Context) {
        let entered = !self.stressed();
        let until = cx.now + STRESS_TIME;
        self.set_timer(cx, Timer::StressEnd, Some(until));
        if entered {
            self.log(cx, Kind::StressBegins(self.counts()));
            // Children that know nothing of the stress make room for those that do.
            self.replace_children(cx);
        }
    }

    pub(super) fn end_stress(&mut self, cx: &mut Context) {
        self.log(cx, Kind::StressEnds(self.counts()));
    }
}
