//! Goes on from the state of a former program.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::mem;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use anyhow::Context;
use nix::sys::socket::UnixCredentials;

use crate::config::{Config, Service};
use crate::log::Log;
use crate::policy::{Event, ExitStatus, Pid, Progress, ServiceId, Table, Time};
use crate::runtime::children::{ChildChannel, ChildIo};
use crate::runtime::output::Output;
use crate::runtime::services::{Activity, ServiceIo};
use crate::runtime::settings::{as_strings, environment};
use crate::runtime::{Runtime, Setup, wakeups};
use crate::sys::backchannel::Backchannel;
use crate::sys::channel::Channel;
use crate::sys::child::ChildProcess;
use crate::sys::inherited::InheritedListener;
use crate::sys::listen::Listener;
use crate::sys::poll::Interest;
use crate::sys::spawn::Spawner;
use crate::upgrade::{
    AdminState, ChannelState, ChildState, OperatorState, OutputState, ServiceState, State,
    WakeupState,
};

/// The descriptors that a former program has handed over. What is not taken is closed in the end.
#[derive(Debug)]
pub struct Received(BTreeMap<RawFd, OwnedFd>);

impl Received {
    pub fn new(descriptors: BTreeMap<RawFd, OwnedFd>) -> Self {
        Self(descriptors)
    }

    /// Takes a descriptor by its number.
    ///
    /// # Errors
    /// It was not handed over, or is taken.
    pub fn take(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        let missing = || io::Error::other(format!("descriptor {fd} was not handed over"));
        self.0.remove(&fd).ok_or_else(missing)
    }

    pub(in crate::runtime) fn channel(&mut self, state: ChannelState) -> io::Result<Channel> {
        Ok(Channel::resume(self.take(state.fd)?, state.refuses))
    }

    fn output(&mut self, state: OutputState, configs: &[Arc<Service>]) -> io::Result<Output> {
        let channel = self.channel(state.channel)?;
        let service = configs.get(state.config).ok_or(io::ErrorKind::NotFound)?;
        Ok(Output::resume(channel, service.clone(), state))
    }

    /// A child; or that its process cannot be reached any more.
    pub(in crate::runtime) fn child(
        &mut self,
        state: ChildState,
        configs: &[Arc<Service>],
    ) -> io::Result<ChildIo> {
        let process = match self.take(state.pidfd) {
            Ok(pidfd) => ChildProcess::new(state.pid, pidfd),
            Err(_) => ChildProcess::open(state.pid)?,
        };
        // The caller finds what is missing. A child without a channel reads end of file, and leaves.
        let channel = state.channel.map(|channel| self.channel(channel));
        let channel = channel.and_then(Result::ok);
        let output = state.output.map(|output| self.output(output, configs));
        Ok(ChildIo {
            service: ServiceId::from_index(state.place),
            process,
            channel: channel.map(|channel| match state.pool {
                None => ChildChannel::Status(channel),
                Some((read, waiting)) => ChildChannel::Pool {
                    backchannel: Box::new(Backchannel::resume(channel, &read, &waiting)),
                    interest: Interest::Readable,
                },
            }),
            slow_reads: None,
            output: output.and_then(Result::ok),
        })
    }
}

/// What was carried over.
#[derive(Debug)]
pub struct Resumed {
    version: String,
    began: Time,
    children: usize,
    lost: usize,
}

impl Runtime {
    /// A master that goes on from a state, which was checked; `table` is what the check has found.
    ///
    /// # Errors
    /// What is missing without which nothing can be served.
    pub fn resume(
        setup: Setup,
        state: State,
        table: Table,
        spawner: Spawner,
        mut received: Received,
        log: Log,
    ) -> anyhow::Result<(Self, Resumed)> {
        let in_force = state.in_force.iter();
        let config = Config {
            services: in_force.map(|n| state.configs[*n].clone()).collect(),
            parameters: state.parameters,
            warnings: Vec::new(),
        };
        let mut runtime = Self::assemble(setup, config, spawner, table, log)?;
        let now = runtime.now();
        let variables = environment(&runtime.config.parameters, &runtime.setup.inherited);
        runtime.environment = as_strings(variables).into();
        runtime.groups = state.groups;
        runtime.reloader.history = state.history;
        runtime.reloader.requested = mem::take(&mut runtime.reloader.history.reload);
        for fd in state.process.inherited {
            let listener = InheritedListener::new(received.take(fd)?);
            runtime
                .inherited
                .push(listener.context("a listener of the service manager")?);
        }
        let mut listeners = HashMap::new();
        for service in state.services {
            runtime.resume_service(service, &state.configs, &mut received, &mut listeners)?;
        }
        let children = state.children.len();
        let (mut lost, mut channels, mut outputs) = (0, Vec::new(), 0);
        for child in state.children {
            let (pid, had) = (child.pid, (child.channel.is_some(), child.output.is_some()));
            match received.child(child, &state.configs) {
                Ok(child) => {
                    channels.extend((had.0 && child.channel.is_none()).then_some(pid));
                    outputs += usize::from(had.1 && child.output.is_none());
                    runtime.resume_child(now, child);
                }
                Err(_) => {
                    lost += 1;
                    runtime.forget_child(now, pid);
                }
            }
        }
        let (configs, received) = (&state.configs, &mut received);
        lost += runtime.resume_templates(now, state.templates, configs, &listeners, received);
        if runtime.reloader.requested {
            // It begins anew, and needs others.
            runtime.cancel_templates(now);
        }
        runtime.resume_wakeups(state.wakeups, configs, received);
        runtime.resume_admin(now, state.admin, received);
        runtime.watch_resumed(now);
        runtime.report_lost(now, &channels, outputs);
        let resumed = Resumed {
            version: state.version,
            began: state.began,
            children,
            lost,
        };
        Ok((runtime, resumed))
    }

    fn resume_service(
        &mut self,
        state: ServiceState,
        configs: &[Arc<Service>],
        received: &mut Received,
        known: &mut HashMap<RawFd, Arc<Listener>>,
    ) -> io::Result<()> {
        let service = configs.get(state.config).ok_or(io::ErrorKind::NotFound)?;
        let mut io = ServiceIo::new(service.clone());
        for listener in state.listeners {
            let fd = listener.fd;
            // Services can share one.
            let known = match known.entry(fd) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let (inherited, given) = (listener.inherited, listener.given);
                    let (fd, file) = (received.take(fd)?, listener.file.map(Into::into));
                    let listener = Listener::resume(fd, inherited, given, file);
                    place.insert(Arc::new(listener))
                }
            };
            io.listeners.push(known.clone());
        }
        let activity = Activity {
            output: state.output,
            listened_again: state.listened_again,
            ..Activity::default()
        };
        io.activity = Some(Box::new(activity));
        let places = &mut self.services.places;
        if places.len() <= state.place {
            places.resize_with(state.place + 1, || None);
        }
        places[state.place] = Some(io);
        Ok(())
    }

    fn resume_child(&mut self, now: Time, child: ChildIo) {
        let (id, pid) = (child.service, child.process.pid());
        let is_heard = child.channel.is_some();
        self.children.insert(child);
        self.watch_child(now, id, pid);
        if is_heard {
            self.write_orders(pid);
        }
    }

    /// The process of a child cannot be reached: it counts as ended.
    fn forget_child(&mut self, now: Time, pid: Pid) {
        let (status, progress) = (ExitStatus::Code(0), Progress::Unknown);
        self.step(
            now,
            Event::Exited {
                pid,
                status,
                progress,
            },
        );
    }

    /// Says what children have lost, and has the policy count on none that cannot be heard.
    fn report_lost(&mut self, now: Time, channels: &[Pid], outputs: usize) {
        self.table
            .channels_lost(now, channels, &mut self.turn.actions);
        self.queue.extend(self.turn.actions.drain(..));
        if !channels.is_empty() {
            self.log.warning(format!(
                "children that have lost their channel in an upgrade, and leave: {}",
                channels.len()
            ));
        }
        if outputs > 0 {
            self.log.warning(format!(
                "children that have lost their output in an upgrade: {outputs}"
            ));
        }
    }

    fn resume_wakeups(
        &mut self,
        states: Vec<WakeupState>,
        configs: &[Arc<Service>],
        received: &mut Received,
    ) {
        for state in states {
            let service = &configs[state.config];
            let fd = received.take(state.fd);
            let resumed = fd.and_then(|fd| self.wakeups.resume(&state, fd, service, &self.poll));
            if let Err(error) = resumed {
                wakeups::failed(service, &error, &mut self.log);
            }
        }
    }

    fn resume_admin(&mut self, now: Time, state: AdminState, received: &mut Received) {
        for &OperatorState {
            connection,
            uid,
            pid,
        } in &state.waiting
        {
            if let Ok(channel) = received.channel(connection) {
                let gid = 0;
                let peer = UnixCredentials::from(libc::ucred { pid, uid, gid });
                self.upgrader.waiting.push((channel, peer));
            }
        }
        if let Err(error) = self.admin.resume(now, state, received, &self.poll) {
            self.log.warning(format!(
                "status and control sockets were not all carried over: {error}"
            ));
        }
    }

    /// Has the poller report what the policy wants to know.
    fn watch_resumed(&mut self, now: Time) {
        let listening = self.table.services().filter(|(_, s)| s.listening());
        for id in listening.map(|(id, _)| id).collect::<Vec<_>>() {
            self.watch(now, id);
        }
        self.services.watch_hangups(&self.poll);
        // Ends of processes that are no children may have been reported to the former program.
        self.exits.orphans = true;
    }

    /// Has the watchdog watch, before the first turn.
    ///
    /// # Errors
    /// The system's.
    pub fn start_watchdog(&mut self) -> anyhow::Result<()> {
        let now = self.now();
        self.lifecycle.tick(now, &self.log)
    }

    /// Says in the log and to the service manager that the next version serves.
    pub fn announce_upgrade(&mut self, resumed: Resumed) {
        let now = self.now();
        let Resumed {
            version,
            began,
            children,
            lost,
        } = resumed;
        self.find_postlogd();
        let took = now.saturating_sub(began).as_millis();
        let children = match children {
            1 => "1 child".to_owned(),
            n => format!("{n} children"),
        };
        self.log.info(format!(
            "upgraded from {version} to {}: {}, {children}, {lost} lost, took {took} ms",
            env!("CARGO_PKG_VERSION"),
            self.state(),
        ));
        self.reloader.history.upgraded(now, version);
        let state = self.state();
        self.lifecycle.supervisor.ready(&state);
        self.answer_upgraded(now);
    }
}
