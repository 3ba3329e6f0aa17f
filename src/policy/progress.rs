//! Starts that come to nothing, and how many starts there may be.
//!
//! A program that ends at once, with status 0 and without its client, is no failure by Postfix's
//! rules. It is started again for the same client, up to two thousand times in a second: a program
//! that goes into the background, or one that expects its client elsewhere. So after some of them in
//! a row the next start is delayed, a little longer each time.

use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

use super::child::{Child, Leaving};
use super::deadlines::Termination;
use super::service::Context;
use super::timers::Timer;
use super::{ExitStatus, Kind, Limiter, Progress, Service, Time};
use crate::config::StartLimit;

/// A child that ends sooner ended at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Children in a row that may do nothing before starts are delayed: a program may have a reason.
const FREE: u32 = 4;
/// How much longer than the one before each delay is.
const STEP: Duration = Duration::from_millis(100);

/// What a service knows of its last starts.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Starts {
    /// Children in a row that came to nothing.
    in_vain: u32,
    /// When the period of `start_limit` began, and the starts in it.
    began: Option<Time>,
    in_period: u32,
    /// Limits the lines about delays.
    lines: Limiter<1>,
}

impl Starts {
    /// A child has taken a client.
    pub(super) fn have_progress(&mut self) {
        self.in_vain = 0;
    }
}

impl Child {
    fn was_told_to_leave(&self) -> bool {
        let by_itself = matches!(self.leaving, None | Some(Leaving::Gone));
        !by_itself || self.termination == Termination::Killed
    }

    /// Whether it ended well and by itself, without having had a client, by its own reports.
    fn ended_unused(&self, status: ExitStatus) -> bool {
        status == ExitStatus::Code(0) && self.clients == 0 && !self.was_told_to_leave()
    }

    pub(super) fn ended_at_once(&self, now: Time, status: ExitStatus) -> bool {
        self.ended_unused(status) && now.saturating_sub(self.started) < AT_ONCE
    }

    /// Whether it has made progress, where the system says this about its clients.
    pub(super) fn progress(&self, now: Time, status: ExitStatus, found: Progress) -> Progress {
        if !self.ended_unused(status) {
            // Its reports count, not its end.
            Progress::Unknown
        } else if !self.ended_at_once(now, status) {
            Progress::Made
        } else if self.ordered {
            // It would have said that it takes its client.
            Progress::None
        } else {
            found
        }
    }
}

impl Service {
    /// A child has ended, and not badly.
    pub(super) fn judge(&mut self, cx: &mut Context, progress: Progress) {
        let starts = &mut self.rare_mut().starts;
        match progress {
            Progress::Made => starts.have_progress(),
            Progress::Unknown => {}
            Progress::None => {
                starts.in_vain = starts.in_vain.saturating_add(1);
                let in_vain = starts.in_vain;
                let longest = self.config.limits().throttle_most;
                let longest = longest.unwrap_or(self.config.throttle_time);
                let time = STEP
                    .saturating_mul(in_vain.saturating_sub(FREE))
                    .min(longest);
                if time > Duration::ZERO {
                    self.delay_starts(cx, time, Kind::InVain(in_vain, time));
                }
            }
        }
    }

    /// Counts a start. False if the service has had as many as it may, and must wait.
    pub(super) fn count_start(&mut self, cx: &mut Context) -> bool {
        let Some(StartLimit {
            starts: most,
            period,
        }) = self.config.limits().start_limit
        else {
            return true;
        };
        let now = cx.now;
        let starts = &mut self.rare_mut().starts;
        let began = starts
            .began
            .filter(|began| now.saturating_sub(*began) < period);
        if began.is_none() {
            starts.in_period = 0;
        }
        let began = *starts.began.insert(began.unwrap_or(now));
        if starts.in_period < most {
            starts.in_period += 1;
            return true;
        }
        let time = (began + period).saturating_sub(now);
        self.delay_starts(cx, time, Kind::StartLimit(time));
        false
    }

    fn delay_starts(&mut self, cx: &mut Context, time: Duration, kind: Kind) {
        if self.removed {
            return;
        }
        if self.rare_mut().starts.lines.allow(cx.now).is_some() {
            self.log(cx, kind);
        }
        let until = self.timer(Timer::Delay).max(Some(cx.now + time));
        self.set_timer(cx, Timer::Delay, until);
        self.touch(cx);
    }
}
