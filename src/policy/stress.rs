//! The process limit: the warning about it, and stress mode, in which children are told to serve
//! their clients faster (Postfix, `master_avail.c`).

use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

use super::service::Context;
use super::timers::Timer;
use super::{Kind, Limiter, Service, Time};

/// How long stress mode outlasts the last moment at the limit, and how long the warning about the
/// limit is not repeated (Postfix, `master_avail.c`).
const STRESS_TIME: Duration = Duration::from_secs(1000);

/// Clients that wait although children are available.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Stall {
    pub(super) is_on: bool,
    /// The clients and children until the last look, if clients waited then.
    activity: Option<u64>,
    lines: Limiter<1, 1000>,
}

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
        // A service that may have only one process is at its limit with each client: only those
        // that wait are a reason to warn.
        if self.pool.is_none() && self.config.max > 1 && self.at_limit() {
            self.warn_that_full(cx, Kind::LimitReached);
        } else if self.is_short() {
            self.warn_that_full(cx, Kind::PoolFull);
        }
    }

    fn warn_that_full(&mut self, cx: &mut Context, kind: Kind) {
        let recent = |at: Time| cx.now.saturating_sub(at) <= STRESS_TIME;
        if !self.rare().limit_warned.is_some_and(recent) {
            self.rare_mut().limit_warned = Some(cx.now);
            self.log(cx, kind);
        }
    }

    /// Whether clients could wait without the master's knowledge: it does not watch the listeners,
    /// because children are there that should take them.
    pub fn may_hide_clients(&self) -> bool {
        self.pool.is_none() && !self.listening && self.total() > 0 && !self.paused && !self.removed
    }

    /// Whether clients wait although children are available, by their reports.
    pub fn stalled(&self) -> bool {
        self.rare().stall.is_on && self.avail > 0
    }

    /// Clients wait, or do not.
    pub(super) fn clients_seen(&mut self, cx: &mut Context, wait: bool) {
        if wait && self.at_limit() && self.may_hide_clients() {
            self.warn_that_full(cx, Kind::LimitReached);
        }
        let stats = self.stats();
        let activity = stats.connections + stats.started;
        let activity = (wait && self.avail > 0 && self.may_hide_clients()).then_some(activity);
        let avail = self.avail;
        let stall = &mut self.rare_mut().stall;
        // Children had the time since the last look to take one.
        stall.is_on = activity.is_some() && activity == stall.activity;
        stall.activity = activity;
        if stall.is_on && stall.lines.allow(cx.now).is_some() {
            self.log(cx, Kind::Stalled(avail));
        }
    }

    /// The last child that the limit allows is about to be started: stress mode begins, or lasts longer.
    pub(super) fn begin_or_prolong_stress(&mut self, cx: &mut Context) {
        let entered = !self.stressed();
        let until = cx.now + STRESS_TIME;
        self.set_timer(cx, Timer::StressEnd, Some(until));
        if entered {
            self.log(cx, Kind::StressBegins(self.counts()));
            // Children without "-o stress=yes" make room for children with it.
            self.replace_children(cx);
        }
    }

    /// The timer, which has passed, was all that stress mode consists of.
    pub(super) fn log_stress_end(&mut self, cx: &mut Context) {
        self.log(cx, Kind::StressEnds(self.counts()));
    }
}
