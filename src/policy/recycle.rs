//! Children that are replaced although nothing is wrong with them: after a number of clients
//! (`max_uses`), at an age (`max_age`), or when they use much memory (`memory_recycle`).
//!
//! A child is told to leave while it has no client, so that it leaves at once. One that is told just
//! as it takes another client leaves after that.

use std::fmt;
use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

use super::child::{Child, Leaving, State};
use super::service::Context;
use super::timers::Timer;
use super::{Action, Kind, Pid, Service, Time};
use crate::config::ChildLimits;

/// The most children of a service that are told to leave at a time. Their places are empty for as long
/// as others start, so the service must keep most of its children; and one alone would take too long
/// where thousands reach their age.
pub(super) const RECYCLED_MAX: u32 = 3;

/// How often the memory of children is measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);

/// Children leave before `max_age`, by at most `max_age` divided by this: those that were started
/// together must not all leave together.
const JITTER_PART: u32 = 10;

/// Why a child is told to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlived {
    /// The clients that it has served.
    Uses(u32),
    Age(Duration),
    /// Bytes.
    Memory(u64),
}

impl fmt::Display for Outlived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uses(1) => f.write_str("has served 1 client"),
            Self::Uses(uses) => write!(f, "has served {uses} clients"),
            Self::Age(age) => write!(f, "is {} s old", age.as_secs()),
            Self::Memory(bytes) => write!(f, "uses {} KB of memory", bytes / 1024),
        }
    }
}

/// A sequence of numbers that look random, the same for the same seed (SplitMix64).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// At least nine tenths of a time, at most all of it.
    fn shorten(&mut self, time: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let thousandths = ((number ^ (number >> 31)) % 1001) as u32;
        time - time / JITTER_PART * thousandths / 1000
    }
}

impl Child {
    /// Why it is to leave, if it is.
    fn outlived(&self, limits: &ChildLimits, now: Time) -> Option<Outlived> {
        let uses = limits.max_uses.filter(|max| self.uses >= *max);
        let is_old = self.recycle_at.is_some_and(|at| at <= now);
        let memory = limits.memory_recycle.filter(|most| self.memory > *most);
        uses.map(|_| Outlived::Uses(self.uses))
            .or_else(|| is_old.then(|| Outlived::Age(now.saturating_sub(self.started))))
            .or_else(|| memory.map(|_| Outlived::Memory(self.memory)))
    }
}

impl Service {
    /// A new child gets its age, and its memory is to be measured.
    pub(super) fn limit_life(&mut self, cx: &mut Context, child: &mut Child) {
        let ChildLimits {
            max_age,
            memory_recycle,
            ..
        } = *self.config.limits();
        if let Some(age) = max_age {
            let at = cx.now + cx.jitter.shorten(age);
            child.recycle_at = Some(at);
            let first = self.timer(Timer::Age).map_or(at, |first| first.min(at));
            self.set_timer(cx, Timer::Age, Some(first));
        }
        if memory_recycle.is_some() && self.timer(Timer::Measure).is_none() {
            self.set_timer(cx, Timer::Measure, Some(cx.now + MEASURE_INTERVAL));
        }
    }

    /// Tells an idle child to leave if its time has come, and few others leave.
    pub(super) fn recycle(&mut self, cx: &mut Context, pid: Pid) {
        let child = self.children.get(&pid);
        let idle = child.filter(|child| child.is_heard() && child.state == State::Idle);
        let outlived = idle.and_then(|child| child.outlived(self.config.limits(), cx.now));
        let Some(why) = outlived else {
            return;
        };
        if self.removed || self.rare().recycled >= RECYCLED_MAX {
            return;
        }
        self.log_child(cx, pid, Kind::Recycled(why));
        if self.pool.is_some() {
            return self.end_member(cx, pid, Leaving::Recycled);
        }
        cx.close_channel(pid);
        self.change(cx, pid, |child, now| child.leaves(Leaving::Recycled, now));
    }

    /// Tells the children to leave whose time has come, at most `RECYCLED_MAX` at a time.
    pub(super) fn recycle_all(&mut self, cx: &mut Context) {
        let limits = self.config.limits();
        if limits.max_uses.is_none() && limits.max_age.is_none() && limits.memory_recycle.is_none()
        {
            return;
        }
        for pid in self.children.keys().copied().collect::<Vec<_>>() {
            if self.rare().recycled >= RECYCLED_MAX {
                return;
            }
            self.recycle(cx, pid);
        }
    }

    /// Children have reached their age.
    pub(super) fn children_aged(&mut self, cx: &mut Context) {
        self.recycle_all(cx);
        let ages = self.children.values().filter_map(|child| child.recycle_at);
        let next = ages.filter(|at| *at > cx.now).min();
        self.set_timer(cx, Timer::Age, next);
    }

    /// Has the memory of the children measured.
    pub(super) fn measure(&mut self, cx: &mut Context) {
        if self.config.limits().memory_recycle.is_none() || self.children.is_empty() {
            return;
        }
        let heard = self.children.iter().filter(|(_, child)| child.is_heard());
        cx.out
            .extend(heard.map(|(&pid, _)| Action::Measure { pid }));
        self.set_timer(cx, Timer::Measure, Some(cx.now + MEASURE_INTERVAL));
    }

    /// The memory of a child was measured.
    pub(super) fn measured(&mut self, cx: &mut Context, pid: Pid, bytes: u64) {
        if let Some(child) = self.children.get_mut(&pid) {
            child.memory = bytes;
        }
        self.recycle(cx, pid);
    }
}
