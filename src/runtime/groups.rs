//! Control groups of services: when they get one, and when what is in them is ended.

use std::thread;
use std::time::{Duration, Instant};

use super::Runtime;
use super::services::described;
use crate::policy::{Pid, Plan, ServiceId, Signal, Time};

/// How long processes in groups have to end after SIGTERM, when the master ends.
const LEAVE_TIME: Duration = Duration::from_secs(2);
/// How long the kernel may take to end processes that it was told to kill.
const KILL_TIME: Duration = Duration::from_secs(1);
/// How often it is looked whether they have.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

impl Runtime {
    /// Makes the groups that services need, or changes those that they have.
    pub(super) fn commit_groups(&mut self, now: Time, plan: &Plan) {
        for entry in &plan.entries {
            let place = entry.id.index();
            let Some(settings) = entry.service.group() else {
                self.groups.release(place);
                continue;
            };
            let instance = &self.config.parameters.queue_directory;
            if let Some(fault) = self.groups.open(now, instance) {
                self.log
                    .warning(format!("services have no control groups: {fault}"));
            }
            let name = format!("{}-{}", entry.service.kind, entry.service.canonical);
            for fault in self.groups.set(now, place, &name, settings.to_vec()) {
                let service = described(&entry.service);
                self.log.warning(format!("{service}: {fault}"));
            }
        }
    }

    /// Removes groups that are empty by now, and says what could not be changed in others.
    pub(super) fn expire_groups(&mut self, now: Time) {
        for (place, fault) in self.groups.expire(now) {
            let io = self.services.get(ServiceId::from_index(place));
            let service = io.map_or("a removed service".into(), |io| described(&io.service));
            self.log.warning(format!("{service}: {fault}"));
        }
    }

    /// The children of a removed service are killed with all that is in its group. Of another service
    /// it may be a child alone that has taken too long: what that leaves behind is killed when no
    /// child needs the group.
    pub(super) fn kill_group(&mut self, pid: Pid, signal: Signal) {
        let id = self.children.get(pid).map(|child| child.service);
        let Some(id) = id.filter(|_| signal == Signal::Kill) else {
            return;
        };
        if self
            .table
            .service(id)
            .is_none_or(|service| service.removed())
        {
            self.groups.kill(id.index());
        } else {
            self.groups.has_remnants(id.index());
        }
    }

    /// A service may be gone, or have no children any more.
    pub(super) fn end_group_if_unused(&mut self, now: Time, id: ServiceId) {
        match self.table.service(id).map(|service| service.total()) {
            None => self.groups.remove(now, id.index()),
            Some(0) => self.groups.childless(now, id.index()),
            Some(_) => {}
        }
    }

    /// The master ends, and with it all that is in its groups. Clients are not served any more.
    pub(super) fn end_groups(&mut self) {
        if !self.groups.have_home() {
            return;
        }
        wait(LEAVE_TIME, || !self.groups.are_populated());
        if !wait(KILL_TIME, || self.groups.end_all()) {
            self.log
                .warning("processes in control groups of services do not end of SIGKILL");
        }
    }
}

/// Whether something became so in time.
fn wait(time: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while !is_so() {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(LOOK_INTERVAL);
    }
    true
}
