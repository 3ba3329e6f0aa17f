//! The templates of all preloaded services: when they start, fork, and end. The policy asks for
//! children as of other services, and does not know how they come to be.

mod handover;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::Runtime;
use super::children::{ChildChannel, ChildIo};
use super::renewal::Renewal;
use super::services::{about_child, described};
use super::template::{Fault, Progress, Template};
use crate::config::Service;
use crate::log::Severity;
use crate::policy::{Action, Errno, Event, Limiter, Pid, ServiceId, Time};
use crate::protocol::template::Order;
use crate::sys::backchannel::Backchannel;
use crate::sys::channel::Channel;
use crate::sys::child::{ChildProcess, End};
use crate::sys::poll::Interest;
use crate::sys::signal::Signal;
use crate::sys::spawn::Environment;

/// When it is tried again to start one while the descriptors' places are in use.
const RETRY: Duration = Duration::from_millis(1);

/// All templates.
#[derive(Debug, Default)]
pub(super) struct Templates {
    pub(super) running: BTreeMap<Pid, Template>,
    pub(super) services: BTreeMap<ServiceId, Slot>,
    /// Services whose template is to be started.
    pub(super) missing: BTreeSet<ServiceId>,
    /// Templates that got SIGTERM, and when they get SIGKILL.
    leaving: Vec<(Time, Pid)>,
    /// Templates that got SIGKILL and have not ended, each with its service while that is preloaded.
    pub(super) killed: BTreeMap<Pid, Option<ServiceId>>,
    /// Templates of which the channel, the socket or a child's connection is readable.
    pub(super) ready: Vec<Pid>,
    warnings: Limiter,
}

/// What a preloaded service has.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) current: Option<Pid>,
    /// The one that is to take its place when a reload is done.
    pub(super) next: Option<Next>,
    /// Children that are asked for, beside the one that the template forks.
    requests: VecDeque<Order>,
    pub(super) renewal: Renewal,
    /// How many templates have failed; when the last one did, and why.
    pub(super) failures: u32,
    pub(super) failure: Option<(Time, String)>,
}

#[derive(Debug)]
pub(super) enum Next {
    /// It is to be started, with the service and the environment of the new configuration.
    Wanted(Arc<Service>, Environment),
    Loading(Pid),
    Loaded(Pid),
    /// In words.
    Failed(String),
}

impl Next {
    pub(super) fn pid(&self) -> Option<Pid> {
        match self {
            Self::Loading(pid) | Self::Loaded(pid) => Some(*pid),
            Self::Wanted(..) | Self::Failed(_) => None,
        }
    }
}

impl Slot {
    /// The templates that run, the one first that forks children.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        let next = self.next.as_ref().and_then(Next::pid);
        self.current.into_iter().chain(next)
    }

    pub(super) fn failed(&mut self, now: Time, why: &str) {
        self.failures = self.failures.saturating_add(1);
        self.failure = Some((now, why.to_owned()));
    }
}

impl Templates {
    /// All template processes, also those that got SIGTERM: the end of the master signals them.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        let leaving = self.leaving.iter().map(|(_, pid)| *pid);
        self.running.keys().copied().chain(leaving)
    }

    /// Whether a process is a child that a template is about to announce.
    pub(super) fn are_forking(&self, pid: Pid) -> bool {
        self.running
            .values()
            .any(|template| template.is_forking(pid))
    }
}

impl Runtime {
    /// When a template is overdue, or one is to be started.
    pub(super) fn templates_deadline(&self, now: Time) -> Option<Time> {
        let templates = &self.templates;
        let running = templates.running.values().filter_map(Template::deadline);
        let leaving = templates.leaving.iter().map(|(until, _)| *until);
        let mut missing = templates.missing.iter();
        let mut slots = templates.services.values();
        let wanted = slots.any(|slot| matches!(slot.next, Some(Next::Wanted(..))));
        let start = wanted || missing.any(|id| self.may_load(*id));
        let start = start.then(|| now + RETRY);
        let renewals = self.renewals_deadline();
        running.chain(leaving).chain(start).chain(renewals).min()
    }

    pub(super) fn may_load(&self, id: ServiceId) -> bool {
        let service = self.table.service(id);
        service.is_some_and(|service| !service.throttled() && !service.removed())
            && self.may_start_template(id).is_ok()
    }

    /// Whether one more template of a service may be started, which might not end: those that were
    /// killed and have not ended keep memory and descriptors.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn may_start_template(&self, id: ServiceId) -> Result<(), String> {
        let killed = &self.templates.killed;
        let of_service = killed.values().filter(|of| **of == Some(id)).count();
        self.table.may_load(of_service as u32, killed.len() as u32)
    }

    /// The policy asks for a child of a preloaded service.
    pub(super) fn request_fork(&mut self, now: Time, id: ServiceId, order: Order) {
        let slot = self.templates.services.entry(id).or_default();
        slot.requests.push_back(order);
        self.order_fork(now, id);
    }

    /// Orders the template to fork the next child that is asked for, if it can.
    pub(super) fn order_fork(&mut self, now: Time, id: ServiceId) {
        let Some(slot) = self.templates.services.get(&id) else {
            return;
        };
        let Some(pid) = slot.current else {
            self.templates.missing.insert(id);
            return;
        };
        let template = self.templates.running.get(&pid);
        if slot.requests.is_empty() || !template.is_some_and(Template::is_idle) {
            return;
        }
        if !self.has_listeners(id, pid) {
            // One was shut down, and opened again.
            self.retire_current(now, id);
            self.templates.missing.insert(id);
            return;
        }
        let slot = self.templates.services.get_mut(&id);
        let order = slot.and_then(|slot| slot.requests.pop_front());
        let template = self.templates.running.get_mut(&pid);
        if let (Some(template), Some(order)) = (template, order) {
            if let Err(fault) = template.order(now, order, &self.poll) {
                self.end_template(now, pid, fault);
            }
        }
    }

    /// Whether a template has the listeners that its service has now.
    pub(super) fn has_listeners(&self, id: ServiceId, pid: Pid) -> bool {
        let (io, template) = (self.services.get(id), self.templates.running.get(&pid));
        io.zip(template)
            .is_some_and(|(io, template)| template.has(&io.listeners))
    }

    /// Goes on with all templates of which something is ready or due.
    pub(super) fn serve_templates(&mut self, now: Time) {
        for pid in mem::take(&mut self.templates.ready) {
            let children = &self.children;
            let Some(template) = self.templates.running.get_mut(&pid) else {
                continue;
            };
            let progress = template.proceed(now, &self.poll, |pid| children.get(pid).is_some());
            self.log_refused(now, pid);
            // A child that has ended before it was announced is looked for again.
            self.exits.orphans |= !matches!(progress, Ok(None));
            match progress {
                Ok(Some(progress)) => self.template_progress(now, pid, progress),
                Ok(None) => {}
                Err(fault) => self.end_template(now, pid, fault),
            }
        }
        let running = self.templates.running.values();
        let overdue = running.filter_map(|t| Some((t.pid, t.overdue(now)?)));
        for (pid, fault) in overdue.collect::<Vec<_>>() {
            self.exits.orphans = true;
            self.end_template(now, pid, fault);
        }
        let leaving = mem::take(&mut self.templates.leaving);
        for (until, pid) in leaving {
            if until <= now {
                self.kill_template(pid);
            } else {
                self.templates.leaving.push((until, pid));
            }
        }
        self.renew_templates(now);
        self.start_next_templates(now);
        self.start_templates(now);
    }

    fn template_progress(&mut self, now: Time, pid: Pid, progress: Progress) {
        let Some(id) = self.children.get(pid).map(|child| child.service) else {
            return;
        };
        match progress {
            Progress::Loaded => {
                let slot = self.templates.services.get_mut(&id);
                let next = slot.and_then(|slot| slot.next.as_mut());
                if let Some(next) = next.filter(|next| next.pid() == Some(pid)) {
                    *next = Next::Loaded(pid);
                }
            }
            Progress::Forked(order, process, channel) => {
                self.adopt(now, id, order, process, channel);
            }
            Progress::Failed(fault) => {
                self.log_template(pid, &fault.words);
                if let Some(slot) = self.templates.services.get_mut(&id) {
                    slot.failed(now, &fault.words);
                }
                let (service, error) = (id, fault.errno);
                self.step(now, Event::SpawnFailed { service, error });
            }
        }
        self.order_fork(now, id);
    }

    /// Takes a child over that a template has forked.
    fn adopt(
        &mut self,
        now: Time,
        id: ServiceId,
        order: Order,
        process: ChildProcess,
        channel: Channel,
    ) {
        // The child of a service that a reload has just removed reads the end of its channel.
        let service = self.table.service(id);
        let is_wanted = service.is_some_and(|service| !service.removed());
        let Some(io) = self.services.get(id).filter(|_| is_wanted) else {
            return;
        };
        let channel = if io.service.is_ordered() {
            ChildChannel::Pool {
                backchannel: Box::new(Backchannel::new(channel)),
                interest: Interest::Readable,
            }
        } else {
            ChildChannel::Status(channel)
        };
        let child = ChildIo {
            service: id,
            process,
            channel: Some(channel),
            slow_reads: None,
            output: None,
        };
        self.child_started(now, order.generation, child);
    }

    /// Kills a template that does not do what it should.
    pub(super) fn end_template(&mut self, now: Time, pid: Pid, fault: Fault) {
        self.log_template(pid, &fault.words);
        if let Some(template) = self.templates.running.get(&pid) {
            template.kill_child(|pid| self.children.get(pid).is_some());
        }
        self.kill_template(pid);
        self.lose_template(now, pid, &fault);
    }

    pub(super) fn kill_template(&mut self, pid: Pid) {
        if let Some(child) = self.children.get(pid) {
            child.process.send(Signal::SIGKILL);
            self.templates.killed.insert(pid, Some(child.service));
        }
    }

    /// A template has not executed its program in time. It may not end even of SIGKILL.
    pub(super) fn template_hangs(&mut self, now: Time, pid: Pid) {
        self.kill_template(pid);
        let Some(id) = self.children.get(pid).map(|child| child.service) else {
            return;
        };
        let words = match self.may_start_template(id) {
            Ok(()) => "hangs in exec".to_owned(),
            Err(why) => format!("hangs in exec; {why}"),
        };
        if self.templates.running.contains_key(&pid) {
            self.end_template(now, pid, Fault::new(libc::ETIMEDOUT, words));
        }
    }

    /// Whether a process that has ended was a template.
    pub(super) fn template_ended(&mut self, now: Time, id: ServiceId, pid: Pid, end: End) -> bool {
        self.templates.leaving.retain(|(_, other)| *other != pid);
        self.templates.killed.remove(&pid);
        let Some(template) = self.templates.running.get(&pid) else {
            return false;
        };
        let how = match end {
            End::Code(code) => format!("exit status {code}"),
            End::Signal(number) => format!("killed by signal {number}"),
        };
        let service = template.service.clone();
        let text = format!(
            "{}: template process {} pid {pid} {how}",
            described(&service),
            service.path.display()
        );
        let about = about_child(&service, pid);
        self.log.write_about(Severity::Warning, about, text);
        debug_assert!(self.templates.services.contains_key(&id));
        self.lose_template_of(now, id, pid, &Fault::new(libc::ECHILD, how));
        true
    }

    fn lose_template(&mut self, now: Time, pid: Pid, fault: &Fault) {
        if let Some(id) = self.children.get(pid).map(|child| child.service) {
            self.lose_template_of(now, id, pid, fault);
        }
    }

    /// A template is not to be counted on any more. Unless a reload waits for it, the service is
    /// throttled, and another one started after that.
    fn lose_template_of(&mut self, now: Time, id: ServiceId, pid: Pid, fault: &Fault) {
        let template = self.templates.running.remove(&pid);
        let order = template.and_then(|template| template.close(&self.poll));
        let Some(slot) = self.templates.services.get_mut(&id) else {
            return;
        };
        slot.failed(now, &fault.words);
        if slot.next.as_ref().and_then(Next::pid) == Some(pid) {
            slot.next = Some(Next::Failed(fault.words.clone()));
            return;
        }
        slot.current = None;
        slot.requests.extend(order);
        self.templates.missing.insert(id);
        self.fail_requests(now, id, fault.errno);
    }

    /// The children cannot be had that are requested, or whose request is queued.
    pub(super) fn fail_requests(&mut self, now: Time, id: ServiceId, error: Errno) {
        let service = id;
        self.queue
            .retain(|action| !matches!(action, Action::Spawn { service, .. } if *service == id));
        if let Some(slot) = self.templates.services.get_mut(&id) {
            slot.requests.clear();
        }
        self.step(now, Event::SpawnFailed { service, error });
    }

    /// Tells a template to end, which has done nothing wrong. The order that comes to nothing.
    fn retire(&mut self, now: Time, pid: Pid) -> Option<Order> {
        let template = self.templates.running.remove(&pid)?;
        let order = template.close(&self.poll);
        if let Some(child) = self.children.get(pid) {
            child.process.send(Signal::SIGTERM);
        }
        let until = now + self.config.parameters.service_kill_time;
        self.templates.leaving.push((until, pid));
        order
    }

    pub(super) fn retire_current(&mut self, now: Time, id: ServiceId) {
        let slot = self.templates.services.get_mut(&id);
        let current = slot.and_then(|slot| slot.current.take());
        let order = current.and_then(|pid| self.retire(now, pid));
        if let Some(slot) = self.templates.services.get_mut(&id) {
            order
                .into_iter()
                .for_each(|order| slot.requests.push_front(order));
        }
    }

    pub(super) fn retire_next(&mut self, now: Time, id: ServiceId) {
        let slot = self.templates.services.get_mut(&id);
        let next = slot.and_then(|slot| slot.next.take());
        if let Some(pid) = next.and_then(|next| next.pid()) {
            self.retire(now, pid);
        }
    }

    /// A service is removed, or preloaded no longer: what it asks for.
    pub(super) fn drop_templates(&mut self, now: Time, id: ServiceId) -> VecDeque<Order> {
        self.retire_current(now, id);
        self.retire_next(now, id);
        self.templates.missing.remove(&id);
        for of in self.templates.killed.values_mut() {
            of.take_if(|of| *of == id);
        }
        let slot = self.templates.services.remove(&id);
        slot.map(|slot| slot.requests).unwrap_or_default()
    }

    /// Says what is wrong with a template.
    fn log_template(&mut self, pid: Pid, words: &str) {
        if let Some(template) = self.templates.running.get(&pid) {
            let service = template.service.clone();
            let (name, path) = (described(&service), service.path.display());
            let text = format!("{name}: template process {path} pid {pid} {words}");
            let about = about_child(&service, pid);
            self.log.write_about(Severity::Warning, about, text);
        }
    }

    fn log_refused(&mut self, now: Time, pid: Pid) {
        let Some(template) = self.templates.running.get_mut(&pid) else {
            return;
        };
        let service = template.service.clone();
        for peer in mem::take(&mut template.refused) {
            let Some(left_out) = self.templates.warnings.allow(now) else {
                continue;
            };
            let (name, other, uid) = (described(&service), peer.pid(), peer.uid());
            let more = match left_out {
                0 => String::new(),
                n => format!(" ({n} more were not logged)"),
            };
            let text = format!(
                "{name}: refused a connection to the socket of template pid {pid} from process \
                 {other}, uid {uid}, which is not the template{more}"
            );
            let about = about_child(&service, pid);
            self.log.write_about(Severity::Warning, about, text);
        }
    }
}
