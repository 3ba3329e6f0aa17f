//! Writes down what the master has, for the program that goes on.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use crate::config::Service;
use crate::policy::Time;
use crate::protocol;
use crate::runtime::Runtime;
use crate::runtime::children::{ChildChannel, ChildIo};
use crate::runtime::services::ServiceIo;
use crate::sys::channel::Channel;
use crate::upgrade::{
    ChannelState, ChildState, FORMAT, ListenerState, LogState, Process, ServiceState, State,
};

/// What is named in a state by number.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Saving {
    configs: Vec<Arc<Service>>,
    numbers: HashMap<*const Service, usize>,
    fds: Vec<RawFd>,
}

impl Saving {
    /// The number of a service's configuration.
    pub(in crate::runtime) fn config(&mut self, config: &Arc<Service>) -> usize {
        let configs = &mut self.configs;
        let number = self.numbers.entry(Arc::as_ptr(config));
        *number.or_insert_with(|| {
            configs.push(config.clone());
            configs.len() - 1
        })
    }

    /// Has a descriptor stay open.
    pub(in crate::runtime) fn fd(&mut self, fd: &impl AsFd) -> i32 {
        let fd = fd.as_fd().as_raw_fd();
        self.fds.push(fd);
        fd
    }

    pub(in crate::runtime) fn channel(&mut self, channel: &Channel) -> ChannelState {
        ChannelState {
            fd: self.fd(channel),
            refuses: channel.refuses(),
        }
    }

    fn service(&mut self, place: usize, io: &ServiceIo) -> ServiceState {
        let listeners = io.listeners.iter().map(|listener| ListenerState {
            fd: self.fd(&**listener),
            inherited: listener.is_inherited(),
            given: listener.is_given(),
            file: listener.file().map(Into::into),
        });
        let listeners = listeners.collect();
        let activity = io.activity.as_deref();
        ServiceState {
            place,
            config: self.config(&io.service),
            listeners,
            output: activity.map(|a| a.output).unwrap_or_default(),
            listened_again: activity.map(|a| a.listened_again).unwrap_or_default(),
        }
    }

    pub(in crate::runtime) fn child(&mut self, child: &ChildIo) -> ChildState {
        let (channel, pool) = match &child.channel {
            None => (None, None),
            Some(ChildChannel::Status(channel)) => (Some(self.channel(channel)), None),
            Some(ChildChannel::Pool { backchannel, .. }) => {
                let (channel, read, waiting) = backchannel.unfinished();
                let pool = (read.to_vec(), waiting.to_vec());
                (Some(self.channel(channel)), Some(pool))
            }
        };
        ChildState {
            pid: child.process.pid(),
            place: child.service.index(),
            pidfd: self.fd(&child.process),
            channel,
            pool,
            output: child.output.as_ref().map(|output| output.save(self)),
        }
    }
}

impl Runtime {
    /// The master's state.
    pub(super) fn save(&self, now: Time) -> State {
        let mut saving = Saving::default();
        let flow = [protocol::FLOW_READ, protocol::FLOW_WRITE];
        saving.fds.extend(flow);
        saving.fds.extend(&self.setup.locks);
        let in_force = self.config.services.iter();
        let in_force = in_force.map(|service| saving.config(service)).collect();
        let table = self.table.snapshot(|config| saving.config(config));
        let services = self.services.iter();
        let services = services.map(|(id, io)| saving.service(id.index(), io));
        let services = services.collect();
        let children = self.children.sorted().into_iter();
        let children = children.filter(|child| !self.is_template(child.process.pid()));
        let children = children.map(|child| saving.child(child)).collect();
        let templates = self.save_templates(&mut saving);
        let wakeups = self.wakeups.save(&mut saving);
        let inherited = self.inherited.iter();
        let inherited = inherited.map(|l| saving.fd(l.descriptor())).collect();
        let (lost, reason) = self.log.lost().unwrap_or_default();
        let admin = self.admin.save(&mut saving, &self.upgrader.waiting);
        let mut history = self.reloader.history.clone();
        history.reload = self.reloader.is_under_way();
        saving.fds.sort_unstable();
        saving.fds.dedup();
        State {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            began: now,
            process: Process {
                program: self.setup.program.clone(),
                exit_at: self.setup.exit_at,
                limit: self.spawner.limit(),
                locks: self.setup.locks.clone(),
                inherited,
                unfinished: self.spawner.unfinished(),
            },
            location: self.setup.location.clone(),
            parameters: self.config.parameters.clone(),
            in_force,
            table,
            services,
            children,
            groups: self.groups.clone(),
            templates,
            wakeups,
            admin,
            history,
            log: LogState {
                terminal: self.log.settings().terminal,
                lost,
                reason: reason.to_owned(),
            },
            descriptors: saving.fds,
            configs: saving.configs,
        }
    }
}
