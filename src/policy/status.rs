//! How children start, report and end (Postfix, `master_spawn.c` and `master_status.c`).

use std::time::Duration;

use super::child::{Child, Client};
use super::deadlines::Termination;
use super::pool::{Member, State};
use super::service::Context;
use super::{ExitStatus, Kind, Pid, Service, Signal};
use crate::protocol::{Availability, StatusReport};

/// The most children of one service that may hang in exec at a time: each keeps memory, and the
/// next one would hang too.
pub(super) const HANGING_MAX: u32 = 3;
/// The most of all services.
pub(super) const HANGING_OF_ALL_MAX: u32 = 64;

/// While a service has more than one child available, reports are read in batches, which wait for
/// this long for each spare child: to be woken up for one costs more than to read many.
const REPORT_DELAY: Duration = Duration::from_millis(1);
/// More spare children make reports wait no longer: counts are never older than this allows, and no
/// child waits for room, of which Linux has enough for 278 reports (`net.core.wmem_default`).
const SPARE_MAX: u32 = 4;

impl Service {
    /// How long reports may wait to be read together.
    pub(super) fn report_delay(&self) -> Option<Duration> {
        let spare = self.avail.saturating_sub(1).min(SPARE_MAX);
        (spare > 0).then(|| REPORT_DELAY * spare)
    }

    /// A new child counts as available from the moment it is started.
    pub(super) fn spawned(&mut self, cx: &mut Context, generation: u32, pid: Pid) {
        self.spawning = false;
        self.rare_mut().statistics.started += 1;
        let member = self.pool.is_some().then(Member::default);
        let child = Child::new(generation, cx.now, member);
        let place = match cx.shared.spare.take() {
            Some(mut place) => {
                *place = child;
                place
            }
            None => Box::new(child),
        };
        self.children.insert(pid, place);
        self.log_child(cx, pid, Kind::Spawned);
        if member.is_some() {
            self.join_pool(cx, pid);
        } else {
            self.avail += 1;
        }
        if self.paused && member.is_none() {
            // The pause began after the child was asked for.
            self.tell_to_leave(cx);
        }
        self.touch(cx);
        self.start_conditional_wakeups(cx);
    }

    /// The count that a child which shares its listeners is part of while it is idle.
    fn idle_count(&mut self, leaving: bool) -> &mut u32 {
        if leaving {
            &mut self.departing
        } else {
            &mut self.avail
        }
    }

    /// A report, which is believed only when all of it fits together.
    pub(super) fn report(&mut self, cx: &mut Context, writer: Pid, report: StatusReport) {
        let pid = report.pid;
        if writer != pid {
            return self.warn_limited(cx, writer, Kind::ForgedReport(pid));
        }
        let child = self.children.get_mut(&pid).filter(|c| c.member.is_none());
        let Some(child) = child else {
            // A child of a child, or one whose end was handled before its report was read; or one
            // of an ordered pool, which has a channel of its own.
            return;
        };
        if child.generation != report.generation {
            let generation = report.generation;
            return self.warn_limited(cx, pid, Kind::StaleReport(generation));
        }
        let Some(availability) = report.availability() else {
            let value = report.available;
            return self.warn_limited(cx, pid, Kind::UnknownStatus(value));
        };
        if child.availability == availability {
            return;
        }
        child.availability = availability;
        // A child that was told to leave has written this before it knew.
        let leaving = child.leaving;
        match availability {
            Availability::Available => {
                child.uses = child.uses.saturating_add(1);
                child.busy_since = None;
                *self.idle_count(leaving) += 1;
                self.served();
            }
            Availability::Taken => {
                child.take_client(cx.now);
                if let (false, Termination::Asked(_)) = (leaving, child.termination) {
                    child.termination = Termination::No;
                }
                *self.idle_count(leaving) -= 1;
                self.rare_mut().statistics.connections += 1;
            }
        }
        self.touch(cx);
        self.update_deadline(cx, pid);
    }

    /// Logs what is wrong with what a child sent, but not more often than a confused child deserves.
    pub(super) fn warn_limited(&mut self, cx: &mut Context, writer: Pid, kind: Kind) {
        if let Some(count) = self.rare_mut().warnings.allow(cx.now) {
            self.log_child(cx, writer, kind);
            if count > 0 {
                self.log(cx, Kind::Suppressed(count));
            }
        }
    }

    /// Tells the children that share the listeners to leave when they have finished, by closing
    /// their status channels. They are no longer counted on: Postfix goes on counting them, and so
    /// leaves a service without anyone to listen when one does not go.
    pub(super) fn tell_to_leave(&mut self, cx: &mut Context) {
        for (&pid, child) in &mut self.children {
            child.leave_since.get_or_insert(cx.now);
            if !std::mem::replace(&mut child.leaving, true) {
                self.departing += u32::from(child.is_departing());
                cx.close_channel(pid);
            }
        }
        self.avail = 0;
        self.update_deadlines(cx);
        self.touch(cx);
    }

    /// Counts no longer on a child that shares the listeners.
    fn set_leaving(&mut self, pid: Pid) {
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        self.avail -= u32::from(child.is_available());
        self.departing -= u32::from(child.is_departing());
        child.leaving = true;
        self.departing += u32::from(child.is_departing());
    }

    /// A child's program does not start: its file system does not answer, or something holds the
    /// file. The process may not end even of SIGKILL, so it is not counted on any more.
    pub(super) fn exec_hangs(&mut self, cx: &mut Context, pid: Pid) {
        let Some(child) = self.children.get_mut(&pid).filter(|c| !c.hanging) else {
            return;
        };
        let heard = child.is_heard();
        child.hanging = true;
        child.termination = Termination::Killed;
        if child.member.is_some() {
            self.set_state(cx, pid, State::Killed);
        } else {
            self.set_leaving(pid);
            self.update_deadline(cx, pid);
        }
        cx.shared.hanging += 1;
        self.rare_mut().hanging += 1;
        let hanging = self.rare().hanging;
        self.log_child(cx, pid, Kind::ExecHangs(hanging));
        cx.signal(pid, Signal::Kill);
        if heard {
            cx.close_channel(pid);
        }
        self.throttle(cx);
        self.touch(cx);
    }

    /// A child sent file descriptors, after which its channel is not read any more.
    pub(super) fn sent_descriptors(&mut self, cx: &mut Context, pid: Pid) {
        self.warn_limited(cx, pid, Kind::SentDescriptors);
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        let told = child.termination != Termination::No;
        match child.pool_state() {
            Some(state) if state.is_leaving() => return,
            Some(_) => self.kill_member(cx, pid),
            None => {
                if !told {
                    child.termination = Termination::Asked(cx.now);
                }
                child.leave_since.get_or_insert(cx.now);
                self.set_leaving(pid);
                self.update_deadline(cx, pid);
            }
        }
        if !told {
            cx.signal(pid, Signal::Term);
        }
        self.touch(cx);
    }

    /// A child ended. One that fails before it has served any client is a symptom of something
    /// structural, so its service is throttled.
    pub(super) fn exited(&mut self, cx: &mut Context, pid: Pid, status: ExitStatus) {
        let Some(child) = self.release(cx, pid) else {
            return;
        };
        let end = child.end(status, self.removed);
        let bad_startup = end.failed && end.indicts_command && self.may_throttle();
        self.rare_mut().statistics.count_end(status);
        cx.shared.spare = Some(child);
        if end.failed {
            self.log_child(cx, pid, Kind::Ended(status));
        }
        if bad_startup {
            self.log(cx, Kind::BadStartup);
            self.throttle(cx);
        }
        match end.client {
            Some(Client::Lost) => self.crashed(cx),
            Some(Client::Served) => self.served(),
            None => {}
        }
    }

    /// Forgets a child.
    pub(super) fn release(&mut self, cx: &mut Context, pid: Pid) -> Option<Box<Child>> {
        let child = self.children.remove(&pid)?;
        if let Some(member) = &child.member {
            self.leave_pool(cx, pid, member);
        } else {
            self.avail -= u32::from(child.is_available());
            self.departing -= u32::from(child.is_departing());
        }
        self.move_deadline(cx, pid, child.deadline, None);
        if child.hanging {
            cx.shared.hanging -= 1;
            self.rare_mut().hanging -= 1;
        }
        self.touch(cx);
        Some(child)
    }
}
