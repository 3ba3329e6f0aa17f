//! Starts children.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::children::{ChildChannel, ChildIo};
use super::output::{Output, Purpose};
use super::services::{about_child, described};
use super::{Runtime, errno};
use crate::config::Service;
use crate::errors::describe_error;
use crate::log::Severity;
use crate::policy::{Event, Pid, ServiceId, Time};
use crate::protocol::template::Order;
use crate::sandbox::Failure;
use crate::sys::backchannel::Backchannel;
use crate::sys::channel::Channel;
use crate::sys::poll::Interest;
use crate::sys::privilege;
use crate::sys::spawn::{Descriptors, ExecError};

impl Runtime {
    /// Starts a child, and tells the policy what came of it. False if that must wait for the child
    /// before, which still uses the descriptors' places.
    pub(super) fn spawn(
        &mut self,
        now: Time,
        id: ServiceId,
        generation: u32,
        stress: bool,
    ) -> bool {
        if let Some(io) = self.services.get(id).filter(|io| io.is_preloaded()) {
            let order = Order {
                generation,
                ordered: io.service.is_ordered(),
                stress,
            };
            self.request_fork(now, id, order);
            return true;
        }
        if !self.spawner.wait_for_slots() {
            return false;
        }
        let purpose = self.output_purpose(now, id);
        let started = self.start_child(now, id, (generation, stress), purpose);
        let started = match started {
            // Descriptors may have run out: last words are no reason not to start it.
            Err(_) if purpose == Some(Purpose::LastWords) => {
                self.start_child(now, id, (generation, stress), None)
            }
            started => started,
        };
        match started {
            Ok(child) => self.child_started(now, generation, child),
            Err(error) => {
                let error = errno(&error);
                self.step(now, Event::SpawnFailed { service: id, error });
            }
        }
        true
    }

    /// Keeps a new child, and tells the policy of it.
    pub(super) fn child_started(&mut self, now: Time, generation: u32, child: ChildIo) {
        let (service, pid) = (child.service, child.process.pid());
        self.children.insert(child);
        self.step(
            now,
            Event::Spawned {
                service,
                generation,
                pid,
            },
        );
        self.watch_child(now, service, pid);
    }

    /// What is done with what the next child of a service prints. A socket for last words costs a
    /// tenth of a start, so that not each of many children of a program that works has one.
    pub(super) fn output_purpose(&mut self, now: Time, id: ServiceId) -> Option<Purpose> {
        let service = self.table.service(id)?;
        if service.config().limits().capture_output || self.logs_for_children() {
            Some(Purpose::Log)
        } else if self.setup.run.attached {
            Some(Purpose::Show)
        } else {
            let is_proven = service.is_proven();
            let activity = self.services.get_mut(id)?.activity();
            let has_words = !is_proven || activity.with_last_words.allow(now).is_some();
            has_words.then_some(Purpose::LastWords)
        }
    }

    /// Whether the log is a file of root's, which children without root's rights cannot open, and
    /// no postlogd is expected to write it.
    fn logs_for_children(&self) -> bool {
        let parameters = &self.config.parameters;
        let is_file =
            !parameters.maillog_file.is_empty() && !self.log.settings().target.is_stdout();
        parameters.stand_alone && is_file && privilege::is_root()
    }

    /// A new child, with the master's ends of what it inherits.
    fn start_child(
        &mut self,
        now: Time,
        id: ServiceId,
        (generation, stress): (u32, bool),
        purpose: Option<Purpose>,
    ) -> io::Result<ChildIo> {
        let io = self.services.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
        let group = self.groups.path(id.index());
        let program = io.program(self.setup.run, &self.setup.executor, stress, group)?;
        let (output, printed) = Output::pair(purpose, &io.service)?;
        let (channel, status) = if io.service.is_ordered() {
            let (backchannel, theirs) = Backchannel::pair()?;
            let channel = ChildChannel::Pool {
                backchannel: Box::new(backchannel),
                interest: Interest::Readable,
            };
            (channel, theirs)
        } else {
            let (channel, theirs) = Channel::pair()?;
            (ChildChannel::Status(channel), theirs)
        };
        io.listeners.iter().for_each(|listener| listener.give());
        let descriptors = Descriptors {
            status: status.as_fd(),
            listeners: &io.listeners,
            output: printed.as_ref().map(AsFd::as_fd),
            errors_only: purpose == Some(Purpose::LastWords),
        };
        let environment = &self.environment;
        let process = self
            .spawner
            .spawn(now, &program, environment, generation, descriptors)?;
        Ok(ChildIo {
            service: id,
            process,
            channel: Some(channel),
            slow_reads: None,
            output,
        })
    }

    /// Has the poller report a new child's end, and what it sends and prints.
    pub(super) fn watch_child(&mut self, now: Time, id: ServiceId, pid: Pid) {
        self.look_for_clients_later(now);
        self.exits.watch(pid, &self.children, &self.poll);
        let heard = self.children.hear(pid, &mut self.services, &self.poll);
        if let Err(error) = heard {
            // It is to leave: it could not say that it is busy.
            self.close_channel(pid);
            let error = errno(&error);
            self.step(now, Event::WatchFailed { service: id, error });
        }
        self.watch_output(id, pid);
    }

    fn watch_output(&mut self, id: ServiceId, pid: Pid) {
        let output = self.children.get_mut(pid).and_then(|c| c.output.as_mut());
        let watched = output.map_or(Ok(()), |output| output.watch(pid, &self.poll));
        let service = self.services.get(id).map(|io| &io.service);
        if let (Err(error), Some(service)) = (watched, service) {
            let (name, reason) = (described(service), describe_error(&error));
            let text =
                format!("{name}: what process {pid} prints is read at its end only: {reason}");
            let about = about_child(service, pid);
            self.log.write_about(Severity::Warning, about, text);
        }
    }

    /// Says why a child that has ended could not execute its program, if it could not.
    pub(super) fn log_exec_error(&mut self, id: ServiceId, pid: Pid) {
        let error = self.spawner.take_exec_error(pid);
        let service = self.services.get(id).map(|io| &io.service);
        if let (Some(error), Some(service)) = (error, service) {
            let about = about_child(service, pid);
            let executor = &self.setup.executor;
            let text = format!(
                "{} -- see line {} of {}: {}",
                describe_exec_error(&error, service, executor),
                service.line,
                service.table.display(),
                described(service)
            );
            self.log.write_about(Severity::Warning, about, text);
        }
    }
}

/// What could not be done, and why.
fn describe_exec_error(error: &ExecError, service: &Service, executor: &Path) -> String {
    let exec = |path: &Path, reason: &str| format!("exec {}: {reason}", path.display());
    let text = match error {
        ExecError::System(error) => {
            let path = if service.needs_executor() {
                executor
            } else {
                &service.path
            };
            return exec(path, &describe_error(error));
        }
        ExecError::Report(text) => text,
    };
    let reason = match Failure::decode(text) {
        None => return exec(executor, "it has not said what is wrong"),
        Some(Failure { setting, reason }) => (setting, reason),
    };
    match reason {
        (Some(setting), reason) => format!("cannot apply \"{setting}\": {reason}"),
        (None, reason) => exec(&service.path, &reason),
    }
}
