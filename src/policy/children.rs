//! What children do: start, report, end (Postfix, `master_spawn.c` and `master_status.c`).

use std::sync::Arc;

use super::ordered::Member;
use super::overstay::Told;
use super::{Action, Child, ExitStatus, Leaving, Pid, Record, ServiceId, Table, Time};
use crate::config;
use crate::protocol::{Availability, StatusReport};

/// SIGTERM and SIGKILL, the numbers of which are the same on every system.
const SENT_BY_US: [i32; 2] = [15, 9];

/// What a child's end says.
struct End {
    /// It was neither well nor wished.
    failed: bool,
    /// It says something about the command of today, as far as nobody was served.
    telling: bool,
    client: Option<Client>,
}

/// What became of the client that a child had when it ended.
enum Client {
    Served,
    Lost,
}

impl Child {
    fn end(&self, status: ExitStatus, removed: bool) -> End {
        let overstayed = self.told != Told::No;
        // A child that was told to leave says nothing about the command of today.
        let mut telling = self.uses == 0 && self.leaving == Leaving::No && !overstayed;
        let mut had_client =
            self.availability == Availability::Taken && self.leaving == Leaving::No;
        let (mut told, mut unready) = (false, false);
        if let Some(member) = &self.member {
            had_client = member.had_client(overstayed);
            telling &= member.is_telling();
            told = member.was_told(status);
            // Nobody else would notice a command that does nothing.
            unready = telling && member.was_starting();
        }
        told |= (removed || overstayed)
            && matches!(status, ExitStatus::Signal(n) if SENT_BY_US.contains(&n));
        let failed = (status != ExitStatus::Code(0) || unready) && !told;
        let client = match failed || overstayed {
            true => Client::Lost,
            false => Client::Served,
        };
        End {
            failed,
            telling,
            client: had_client.then_some(client),
        }
    }
}

impl Table {
    /// A new child counts as available from the moment it is started.
    pub(super) fn spawned(
        &mut self,
        now: Time,
        id: ServiceId,
        generation: u32,
        pid: Pid,
        out: &mut Vec<Action>,
    ) {
        // The kernel gives no pid twice before it was reaped; should we have missed that, the
        // newcomer is the truth.
        self.forget_child(pid);
        let Some(service) = self.service_mut(id) else {
            return;
        };
        service.spawning = false;
        service.total += 1;
        service.stats.started += 1;
        let ordered = service.config.is_ordered();
        let position = service.children.len();
        service.children.push(pid);
        self.children.insert(
            pid,
            Child {
                service: id,
                generation,
                availability: Availability::Taken,
                uses: 0,
                clients: 0,
                started: now,
                leaving: Leaving::No,
                busy_since: None,
                dismissed: None,
                told: Told::No,
                due: None,
                member: ordered.then(|| Box::new(Member::new())),
                position,
            },
        );
        self.detail(id, out, |service| Record::Spawned { service, pid });
        match ordered {
            true => self.count_member(now, pid),
            false => self.avail_more(id, pid),
        }
        self.start_conditional_wakeups(now, id, out);
    }

    /// A report: gossip, believed only when all of it fits together.
    pub(super) fn report(
        &mut self,
        now: Time,
        id: ServiceId,
        writer: Pid,
        report: StatusReport,
        out: &mut Vec<Action>,
    ) {
        let pid = report.pid;
        if writer != pid {
            let claimed = pid;
            return self.gossip(now, id, out, |service| Record::ForgedReport {
                service,
                writer,
                claimed,
            });
        }
        let ours = |child: &&mut Child| child.service == id && child.member.is_none();
        let Some(child) = self.children.get_mut(&pid).filter(ours) else {
            // A child of a child, or one that was reaped before its report was read; or one of an
            // ordered pool, which has a channel of its own.
            return;
        };
        if child.generation != report.generation {
            let generation = report.generation;
            return self.gossip(now, id, out, |service| Record::StaleReport {
                service,
                pid,
                generation,
            });
        }
        let Some(availability) = report.availability() else {
            let value = report.available;
            return self.gossip(now, id, out, |service| Record::UnknownStatus {
                service,
                pid,
                value,
            });
        };
        if child.leaving != Leaving::No || child.availability == availability {
            return;
        }
        match availability {
            Availability::Available => {
                child.uses = child.uses.saturating_add(1);
                child.busy_since = None;
                self.avail_more(id, pid);
                self.served(id);
            }
            Availability::Taken => {
                child.take_client(now);
                if child.told != Told::Killed {
                    child.told = Told::No;
                }
                self.avail_less(id, pid);
                self.count_client(id);
            }
        }
        self.reckon(pid);
    }

    /// What is no report: the child has nobody to harm with it but itself.
    pub(super) fn garbage(
        &mut self,
        now: Time,
        id: ServiceId,
        writer: Pid,
        length: usize,
        out: &mut Vec<Action>,
    ) {
        self.gossip(now, id, out, |service| Record::PartialReport {
            service,
            writer,
            length,
        });
    }

    /// Says what is wrong with a report, but not more often than a confused child deserves.
    fn gossip(
        &mut self,
        now: Time,
        id: ServiceId,
        out: &mut Vec<Action>,
        record: impl FnOnce(Arc<config::Service>) -> Record,
    ) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        let config = service.config.clone();
        if let Some(suppressed) = service.trouble.gossip.allow(now) {
            out.push(Action::Log(record(config.clone())));
            if suppressed > 0 {
                out.push(Action::Log(Record::Suppressed {
                    service: config,
                    count: suppressed,
                }));
            }
        }
    }

    /// A child ended. One that fails before it has served anybody is a symptom of something
    /// structural, so its service is throttled.
    pub(super) fn exited(
        &mut self,
        now: Time,
        pid: Pid,
        status: ExitStatus,
        out: &mut Vec<Action>,
    ) {
        let Some(child) = self.children.get(&pid) else {
            return;
        };
        let id = child.service;
        let Some(service) = self.services[id.index()].as_mut() else {
            return;
        };
        let end = child.end(status, service.removed());
        let bad_startup = end.failed && end.telling && service.may_throttle();
        service.stats.count_end(status);
        let service = service.config.clone();
        self.forget_child(pid);
        if end.failed {
            out.push(Action::Log(Record::Ended {
                service: service.clone(),
                pid,
                status,
            }));
        }
        if bad_startup {
            out.push(Action::Log(Record::BadStartup(service)));
            self.throttle(now, id, out);
        }
        match end.client {
            Some(Client::Lost) => self.crashed(now, id, out),
            Some(Client::Served) => self.served(id),
            None => {}
        }
    }

    fn forget_child(&mut self, pid: Pid) {
        let Some(child) = self.children.get(&pid) else {
            return;
        };
        let (id, position) = (child.service, child.position);
        let departing = child.leaving == Leaving::AtOnce;
        let is_member = child.member.is_some();
        self.avail_less(id, pid);
        if is_member {
            self.discount_member(pid);
        }
        self.set_due(pid, None);
        self.children.remove(&pid);
        let Some(service) = self.services[id.index()].as_mut() else {
            return;
        };
        service.total -= 1;
        service.departing -= u32::from(departing);
        service.children.swap_remove(position);
        if let Some(moved) = service.children.get(position) {
            if let Some(moved) = self.children.get_mut(moved) {
                moved.position = position;
            }
        }
        self.touch(id);
        self.forget_if_done(id);
    }
}
