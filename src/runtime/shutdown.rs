//! The end: children get SIGTERM. Those whose service sets a time for that are first told to leave,
//! and waited for. Postfix's master waits for none, and neither does this one for the others: the
//! lock that it holds must be free within five seconds (Postfix, `postfix-script`).

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

use super::Runtime;
use super::lifecycle::Ending;
use crate::errors::describe_error;
use crate::policy::{Action, Kind, Pid, Record, ServiceId, Signal, Time};
use crate::sys::poll;
use crate::sys::signal;

/// Seconds that the end may take beside what services ask for (Postfix, `master_sig.c`).
const END_TIME: u32 = 5;
/// How long the end may wait until the addresses of thousands of services are free. A child that keeps
/// one from being so must not delay the end.
const ADDRESSES_TIME: Duration = Duration::from_secs(1);
/// The clock, which may be set by tests, is looked at this often.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

impl Runtime {
    /// Ends the children, and with them the master.
    pub(super) fn terminate(&mut self, number: i32) {
        self.lifecycle.end(Ending::Signal(number));
        self.lifecycle.supervisor.stopping();
        self.reloader.cancel(&self.poll);
        let longest = self.table.awaited().map(|(_, time)| time).max();
        let longest = 2 * longest.unwrap_or_default().as_secs();
        let longest = u32::try_from(longest).unwrap_or(u32::MAX);
        signal::die_within(longest.saturating_add(END_TIME));
        self.finish_queue();
        if self.table.awaited().next().is_some() {
            self.wait_for_children();
        }
        self.signal_children();
        self.services.close_addresses(&self.poll, ADDRESSES_TIME);
        self.end_groups();
    }

    /// The master leads the children's process group unless it was started otherwise (`-d`, `-D`,
    /// `-i`), when the group may have other members; with `-d` each child leads its own.
    fn signal_children(&mut self) {
        let attached = self.setup.run.attached;
        if signal::leads_group() && !attached {
            if let Err(error) = signal::terminate_group() {
                let reason = describe_error(&error);
                self.log
                    .error(format!("cannot end the process group: {reason}"));
            }
            return;
        }
        for pid in self.table.pids().chain(self.templates.pids()) {
            if attached {
                signal::terminate_group_of(pid);
            }
            self.signal(pid, Signal::Term);
        }
    }

    /// Carries out all that is queued, now that no client is served any more. No child is started.
    fn finish_queue(&mut self) {
        let now = self.now();
        while let Some(action) = self.queue.pop_front() {
            if !matches!(action, Action::Spawn { .. } | Action::Terminate { .. }) {
                self.carry_out(now, action);
            }
        }
    }

    /// Refuses clients, and has the children leave. Those whose service sets a time for that have it
    /// to finish with their client, and as much again after SIGTERM; the others get that at once.
    fn wait_for_children(&mut self) {
        let begin = self.now();
        let awaited = self.table.awaited();
        let mut leaving: BTreeMap<_, _> = awaited
            .map(|(pid, time)| {
                (
                    pid,
                    Leaving {
                        until: begin + time,
                        time,
                        told: false,
                    },
                )
            })
            .collect();
        self.services.close_addresses(&self.poll, ADDRESSES_TIME);
        let ids: Vec<ServiceId> = self.services.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.services.close(id, &self.poll);
        }
        for pid in self.table.pids().collect::<Vec<_>>() {
            self.close_channel(pid);
            if !leaving.contains_key(&pid) {
                self.signal(pid, Signal::Term);
            }
        }
        loop {
            let now = self.now();
            // A further signal ends the wait.
            if self.lifecycle.is_told_again() {
                let waiting = leaving.values_mut().filter(|child| !child.told);
                waiting.for_each(|child| child.until = now);
            }
            leaving.retain(|pid, child| self.is_leaving(begin, now, *pid, child));
            let Some((first, child)) = leaving.iter().min_by_key(|(_, child)| child.until) else {
                return;
            };
            let timeout = CLOCK_INTERVAL.min(child.until.saturating_sub(now));
            if let Some(child) = self.children.get(*first) {
                self.lifecycle.signals.wait(child.process.as_fd(), timeout);
            }
        }
    }

    /// Whether a child is to be waited for: it has not ended, and was not killed. Logs what it
    /// prints.
    fn is_leaving(&mut self, begin: Time, now: Time, pid: Pid, leaving: &mut Leaving) -> bool {
        let child = self.children.get(pid).map(|child| &child.process);
        // Of one that is traced, another process keeps the end to itself.
        let is_over = |fd| poll::wait_until_readable(fd, Duration::ZERO);
        if child.is_none_or(|c| c.reap().is_some() || is_over(c.as_fd())) {
            self.finish_output(now, pid, false);
            return false;
        }
        self.read_output(now, pid, 1);
        if now < leaving.until {
            return true;
        }
        let told = std::mem::replace(&mut leaving.told, true);
        let (kind, signal) = match self.table.state_of(pid) {
            _ if told => (Kind::Overdue, Signal::Kill),
            Some(_) => (Kind::Lingering(now - begin), Signal::Int),
            None => (Kind::Lingering(now - begin), Signal::Term),
        };
        let id = self.table.service_of(pid);
        if let Some(service) = id.and_then(|id| self.table.service(id)) {
            self.log_record(&Record::of_child(service.config().clone(), pid, kind));
        }
        self.signal(pid, signal);
        leaving.until = now + leaving.time;
        !told
    }
}

/// A child that is waited for.
#[derive(Debug)]
struct Leaving {
    /// When it gets the next signal.
    until: Time,
    /// How long it has for each.
    time: Duration,
    /// It was told to end.
    told: bool,
}
