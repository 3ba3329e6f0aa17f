//! When the master watches a service's listeners, and starts a child for a connection (Postfix,
//! `master_avail.c`).
//!
//! While a child is available, children accept for themselves. Only when none is, and the limit has
//! room for one more, does the master watch the listeners. Ordered pools have rules of their own,
//! see [`pool`](super::pool).

use super::service::Context;
use super::status::{HANGING_MAX, HANGING_OF_ALL_MAX};
use super::{Action, Kind, Service, ServiceId, SpawnFailure, State, Table, Time};

impl Table {
    /// [`Event::Connection`](super::Event::Connection): `clients` wait on a service's watched
    /// listeners. An earlier event of the turn may have taken care of them.
    pub fn connection(&mut self, now: Time, id: ServiceId, clients: u32, out: &mut Vec<Action>) {
        self.turn(now, out, |table| {
            table.at(id, |service, cx| match service.pool {
                _ if !service.wants_clients() => {}
                Some(_) => service.order_idle(cx, clients),
                None => service.request_spawn(cx),
            });
        });
    }
}

impl Service {
    /// Whether the master has to hear of the next connection.
    pub(super) fn wants_clients(&self) -> bool {
        match &self.pool {
            Some(pool) => pool.wants_clients() && !self.removed && !self.paused,
            None => self.avail == 0 && self.may_start(),
        }
    }

    /// Whether a child can be started now.
    pub(super) fn may_start(&self) -> bool {
        self.is_open()
            && !self.spawning
            && self.has_room(self.total())
            && self.rare().hanging < HANGING_MAX
    }

    /// Watches the listeners or not, and warns when clients have to wait.
    pub(super) fn update_watch(&mut self, cx: &mut Context) {
        self.warn_of_limit(cx);
        let wanted = self.wants_clients();
        if wanted != self.listening {
            self.listening = wanted;
            cx.out.push(if wanted {
                Action::Watch(cx.id)
            } else {
                Action::Unwatch(cx.id)
            });
        }
    }

    /// Asks for a child. The last one that the limit allows is a sign of stress, unless all others
    /// are available, as in a service that is being filled.
    pub(super) fn request_spawn(&mut self, cx: &mut Context) {
        if cx.hanging >= HANGING_OF_ALL_MAX {
            return self.back_off(cx, Kind::SpawnFailed(SpawnFailure::TooManyHang));
        }
        if !self.count_start(cx) {
            return;
        }
        let loaded = self.avail < self.total();
        if loaded && self.config.stress_eligible() && !self.has_room(self.total() + 1) {
            self.begin_or_prolong_stress(cx);
        }
        let generation = cx.generation.wrapping_add(1);
        cx.generation = generation;
        self.spawning = true;
        cx.out.push(Action::Spawn {
            service: cx.id,
            generation,
            stress: self.config.stress_eligible() && self.stressed(),
        });
        self.touch(cx);
    }

    /// Logs what [`Service::wants_clients`] is decided by.
    pub(super) fn log_counts(&self, cx: &mut Context) {
        self.log(cx, Kind::Counts(self.counts()));
        if cx.verbose && self.pool.is_some() {
            let mut counts = [0; State::ALL.len()];
            let states = self
                .children
                .values()
                .filter_map(|child| child.pool_state());
            states.for_each(|state| counts[state as usize] += 1);
            self.log(cx, Kind::States(counts));
        }
    }
}
