//! One heap for all deadlines.
//!
//! A service holds its deadlines itself; the heap only says which comes first. A deadline that the
//! service no longer holds is passed over when it comes up, so that cancelling costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde_derive::{Deserialize, Serialize};

use super::service::Context;
use super::{Service, ServiceId, Time};

/// An enumeration whose variants are listed once.
macro_rules! timers {
    ($($(#[$meta:meta])* $name:ident,)+) => {
        /// What to do when time has passed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub(super) enum Timer {
            $($(#[$meta])* $name,)+
        }

        impl Timer {
            /// All of them, each at its own number.
            pub(super) const ALL: [Self; [$(Self::$name),+].len()] = [$(Self::$name),+];
        }
    };
}

timers! {
    Unthrottle,
    /// The next child may be started after many.
    Delay,
    Wakeup,
    StressEnd,
    /// Kill the children of a removed service.
    Kill,
    /// An order no longer holds the next one back.
    OrderTimeout,
    /// A child has had its time.
    Child,
    Ping,
    /// A child has reached its age.
    Age,
    /// The memory of children is to be measured.
    Measure,
    /// More children are idle than need be.
    Surplus,
    /// The next child may be started that no client has asked for.
    Start,
}

/// When each [`Timer`] of a service is due.
pub(super) type Deadlines = [Option<Time>; Timer::ALL.len()];

impl Service {
    pub(super) fn timer(&self, timer: Timer) -> Option<Time> {
        self.rare().timers[timer as usize]
    }

    pub(super) fn set_timer(&mut self, cx: &mut Context, timer: Timer, at: Option<Time>) {
        if self.timer(timer) != at {
            self.rare_mut().timers[timer as usize] = at;
            if let Some(at) = at {
                cx.timers.add(at, timer, cx.id);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timer_has_a_place_among_the_deadlines_of_a_service() {
        let deadlines = Deadlines::default();
        for (place, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!((timer as usize, deadlines[place]), (place, None));
        }
    }
}
