//! Counts the clients of a process, and reports to the master whether it can take more.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use master::protocol::Availability;

use crate::status::Status;

/// The slots for clients, and what was reported to the master.
#[derive(Debug)]
pub(super) struct Slots {
    limit: u32,
    status: Status,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    taken: u32,
    /// When the last client left; valid while no slot is taken.
    idle_since: Instant,
    /// Whether the process has reported its first client.
    known: bool,
    closed: bool,
}

impl Slots {
    pub(super) fn new(status: Status, limit: u32) -> Self {
        Self {
            limit,
            status,
            state: Mutex::new(State {
                taken: 0,
                idle_since: Instant::now(),
                known: false,
                closed: false,
            }),
            freed: Condvar::new(),
        }
    }

    /// The locked state. Poisoning is ignored: no code that holds the lock can panic half-way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a slot is free. Returns the time since which all slots are free, or now.
    pub(super) fn wait_for_one(&self) -> Instant {
        let full = |state: &mut State| state.taken >= self.limit;
        let state = self
            .freed
            .wait_while(self.state(), full)
            .unwrap_or_else(PoisonError::into_inner);
        match state.taken {
            0 => state.idle_since,
            _ => Instant::now(),
        }
    }

    pub(super) fn are_free_for(&self, time: Duration) -> bool {
        let state = self.state();
        state.taken == 0 && state.idle_since.elapsed() >= time
    }

    /// Takes a free slot. When it is the last one, the process reports that it is taken.
    pub(super) fn take(self: &Arc<Self>) -> Slot {
        let mut state = self.state();
        state.taken += 1;
        if state.taken == self.limit {
            // A failure means that the master has ended; the accepting thread notices that, too.
            let _ = self.status.report(Availability::Taken);
        }
        Slot(Arc::clone(self))
    }

    /// Frees a slot. After the first client the process reports even if it was never full, because
    /// the master treats a failure of an unused process differently.
    fn leave(&self) {
        let mut state = self.state();
        let was_full = state.taken == self.limit;
        state.taken -= 1;
        state.idle_since = Instant::now();
        let tell = was_full || !state.known;
        state.known = true;
        if tell && !state.closed {
            let told = was_full || self.status.report(Availability::Taken);
            let _ = told && self.status.report(Availability::Available);
        }
        self.freed.notify_one();
    }

    /// The process accepts no more clients, so it must not be counted as available.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        if state.taken > 0 && state.taken < self.limit {
            let _ = self.status.report(Availability::Taken);
        }
    }
}

/// A taken slot; dropping it frees the slot.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::testing::Master;
    use Availability::{Available, Taken};

    fn slots(limit: u32) -> (Arc<Slots>, Master) {
        let (status, master) = Master::new();
        (Arc::new(Slots::new(status, limit)), master)
    }

    #[test]
    fn the_master_learns_when_the_last_seat_is_taken_and_when_one_is_free_again() {
        let (slots, master) = slots(2);
        let first = slots.take();
        assert_eq!(master.received(), []);
        let second = slots.take();
        assert_eq!(master.received(), [Taken]);
        drop(first);
        assert_eq!(master.received(), [Available]);
        drop(second);
        assert_eq!(master.received(), []);
    }

    #[test]
    fn the_master_learns_of_the_first_client_that_was_served() {
        let (slots, master) = slots(2);
        drop(slots.take());
        assert_eq!(master.received(), [Taken, Available]);
        drop(slots.take());
        assert_eq!(master.received(), []);
    }

    #[test]
    fn the_master_does_not_count_on_a_closed_process() {
        let (slots, master) = slots(2);
        let clients = [slots.take()];
        slots.close();
        assert_eq!(master.received(), [Taken]);
        drop(clients);
        assert_eq!(master.received(), []);
    }

    #[test]
    fn a_full_process_that_is_closed_has_said_all() {
        let (slots, master) = slots(1);
        let client = slots.take();
        slots.close();
        assert_eq!(master.received(), [Taken]);
        drop(client);
        assert_eq!(master.received(), []);
    }
}
