//! How children start, report and end (Postfix, `master_spawn.c` and `master_status.c`).

use std::time::Duration;

use super::child::{Child, Counted, Leaving, State};
use super::deadlines::Termination;
use super::service::Context;
use super::{Action, ExitStatus, Kind, Pid, Progress, Service, Signal, Table};
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

impl Table {
    /// Whether another template may be started while these were killed and have not ended, of its
    /// service and of all. They are no children, so the policy does not count them.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn may_load(&self, of_service: u32, of_all: u32) -> Result<(), String> {
        let (many, of) = if of_service >= HANGING_MAX {
            (of_service, "this service")
        } else if self.cx.hanging.saturating_add(of_all) >= HANGING_OF_ALL_MAX {
            (self.cx.hanging.saturating_add(of_all), "all services")
        } else {
            return Ok(());
        };
        Err(format!(
            "{many} killed processes of {of} have not ended: no template is started before one has"
        ))
    }
}

impl Service {
    /// How long reports may wait to be read together.
    pub(super) fn report_delay(&self) -> Option<Duration> {
        let spare = self.avail.saturating_sub(1).min(SPARE_MAX);
        (spare > 0).then(|| REPORT_DELAY * spare)
    }

    /// A new child that shares its listeners counts as available from the moment it is started.
    pub(super) fn spawned(&mut self, cx: &mut Context, generation: u32, pid: Pid) {
        self.spawning = false;
        self.rare_mut().statistics.started += 1;
        let mut child = Child::new(generation, cx.now, self.pool.is_some());
        self.limit_life(cx, &mut child);
        child.deadline = child.next_deadline(&self.config, self.removed, cx.kill_time);
        self.recount(cx, pid, Counted::default(), child.counted());
        let place = match cx.spare.take() {
            Some(mut place) => {
                *place = child;
                place
            }
            None => Box::new(child),
        };
        self.children.insert(pid, place);
        self.log_child(cx, pid, Kind::Spawned);
        if self.paused && self.pool.is_none() {
            // The pause began after the child was asked for.
            self.tell_to_leave(cx);
        }
        self.start_conditional_wakeups(cx);
    }

    /// A report, which is believed only when all of it fits together.
    pub(super) fn report(
        &mut self,
        cx: &mut Context,
        writer: Pid,
        report: Result<StatusReport, usize>,
    ) {
        let report = match report {
            Ok(report) => report,
            Err(length) => return self.warn_limited(cx, writer, Kind::PartialReport(length)),
        };
        let pid = report.pid;
        if writer != pid {
            return self.warn_limited(cx, writer, Kind::ForgedReport(pid));
        }
        let child = self.children.get(&pid).filter(|child| !child.ordered);
        let Some(child) = child else {
            // Its end was handled before its report was read; or it is a child of an ordered pool,
            // which has another channel.
            return;
        };
        if child.generation != report.generation {
            let generation = report.generation;
            return self.warn_limited(cx, pid, Kind::StaleReport(generation));
        }
        // A child that was told to leave has written this before it knew.
        match (child.state, report.availability()) {
            (_, None) => self.warn_limited(cx, pid, Kind::UnknownStatus(report.available)),
            (State::Busy, Some(Availability::Available)) => self.turned_idle(cx, pid),
            (State::Idle, Some(Availability::Taken)) => self.turned_busy(cx, pid),
            _ => {}
        }
    }

    /// A child is ready, or has served its client.
    pub(super) fn turned_idle(&mut self, cx: &mut Context, pid: Pid) {
        let mut served = false;
        self.change(cx, pid, |child, _| {
            served = child.state == State::Busy;
            child.state = State::Idle;
            child.uses = child.uses.saturating_add(served.into());
            child.since = None;
            if child.is_heard() {
                child.leave_since = None;
            }
        });
        if served {
            self.served();
        }
        self.recycle(cx, pid);
    }

    /// A child has a client.
    pub(super) fn turned_busy(&mut self, cx: &mut Context, pid: Pid) {
        let rare = self.rare_mut();
        rare.statistics.connections += 1;
        rare.starts.have_progress();
        rare.stall.is_on = false;
        self.change(cx, pid, |child, now| {
            child.state = State::Busy;
            child.since = Some(now);
            child.clients = child.clients.saturating_add(1);
            if child.is_heard() && child.termination != Termination::Killed {
                child.termination = Termination::No;
            }
        });
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
        let heard = self.children.iter().filter(|(_, child)| child.is_heard());
        cx.out
            .extend(heard.map(|(&pid, _)| Action::CloseChannel { pid }));
        self.change_all(cx, |child, now| child.leaves(Leaving::Told, now));
    }

    /// A child reads end of file from its channel, and leaves when it has finished with its client.
    pub(super) fn channel_lost(&mut self, cx: &mut Context, pid: Pid) {
        if self.pool.is_some() {
            return self.channel_closed(cx, pid);
        }
        self.change(cx, pid, |child, now| child.leaves(Leaving::Told, now));
    }

    /// Counts no longer on a child that is told to end, and is killed when it has not in time.
    pub(super) fn leave(&mut self, cx: &mut Context, pid: Pid, why: Leaving) {
        self.change(cx, pid, |child, now| {
            child.leaves(why, now);
            if child.termination == Termination::No {
                child.termination = Termination::Asked(now);
            }
        });
    }

    /// A child's program does not start: its file system does not answer, or something holds the
    /// file. The process may not end even of SIGKILL, so it is not counted on any more.
    pub(super) fn exec_hangs(&mut self, cx: &mut Context, pid: Pid) {
        let Some(child) = self.children.get(&pid).filter(|child| !child.hangs()) else {
            return;
        };
        let heard = child.is_heard();
        self.change(cx, pid, |child, _| {
            child.leaving = Some(Leaving::Hanging);
            child.termination = Termination::Killed;
        });
        let hanging = self.rare().hanging;
        self.log_child(cx, pid, Kind::ExecHangs(hanging));
        cx.signal(pid, Signal::Kill);
        if heard {
            cx.close_channel(pid);
        }
        self.throttle(cx);
    }

    /// A child sent file descriptors, after which its channel is not read any more.
    pub(super) fn sent_descriptors(&mut self, cx: &mut Context, pid: Pid) {
        self.warn_limited(cx, pid, Kind::SentDescriptors);
        let Some(child) = self.children.get(&pid) else {
            return;
        };
        if child.ordered && !child.is_heard() {
            return;
        }
        if child.termination == Termination::No {
            cx.signal(pid, Signal::Term);
        }
        let why = if child.ordered {
            Leaving::Rogue
        } else {
            Leaving::Told
        };
        self.leave(cx, pid, why);
    }

    /// A child ended. One that fails before it has served any client is a symptom of something
    /// structural, so its service is throttled.
    pub(super) fn exited(
        &mut self,
        cx: &mut Context,
        pid: Pid,
        status: ExitStatus,
        progress: Progress,
    ) {
        let Some(child) = self.release(cx, pid) else {
            return;
        };
        let end = child.end(status, self.removed);
        let bad_startup = end.failed && end.indicts_command && self.may_throttle();
        let progress = child.progress(cx.now, status, progress);
        self.rare_mut().statistics.count_end(status);
        cx.spare = Some(child);
        if !end.failed {
            self.judge(cx, progress);
        }
        if end.failed {
            self.log_child(cx, pid, Kind::Ended(status));
        }
        if bad_startup {
            self.log(cx, Kind::BadStartup);
            self.throttle(cx);
        }
        match end.client_lost {
            Some(true) => self.crashed(cx),
            Some(false) => self.served(),
            None => {}
        }
        if end.recycled {
            self.recycle_all(cx);
        }
    }

    /// Forgets a child.
    pub(super) fn release(&mut self, cx: &mut Context, pid: Pid) -> Option<Box<Child>> {
        let child = self.children.remove(&pid)?;
        self.recount(cx, pid, child.counted(), Counted::default());
        Some(child)
    }
}
