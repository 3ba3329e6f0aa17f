//! One heap for all deadlines.
//!
//! A service holds its deadlines itself; the heap only says which comes first. What the service no
//! longer holds is passed over when it comes up, so that cancelling costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Service, ServiceId, Time};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Unthrottle(ServiceId),
    Wakeup(ServiceId),
    StressEnd(ServiceId),
    Kill(ServiceId),
    /// An order need not hold the next one back any more.
    Patience(ServiceId),
    /// A child has had its time.
    Due(ServiceId),
    Ping(ServiceId),
    /// More children are idle than need be.
    Surplus(ServiceId),
    /// The next child may be started that no client has asked for.
    Start(ServiceId),
}

impl Timer {
    pub(super) fn service(self) -> ServiceId {
        match self {
            Self::Unthrottle(id)
            | Self::Wakeup(id)
            | Self::StressEnd(id)
            | Self::Kill(id)
            | Self::Patience(id)
            | Self::Due(id)
            | Self::Ping(id)
            | Self::Surplus(id)
            | Self::Start(id) => id,
        }
    }
}

/// The time for which the service itself holds this deadline.
pub(super) fn armed(service: &Service, timer: Timer) -> Option<Time> {
    match timer {
        Timer::Unthrottle(_) => service.trouble.throttled_until,
        Timer::Wakeup(_) => service.wakeup_at,
        Timer::StressEnd(_) => service.trouble.stress_until,
        Timer::Kill(_) => service.kill_at,
        Timer::Patience(_) => service.pool.patience_ends(),
        Timer::Due(_) => service.next_due(),
        Timer::Ping(_) => service.pool.ping_at,
        Timer::Surplus(_) => service.pace.surplus_at,
        Timer::Start(_) => service.pace.start_at,
    }
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Time, Timer)>>,
    /// The heap is cleared of the dead when it has grown to this.
    sweep_at: usize,
}

impl Timers {
    /// Below this, sweeping is not worth it.
    const SWEEP_MIN: usize = 1024;

    pub(super) fn add(&mut self, at: Time, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    /// The earliest deadline that is `live`; dead ones before it are dropped, and when many have
    /// gathered (reloads cancel all wake-ups at once), all of them.
    pub(super) fn next(&mut self, live: impl Fn(Time, Timer) -> bool) -> Option<Time> {
        if self.heap.len() > self.sweep_at.max(Self::SWEEP_MIN) {
            self.heap.retain(|Reverse((at, timer))| live(*at, *timer));
            self.sweep_at = self.heap.len() * 2;
        }
        while let Some(Reverse((at, timer))) = self.heap.peek() {
            if live(*at, *timer) {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    /// Deadlines in the heap, dead ones included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The deadline that [`Timers::next`] found.
    pub(super) fn pop(&mut self) -> Option<Timer> {
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }
}
