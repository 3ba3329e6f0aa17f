//! One heap for all deadlines.
//!
//! A service holds its deadlines itself; the heap only says which comes first. A deadline that the
//! service no longer holds is passed over when it comes up, so that cancelling costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Service, ServiceId, Time};

/// What to do when time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Unthrottle,
    Wakeup,
    StressEnd,
    /// Kill the children of a removed service.
    Kill,
    /// An order no longer holds the next one back.
    OrderTimeout,
    /// A child has had its time.
    Child,
    Ping,
    /// More children are idle than need be.
    Surplus,
    /// The next child may be started that no client has asked for.
    Start,
}

impl Timer {
    /// The time for which the service itself holds this deadline.
    pub(super) fn armed(self, service: &Service) -> Option<Time> {
        let (rare, pool) = (service.rare(), service.pool.as_deref());
        match self {
            Self::Unthrottle => rare.throttled_until,
            Self::Wakeup => service.wakeup_at,
            Self::StressEnd => rare.stress_until,
            Self::Kill => rare.kill_at,
            Self::OrderTimeout => pool?.order_timeout(),
            Self::Child => service.next_child_deadline(),
            Self::Ping => pool?.ping_at,
            Self::Surplus => rare.pace.surplus_at,
            Self::Start => rare.pace.start_at,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Time, Timer, ServiceId)>>,
    /// Cancelled deadlines are removed when the heap has grown to this.
    sweep_at: usize,
}

impl Timers {
    /// Below this, sweeping is not worth it.
    const SWEEP_MIN: usize = 1024;

    pub(super) fn add(&mut self, at: Time, timer: Timer, service: ServiceId) {
        self.heap.push(Reverse((at, timer, service)));
    }

    /// The earliest deadline that is `live`. Cancelled ones before it are removed, and when many
    /// have gathered (a reload cancels all wake-ups at once), all of them.
    pub(super) fn next(
        &mut self,
        live: impl Fn(Time, Timer, ServiceId) -> bool,
    ) -> Option<(Time, Timer, ServiceId)> {
        if self.heap.len() > self.sweep_at.max(Self::SWEEP_MIN) {
            self.heap
                .retain(|&Reverse((at, timer, service))| live(at, timer, service));
            self.sweep_at = self.heap.len() * 2;
        }
        while let Some(&Reverse((at, timer, service))) = self.heap.peek() {
            if live(at, timer, service) {
                return Some((at, timer, service));
            }
            self.heap.pop();
        }
        None
    }

    /// Removes the deadline that [`Timers::next`] found.
    pub(super) fn pop(&mut self) {
        self.heap.pop();
    }

    /// Deadlines in the heap, cancelled ones included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}
