//! Sets the running master up: what it was started with, its listeners, and its parts.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::mem;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Context;

use super::Runtime;
use super::faults::Faults;
use super::lifecycle::Lifecycle;
use super::reload::is_for;
use super::services::Services;
use super::settings::Inherited;
use super::token::Token;
use crate::config::{Config, RunOptions};
use crate::errors::describe_error;
use crate::files::Location;
use crate::log::Log;
use crate::policy::{Action, Table, Time};
use crate::sys::clock;
use crate::sys::inherited::InheritedListener;
use crate::sys::poll::{Interest, Poll};
use crate::sys::process;
use crate::sys::spawn::Spawner;
use crate::sys::supervisor::Supervisor;

/// Where the loop has its time from; tests turn theirs.
pub trait Clock: std::fmt::Debug {
    /// Time since some origin, never less than before.
    fn now(&self) -> Time;
}

/// The machine's own clock.
#[derive(Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        clock::monotonic()
    }
}

/// What the master was started with; a reload does not change it.
#[derive(Debug)]
pub struct Setup {
    pub location: Location,
    pub run: RunOptions,
    /// The program that starts the children of services with a sandbox.
    pub executor: PathBuf,
    /// The path by which the first program was executed.
    pub program: Option<PathBuf>,
    /// The lock files, which are open as long as the process lives.
    pub locks: Vec<RawFd>,
    /// When to end by itself.
    pub exit_at: Option<Time>,
    pub clock: Rc<dyn Clock>,
    pub inherited: Inherited,
    /// The [`Lifecycle`] takes it.
    pub supervisor: Supervisor,
}

impl Runtime {
    /// Opens the listeners of a configuration and takes up its services. The queue directory is the
    /// working directory by now, and locked.
    ///
    /// # Errors
    /// All listeners that could not be opened, or what else the system refused.
    pub fn new(
        setup: Setup,
        config: Config,
        spawner: Spawner,
        handed_over: Vec<OwnedFd>,
        log: Log,
    ) -> anyhow::Result<Self> {
        let flow = spawner.make_flow_pipe();
        flow.context("cannot make the flow pipe")?;
        let table = Table::new(config.parameters.service_kill_time, setup.run.verbose);
        let mut runtime = Self::assemble(setup, config.clone(), spawner, table, log)?;
        runtime.table.seed(RandomState::new().hash_one(()));
        for fd in handed_over {
            runtime.inherit(fd);
        }
        runtime.commit(config)?;
        runtime.warn_of_unused_listeners();
        let now = runtime.now();
        runtime.watch_all(now);
        let owner = runtime.config.parameters.mail_owner.1;
        runtime.admin.open(owner, &runtime.poll, &mut runtime.log);
        process::trim_memory();
        Ok(runtime)
    }

    /// The parts, of which none has anything yet.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn assemble(
        mut setup: Setup,
        config: Config,
        mut spawner: Spawner,
        table: Table,
        log: Log,
    ) -> anyhow::Result<Self> {
        let lifecycle = Lifecycle::new(mem::take(&mut setup.supervisor), setup.exit_at)?;
        spawner.apart = setup.run.attached;
        let poll = Poll::new().context("cannot make a poller")?;
        poll.add(&lifecycle.signals, Token::Signals.key(), Interest::Readable)?;
        let services = Services::new(&poll).context("cannot make a poller")?;
        Ok(Self {
            table,
            queue: Default::default(),
            poll,
            log,
            services,
            children: Default::default(),
            groups: Default::default(),
            inherited: Default::default(),
            spawner,
            environment: Default::default(),
            exits: Default::default(),
            batches: Default::default(),
            outputs: Default::default(),
            templates: Default::default(),
            look_at: None,
            wakeups: Default::default(),
            admin: Default::default(),
            reloader: Default::default(),
            upgrader: Default::default(),
            lifecycle,
            turn: Default::default(),
            unmeasured: Default::default(),
            faults: Faults::new(&setup.inherited),
            setup,
            config,
        })
    }

    fn inherit(&mut self, fd: OwnedFd) {
        match InheritedListener::new(fd) {
            Ok(listener) => self.inherited.push(listener),
            Err(error) => {
                let reason = describe_error(&error);
                self.log.warning(format!(
                    "ignoring a descriptor that the service manager handed over: {reason}"
                ));
            }
        }
    }

    fn warn_of_unused_listeners(&mut self) {
        for listener in &self.inherited {
            let services = self.config.services.iter();
            let mut addresses = services.flat_map(|s| s.listen_addresses());
            if !addresses.any(|address| is_for(listener, address)) {
                let address = listener.address();
                self.log.warning(format!(
                    "no service listens on {address}, which the service manager handed over"
                ));
            }
        }
    }

    /// The log, for what is to be said about the start.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Says in the log and to the supervisor that all is up.
    pub fn announce(&mut self) {
        let (version, configuration) = (env!("CARGO_PKG_VERSION"), self.setup.location.path());
        self.log.set_postlogd_available(true);
        self.log.info(format!(
            "daemon started -- version {version}, configuration {}",
            configuration.display()
        ));
        self.lifecycle.supervisor.ready(&self.state());
    }

    /// What there is to serve, in a few words.
    pub(super) fn state(&self) -> String {
        match self.config.services.len() {
            1 => "1 service".to_owned(),
            n => format!("{n} services"),
        }
    }

    /// Carries out all that the first configuration asks for, but for the starts of children,
    /// which later turns make, between the clients.
    fn watch_all(&mut self, now: Time) {
        self.settle(now);
        for action in mem::take(&mut self.queue) {
            match action {
                Action::Spawn { .. } => self.queue.push_back(action),
                other => self.carry_out(now, other),
            }
        }
        self.services.watch_hangups(&self.poll);
    }
}
