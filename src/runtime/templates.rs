//! The templates of all preloaded services: when they start, fork, and end. The policy asks for
//! children as of other services, and does not know how they come to be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::children::{ChildChannel, ChildIo};
use super::output::{Output, Purpose};
use super::services::{about_child, described, program};
use super::template::{Fault, Progress, Template};
use super::{Runtime, errno};
use crate::config::Service;
use crate::errors::describe_error;
use crate::log::Severity;
use crate::policy::{Errno, Event, Limiter, Pid, ServiceId, Time};
use crate::protocol::LISTEN;
use crate::protocol::template::{Order, SOCKET};
use crate::sys::backchannel::Backchannel;
use crate::sys::channel::Channel;
use crate::sys::child::{ChildProcess, End};
use crate::sys::poll::Interest;
use crate::sys::signal::Signal;
use crate::sys::spawn::{Descriptors, Environment};
use crate::sys::template_socket::TemplateSocket;

/// Where the socket of a template is for a moment.
const SOCKET_PATH: &str = "pid/master.template";
/// Templates that are started in one turn.
const STARTS: usize = 4;
/// When it is tried again to start one while the descriptors' places are in use.
const RETRY: Duration = Duration::from_millis(1);

/// All templates.
#[derive(Debug, Default)]
pub(super) struct Templates {
    pub(super) running: BTreeMap<Pid, Template>,
    pub(super) services: BTreeMap<ServiceId, Slot>,
    /// Services whose template is to be started.
    pub(super) missing: BTreeSet<ServiceId>,
    /// Those that were told to end, and when they are killed.
    leaving: Vec<(Time, Pid)>,
    /// Those of which something is ready.
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
    fn pid(&self) -> Option<Pid> {
        match self {
            Self::Loading(pid) | Self::Loaded(pid) => Some(*pid),
            Self::Wanted(..) | Self::Failed(_) => None,
        }
    }
}

impl Templates {
    /// Those that are to get the signal that ends the master's children.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        let leaving = self.leaving.iter().map(|(_, pid)| *pid);
        self.running.keys().copied().chain(leaving)
    }

    pub(super) fn is_running(&self, pid: Pid) -> bool {
        self.running.contains_key(&pid)
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
        running.chain(leaving).chain(start).min()
    }

    fn may_load(&self, id: ServiceId) -> bool {
        let service = self.table.service(id);
        service.is_some_and(|service| !service.throttled() && !service.removed())
    }

    /// The policy asks for a child of a preloaded service.
    pub(super) fn request_fork(&mut self, now: Time, id: ServiceId, order: Order) {
        let slot = self.templates.services.entry(id).or_default();
        slot.requests.push_back(order);
        self.order_fork(now, id);
    }

    /// Orders the template to fork the next child that is asked for, if it can.
    pub(super) fn order_fork(&mut self, now: Time, id: ServiceId) {
        let Some(slot) = self.templates.services.get_mut(&id) else {
            return;
        };
        let running = &mut self.templates.running;
        let template = slot.current.and_then(|pid| running.get_mut(&pid));
        let Some(template) = template else {
            self.templates.missing.insert(id);
            return;
        };
        if !template.is_idle() || slot.requests.is_empty() {
            return;
        }
        let io = self.services.get(id);
        if !io.is_some_and(|io| template.has(&io.listeners)) {
            // A listener was shut down, and opened again.
            self.retire_current(now, id);
            self.templates.missing.insert(id);
            return;
        }
        if let Some(order) = slot.requests.pop_front() {
            if let Err(fault) = template.order(now, order, &self.poll) {
                let pid = template.pid;
                self.end_template(now, pid, fault);
            }
        }
    }

    /// Starts templates that a reload waits for.
    fn start_next_templates(&mut self, now: Time) {
        let slots = self.templates.services.iter();
        let wanted = slots.filter_map(|(id, slot)| match &slot.next {
            Some(Next::Wanted(service, environment)) => {
                Some((*id, service.clone(), environment.clone()))
            }
            _ => None,
        });
        for (id, service, environment) in wanted.take(STARTS).collect::<Vec<_>>() {
            if !self.spawner.wait_for_slots() {
                return;
            }
            let next = match self.start_template(now, id, &service, &environment) {
                Ok(pid) => Next::Loading(pid),
                Err(error) => Next::Failed(describe_error(&error)),
            };
            self.templates.services.entry(id).or_default().next = Some(next);
        }
    }

    /// Starts templates that are missing.
    fn start_templates(&mut self, now: Time) {
        let missing = self.templates.missing.iter().copied();
        let missing = missing.filter(|id| self.may_load(*id)).take(STARTS);
        for id in missing.collect::<Vec<_>>() {
            if !self.spawner.wait_for_slots() {
                return;
            }
            self.templates.missing.remove(&id);
            let Some(service) = self.services.get(id).map(|io| io.service.clone()) else {
                continue;
            };
            let environment = self.environment.clone();
            match self.start_template(now, id, &service, &environment) {
                Ok(pid) => self.templates.services.entry(id).or_default().current = Some(pid),
                Err(error) => {
                    self.templates.missing.insert(id);
                    self.fail_requests(now, id, errno(&error));
                }
            }
        }
    }

    fn start_template(
        &mut self,
        now: Time,
        id: ServiceId,
        service: &Arc<Service>,
        environment: &Environment,
    ) -> io::Result<Pid> {
        let io = self.services.get(id).ok_or(io::ErrorKind::NotFound)?;
        let (run, executor) = (self.setup.run, &self.setup.executor);
        let group = self.groups.path(id.index());
        // The socket follows the listeners.
        let program = program(service, run, executor, false, io.listeners.len() + 1, group)?;
        let purpose = self.output_purpose(id);
        let output = purpose.map(|_| Channel::pair());
        let (output, printed) = output.transpose()?.unzip();
        let (channel, theirs) = Channel::pair()?;
        let socket = TemplateSocket::open(Path::new(SOCKET_PATH))?;
        io.listeners.iter().for_each(|listener| listener.give());
        let listeners = io.listeners.iter().map(|listener| listener.as_fd());
        let listeners: Vec<BorrowedFd<'_>> = listeners.chain([socket.handle()]).collect();
        let path = TemplateSocket::path(LISTEN + io.listeners.len() as i32);
        let variable = CString::new(format!("{SOCKET}={}", path.display()))?;
        let environment: Vec<_> = environment.iter().cloned().chain([variable]).collect();
        let descriptors = Descriptors {
            status: theirs.as_fd(),
            listeners: &listeners,
            output: printed.as_ref().map(AsFd::as_fd),
            errors_only: purpose == Some(Purpose::LastWords),
        };
        let process =
            self.spawner
                .spawn(now, &Arc::new(program), &environment.into(), 0, descriptors)?;
        let pid = process.pid();
        let mut template = Template::new(pid, service.clone(), &io.listeners, channel, socket, now);
        let watched = template.watch(&self.poll);
        self.templates.running.insert(pid, template);
        self.children.insert(ChildIo {
            service: id,
            process,
            channel: None,
            slow_reads: None,
            output: output
                .zip(purpose)
                .map(|(channel, purpose)| Output::new(channel, service.clone(), purpose)),
        });
        self.watch_child(now, id, pid);
        if let Err(error) = watched {
            self.kill_template(pid);
            let template = self.templates.running.remove(&pid);
            let _ = template.and_then(|template| template.close(&self.poll));
            return Err(error);
        }
        Ok(pid)
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
            match progress {
                Ok(Some(progress)) => self.template_progress(now, pid, progress),
                Ok(None) => {}
                Err(fault) => self.end_template(now, pid, fault),
            }
        }
        let running = self.templates.running.values();
        let overdue = running.filter_map(|t| Some((t.pid, t.overdue(now)?)));
        for (pid, fault) in overdue.collect::<Vec<_>>() {
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
        let Some(io) = self.services.get(id) else {
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

    fn kill_template(&mut self, pid: Pid) {
        if let Some(child) = self.children.get(pid) {
            child.process.send(Signal::SIGKILL);
        }
    }

    /// Whether a process that has ended was a template.
    pub(super) fn template_ended(&mut self, now: Time, id: ServiceId, pid: Pid, end: End) -> bool {
        self.templates.leaving.retain(|(_, other)| *other != pid);
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
        if slot
            .next
            .as_ref()
            .is_some_and(|next| next.pid() == Some(pid))
        {
            slot.next = Some(Next::Failed(fault.words.clone()));
            return;
        }
        slot.current = None;
        slot.requests.extend(order);
        self.templates.missing.insert(id);
        self.fail_requests(now, id, fault.errno);
    }

    /// There will be no child for those that were asked for.
    fn fail_requests(&mut self, now: Time, id: ServiceId, error: Errno) {
        let service = id;
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
