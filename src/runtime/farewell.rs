//! The end of children whose services set how long it may take. Postfix's master waits for nobody,
//! and neither does ours for the others: who stops it expects its lock to be free.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::Duration;

use super::Runtime;
use super::chores::Chore;
use crate::policy::{ByPid, Pid, Record, ServiceId, Time};
use crate::sys::poll;
use crate::sys::process;
use crate::sys::signal::{self, Signal};

/// The loop looks at the clock at least this often, which tests may turn.
const LOOK: Duration = Duration::from_secs(1);

/// Those who were told to end and are still there, by the time that they have.
#[derive(Debug, Default)]
struct Leaving {
    due: BTreeSet<(Time, Pid)>,
    times: ByPid<Time>,
}

impl Leaving {
    fn add(&mut self, pid: Pid, until: Time) {
        self.due.insert((until, pid));
        self.times.insert(pid, until);
    }

    fn remove(&mut self, pid: Pid) {
        if let Some(until) = self.times.remove(&pid) {
            self.due.remove(&(until, pid));
        }
    }

    fn first(&self) -> Option<(Time, Pid)> {
        self.due.first().copied()
    }
}

impl Runtime {
    /// The longest time that any child may take to end.
    pub(super) fn farewell_time(&self) -> Duration {
        let times = self.table.awaited().map(|(_, time)| time);
        times.max().unwrap_or_default()
    }

    /// Waits until the children who may take their time have ended, and kills those who take more.
    /// Clients are refused meanwhile.
    pub(super) fn see_children_off(&mut self) {
        let begin = self.setup.clock.now();
        let mut leaving = Leaving::default();
        for (pid, time) in self.table.awaited() {
            leaving.add(pid, begin + time);
        }
        if leaving.first().is_none() {
            return;
        }
        let ids: Vec<ServiceId> = self.table.services().map(|(id, _)| id).collect();
        let pids: Vec<Pid> = self.table.pids().collect();
        for pid in pids {
            self.close_channel(pid);
        }
        for id in ids {
            self.chores.add(Chore::CloseListeners(id));
        }
        self.finish_chores();
        while let Some((until, pid)) = leaving.first() {
            // What a signal is about is seen below; one that cannot be read costs a second.
            let _ = self.signals.take();
            while let Some(dead) = process::reap_any() {
                leaving.remove(dead.pid);
            }
            let now = self.setup.clock.now();
            if leaving.first() != Some((until, pid)) {
                continue;
            }
            if until <= now {
                leaving.remove(pid);
                self.kill_at_last(pid);
                continue;
            }
            poll::wait_for(self.signals.as_fd(), LOOK.min(until - now));
        }
    }

    fn kill_at_last(&mut self, pid: Pid) {
        let id = self.table.service_of(pid);
        if let Some(service) = id.and_then(|id| self.table.service(id)) {
            let service = service.config().clone();
            self.write(&Record::overdue(service, pid));
        }
        signal::send(pid, Signal::SIGKILL);
    }
}
