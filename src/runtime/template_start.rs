//! Starts templates: missing ones, and ones that are to replace others.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use super::children::ChildIo;
use super::output::{Output, Purpose};
use super::services::program;
use super::template::Template;
use super::templates::Next;
use super::{Runtime, errno};
use crate::config::Service;
use crate::errors::describe_error;
use crate::policy::{Pid, ServiceId, Time};
use crate::protocol::LISTEN;
use crate::protocol::template::SOCKET;
use crate::sys::channel::Channel;
use crate::sys::spawn::{Descriptors, Environment};
use crate::sys::template_socket::TemplateSocket;

/// Where the socket of a template is for a moment.
const SOCKET_PATH: &str = "pid/master.template";
/// Templates that are started in one turn.
const STARTS: usize = 4;

impl Runtime {
    /// Starts templates that a reload waits for.
    pub(super) fn start_next_templates(&mut self, now: Time) {
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
            let allowed = self.may_start_template(id).map_err(io::Error::other);
            let started =
                allowed.and_then(|()| self.start_template(now, id, &service, &environment));
            let slot = self.templates.services.entry(id).or_default();
            slot.next = Some(match started {
                Ok(pid) => Next::Loading(pid),
                Err(error) => {
                    slot.failed(now, &describe_error(&error));
                    Next::Failed(describe_error(&error))
                }
            });
        }
    }

    /// Starts templates that are missing.
    pub(super) fn start_templates(&mut self, now: Time) {
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
                    let slot = self.templates.services.entry(id).or_default();
                    slot.failed(now, &describe_error(&error));
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
        let purpose = self.output_purpose(now, id);
        let io = self.services.get(id).ok_or(io::ErrorKind::NotFound)?;
        let (run, executor) = (self.setup.run, &self.setup.executor);
        let group = self.groups.path(id.index());
        // The socket follows the listeners.
        let program = program(service, run, executor, false, io.listeners.len() + 1, group)?;
        let (output, printed) = Output::pair(purpose, service)?;
        let (channel, theirs) = Channel::pair()?;
        let (socket, handle) = TemplateSocket::open(Path::new(SOCKET_PATH))?;
        io.listeners.iter().for_each(|listener| listener.give());
        let listeners = io.listeners.iter().map(|listener| listener.as_fd());
        let listeners: Vec<BorrowedFd<'_>> = listeners.chain([handle.as_fd()]).collect();
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
            output,
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
}
