//! The event loop: turns descriptors and signals into [`Event`]s for the policy and carries out
//! its [`Action`]s. It does not know why an action was chosen.
//!
//! One turn: wait; take the signals; reap the dead; read every status report that is there, and
//! what ordered children say, also of those that are dead; only then tell the policy of the dead;
//! then let deadlines pass and hand connections on; then see to visitors; then reload if asked; then
//! reconcile interest in listeners, once for each service that the turn touched; then signal children
//! and close what they had. The policy hears reports before ends, because a child that reported and
//! exited must count as used; connections come after both, because a child that has just become
//! available takes them itself; who looks on or steers comes after all who serve; and a reload comes
//! after all events, because it changes what the turn's descriptors mean.

mod channels;
mod chores;
mod document;
mod farewell;
mod faults;
mod load;
mod opening;
mod operators;
mod outputs;
mod ports;
mod readers;
mod reaping;
mod reload;
mod reports;
mod starting;
mod triggers;
mod visitors;

use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::Context;

use crate::config::{Config, RunOptions};
use crate::errors::describe_error;
use crate::files::Location;
use crate::log::{About, Log, Severity};
use crate::policy::{Action, Event, Pid, Record, ServiceId, Table, Time};
use crate::sys::channel::StatusChannel;
use crate::sys::clock;
use crate::sys::handed::Handed;
use crate::sys::poll::{Interest, Poll};
use crate::sys::process::{self, Dead};
use crate::sys::signal::{self, Notice, Signals};
use crate::sys::spawn::{Environment, Spawner};
use crate::sys::supervisor::Supervisor;

use channels::Channels;
use chores::{Chore, Chores};
use document::History;
use faults::Faults;
pub use load::{Inherited, environment, log_error, log_settings};
use operators::Operators;
use outputs::Outputs;
use ports::{Ports, about};
use readers::Readers;
use reaping::Reaper;
use reload::Waiting;
use reports::Reports;
use triggers::Triggers;

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

/// The master ends itself when a turn takes longer (Postfix, `MASTER_WATCHDOG_TIME`).
const WATCHDOG: Duration = Duration::from_secs(1000);
/// Rearming the watchdog is a system call, which not every turn is worth.
const WATCHDOG_REARM: Duration = Duration::from_secs(100);
/// The loop turns at least this often, to appease the watchdog.
const TURN_MAX: Duration = Duration::from_secs(500);
/// So long the answers of an ordered pool's children wait, where whoever comes next has them read.
/// For less, the kernel would have to set the processor's timer anew with every client.
const ANSWERS_WAIT: Duration = Duration::from_millis(10);
/// Room for this many actions is kept from turn to turn.
const ACTIONS_KEPT: usize = 64;
/// When a turn takes longer, more children are started in the next one.
const SETTLE_MAX: Duration = Duration::from_millis(10);
/// How long the end may take (Postfix, `master_sig.c`).
const END_TIME: u32 = 5;

/// What the master was started with; a reload does not change it.
#[derive(Debug)]
pub struct Setup {
    pub location: Location,
    pub run: RunOptions,
    /// When to end by itself.
    pub exit_at: Option<Time>,
    pub clock: Box<dyn Clock>,
    pub inherited: Inherited,
    pub supervisor: Supervisor,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The time of `-e` has come.
    ExitTime,
    /// A signal said so.
    Signal(i32),
}

/// The running master.
#[derive(Debug)]
pub struct Runtime {
    setup: Setup,
    config: Config,
    table: Table,
    ports: Ports,
    poll: Poll,
    signals: Signals,
    spawner: Spawner,
    environment: Environment,
    triggers: Triggers,
    readers: Readers,
    operators: Operators,
    history: History,
    /// A service manager's listeners that no service has taken.
    handed: Vec<Handed>,
    reaper: Reaper,
    reports: Reports,
    channels: Channels,
    chores: Chores,
    outputs: Outputs,
    log: Log,
    watchdog_at: Option<Time>,
    /// When the supervisor was last told that all is well.
    told_at: Time,
    ending: Option<Ending>,
    /// A reload that has begun.
    reloading: Option<Waiting>,
    /// Events taken in one turn.
    turn: Turn,
    actions: Vec<Action>,
    spare: Vec<Action>,
}

/// What one turn has found; kept for its memory.
#[derive(Debug, Default)]
struct Turn {
    keys: Vec<usize>,
    connections: Vec<ServiceId>,
    reported: Vec<ServiceId>,
    /// Children of ordered pools who say something.
    heard: Vec<Pid>,
    /// Children who print something.
    printing: Vec<Pid>,
    said: Vec<Event>,
    /// A child of an ordered pool was told to accept.
    ordered: bool,
    /// Somebody comes to the master itself, or is there and has something to do.
    visits: Vec<Ready>,
    dead: Vec<Dead>,
    signalled: bool,
    reload: bool,
    /// Host names that a reload waits for have been looked up.
    answered: bool,
    /// The policy has not said yet all that it has to say.
    unsettled: bool,
}

/// What a poller's key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Signals,
    Listener(ServiceId),
    /// Children of the service have reported something.
    Reports(ServiceId),
    Trigger(usize),
    Channel(Pid),
    Output(Pid),
    /// Somebody wants to read the status document; one who does.
    StatusDoor,
    Reader(usize),
    /// Somebody wants to steer; one who does.
    ControlDoor,
    Operator(usize),
    /// Host names that a reload waits for have been looked up.
    Names,
}

impl Ready {
    /// Bits of a key that tell the kind.
    const KIND: u32 = 4;

    fn key(self) -> usize {
        let (kind, index) = match self {
            Self::Signals => (0, 0),
            Self::Listener(id) => (1, id.index()),
            Self::Reports(id) => (2, id.index()),
            Self::Trigger(index) => (3, index),
            Self::Channel(pid) => (4, pid as usize),
            Self::Output(pid) => (9, pid as usize),
            Self::StatusDoor => (5, 0),
            Self::Reader(index) => (6, index),
            Self::ControlDoor => (7, 0),
            Self::Operator(index) => (8, index),
            Self::Names => (10, 0),
        };
        (index << Self::KIND) | kind
    }

    fn from_key(key: usize) -> Self {
        let index = key >> Self::KIND;
        match key & ((1 << Self::KIND) - 1) {
            1 => Self::Listener(ServiceId::from_index(index)),
            2 => Self::Reports(ServiceId::from_index(index)),
            3 => Self::Trigger(index),
            4 => Self::Channel(index as Pid),
            9 => Self::Output(index as Pid),
            5 => Self::StatusDoor,
            6 => Self::Reader(index),
            7 => Self::ControlDoor,
            8 => Self::Operator(index),
            10 => Self::Names,
            _ => Self::Signals,
        }
    }
}

impl Runtime {
    /// Opens the listeners of a configuration and takes up its services. Postfix's queue directory
    /// is the working directory by now, and locked.
    ///
    /// # Errors
    /// All listeners that could not be opened, or what else the system refused.
    pub fn new(
        setup: Setup,
        config: Config,
        mut spawner: Spawner,
        handed: Vec<OwnedFd>,
        log: Log,
    ) -> anyhow::Result<Self> {
        let signals = Signals::open().context("cannot take signals")?;
        let poll = Poll::new().context("cannot make a poller")?;
        let (read, write) = process::flow_pipe().context("cannot make the flow pipe")?;
        spawner.set_flow_pipe(read, write)?;
        poll.add(signals.as_fd(), Ready::Signals.key(), Interest::Readable)?;
        let mut runtime = Self {
            table: Table::new(config.parameters.service_kill_time, setup.run.verbose),
            reaper: Reaper::default(),
            reports: Reports::default(),
            channels: Channels::new(Faults::new(&setup.inherited)),
            chores: Chores::default(),
            outputs: Outputs::default(),
            environment: Environment::new(Vec::new()),
            setup,
            ports: Ports::default(),
            poll,
            signals,
            spawner,
            triggers: Triggers::default(),
            readers: Readers::default(),
            operators: Operators::default(),
            history: History::default(),
            handed: Vec::new(),
            log,
            watchdog_at: None,
            told_at: Time::ZERO,
            ending: None,
            reloading: None,
            turn: Turn::default(),
            actions: Vec::new(),
            spare: Vec::new(),
            config: config.clone(),
        };
        for fd in handed {
            runtime.take_over(fd);
        }
        let prepared = runtime.prepare(config)?;
        let now = runtime.setup.clock.now();
        runtime.commit(now, prepared);
        for handed in &runtime.handed {
            let address = handed.address();
            runtime.log.warning(format!(
                "no service listens on {address}, which the service manager handed over"
            ));
        }
        runtime.settle(now);
        runtime.open_doors();
        process::trim_memory();
        Ok(runtime)
    }

    fn take_over(&mut self, fd: OwnedFd) {
        match Handed::new(fd) {
            Ok(handed) => self.handed.push(handed),
            Err(error) => {
                let reason = describe_error(&error);
                self.log.warning(format!(
                    "ignoring a descriptor that the service manager handed over: {reason}"
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
        self.setup.supervisor.ready(&self.state());
    }

    /// What there is to serve, in a few words.
    fn state(&self) -> String {
        match self.config.services.len() {
            1 => "1 service".to_owned(),
            n => format!("{n} services"),
        }
    }

    /// Serves until told to end.
    ///
    /// # Errors
    /// The poller's or the signals', without which nothing can be served.
    pub fn run(&mut self) -> anyhow::Result<Ending> {
        loop {
            self.turn()?;
            if let Some(ending) = self.ending {
                return Ok(ending);
            }
        }
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let before = self.setup.clock.now();
        self.pet_watchdog(before)?;
        self.tell_supervisor(before);
        let timeout = self.next_deadline(before).saturating_sub(before);
        self.poll
            .wait(timeout, &mut self.turn.keys)
            .context("cannot wait for events")?;
        let mut now = self.setup.clock.now();
        self.sort_ready(now);
        self.read_signals(now)?;
        if self.ending.is_some() {
            return Ok(());
        }
        self.reap(now);
        self.read_outputs(now);
        self.read_reports(now);
        self.read_channels(now);
        self.bury_dead(now);
        self.pass_deadlines(now);
        self.hand_on_connections(now);
        self.receive_visitors(now);
        if self.see_to_reload(now) {
            // That may have taken its time.
            now = self.setup.clock.now();
        }
        self.settle(now);
        self.watch_on(now);
        self.do_chores();
        Ok(())
    }

    fn pet_watchdog(&mut self, now: Time) -> anyhow::Result<()> {
        let fresh = |at: Time| now.saturating_sub(at) < WATCHDOG_REARM;
        if self.watchdog_at.is_some_and(fresh) {
            return Ok(());
        }
        self.watchdog_at = Some(now);
        let seconds = (WATCHDOG + WATCHDOG_REARM).as_secs() as u32;
        signal::watchdog(seconds, self.log.emergency_fd()).context("cannot set the watchdog")
    }

    /// Says that all is well twice in the time that the supervisor bears silence.
    fn tell_supervisor(&mut self, now: Time) {
        if self.telling_at().is_some_and(|at| at <= now) {
            self.told_at = now;
            self.setup.supervisor.alive();
        }
    }

    fn telling_at(&self) -> Option<Time> {
        let interval = self.setup.supervisor.watchdog()? / 2;
        Some(self.told_at + interval)
    }

    fn next_deadline(&mut self, now: Time) -> Time {
        let turn = &self.turn;
        if turn.unsettled || turn.reload || !self.chores.are_done() {
            return now;
        }
        let deadlines = [
            self.table.next_deadline(),
            self.triggers.next_deadline(),
            self.outputs.next_deadline(),
            self.readers.next_deadline(),
            self.operators.visitors.next_deadline(),
            self.telling_at(),
            self.setup.exit_at,
            self.reloading.as_ref().map(Waiting::next_deadline),
            self.reaper.next_deadline(),
            self.reports.deferred_until(),
            self.channels.deferred_until(),
            Some(now + TURN_MAX),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(now)
    }

    /// Sorts the poller's findings by what is to be done with them.
    fn sort_ready(&mut self, now: Time) {
        let turn = &mut self.turn;
        // With so many descriptors ready that some had to wait, the signals may be among those.
        turn.signalled = turn.keys.len() >= Poll::TURN.get();
        turn.connections.clear();
        turn.reported.clear();
        turn.heard.clear();
        turn.printing.clear();
        turn.visits.clear();
        for &key in &turn.keys {
            match Ready::from_key(key) {
                Ready::Signals => turn.signalled = true,
                Ready::Listener(id) => turn.connections.push(id),
                Ready::Reports(id) => {
                    if !self.reports.defer(now, id, &self.table, &self.poll) {
                        turn.reported.push(id);
                    }
                }
                Ready::Channel(pid) => turn.heard.push(pid),
                Ready::Output(pid) => turn.printing.push(pid),
                Ready::Names => turn.answered = true,
                visit @ (Ready::StatusDoor
                | Ready::Reader(_)
                | Ready::ControlDoor
                | Ready::Operator(_)) => turn.visits.push(visit),
                Ready::Trigger(at) => {
                    if let Err(failed) = self.triggers.ready(at, &self.poll) {
                        failed.log(&mut self.log);
                    }
                }
            }
        }
    }

    fn read_signals(&mut self, now: Time) -> anyhow::Result<()> {
        if !mem::take(&mut self.turn.signalled) {
            return Ok(());
        }
        for notice in self.signals.take().context("cannot read signals")? {
            match notice {
                Notice::Reload => self.turn.reload = true,
                Notice::Stop(signal) => {
                    self.step(now, Event::Stop { signal });
                    // The signal that went to the whole group waits for us too.
                    return Ok(());
                }
                Notice::Child(pid) => self.reaper.hear(now, pid, self.table.living()),
            }
        }
        Ok(())
    }

    /// Logs what children print; of the dead, before the policy says how they ended.
    fn read_outputs(&mut self, now: Time) {
        self.outputs.wake(now, &self.poll);
        for pid in self.turn.printing.drain(..) {
            self.outputs.ready(now, pid, &self.poll, &mut self.log);
        }
        for Dead { pid, .. } in &self.turn.dead {
            self.outputs.finish(now, *pid, &self.poll, &mut self.log);
        }
    }

    fn pass_deadlines(&mut self, now: Time) {
        if self.table.next_deadline().is_some_and(|at| at <= now) {
            self.step(now, Event::Deadline);
        }
        self.pass_visitors(now);
        for failed in self.triggers.expire(now, &self.poll) {
            failed.log(&mut self.log);
        }
        if self.setup.exit_at.is_some_and(|at| at <= now) {
            self.ending.get_or_insert(Ending::ExitTime);
        }
    }

    fn hand_on_connections(&mut self, now: Time) {
        let connections = mem::take(&mut self.turn.connections);
        for &service in &connections {
            self.ports.connection_reported(service);
            let event = match self.ports.is_ordered(service) {
                true => Event::Connections {
                    service,
                    count: self.ports.waiting(service),
                },
                false => Event::Connection { service },
            };
            self.turn.ordered = false;
            self.step(now, event);
            if self.ports.is_ordered(service) && !self.turn.ordered {
                self.let_wait(now, service);
            }
        }
        self.turn.connections = connections;
    }

    /// Opens the sockets at which the master is looked at and steered. It serves without them.
    fn open_doors(&mut self) {
        let owner = self.config.parameters.mail_owner.1;
        for opened in [
            self.readers.open(owner, &self.poll),
            self.operators.open(&self.poll),
        ] {
            if let Err(error) = opened {
                self.log.warning(format!("{error:#}"));
            }
        }
    }

    /// Those who look on, and those who steer.
    fn receive_visitors(&mut self, now: Time) {
        let visits = mem::take(&mut self.turn.visits);
        for visit in &visits {
            match *visit {
                Ready::StatusDoor => self.show_status(now),
                Ready::Reader(at) => self.readers.ready(at, &self.poll),
                Ready::ControlDoor => self.let_operators_in(now),
                Ready::Operator(at) => self.hear_operator(now, at),
                _ => {}
            }
        }
        self.turn.visits = visits;
    }

    fn pass_visitors(&mut self, now: Time) {
        for passed in [
            self.readers.pass(now, &self.poll),
            self.operators.visitors.pass(now, &self.poll),
        ] {
            if let Err(error) = passed {
                self.operators.complain(now, &mut self.log, &error);
            }
        }
    }

    /// Has the poller report connections again where the policy did not take what it reported for a
    /// reason to look away.
    fn watch_on(&mut self, now: Time) {
        let connections = mem::take(&mut self.turn.connections);
        for &id in &connections {
            if self.ports.is_watched(id) {
                self.watch(now, id);
            }
        }
        self.turn.connections = connections;
        self.settle(now);
    }

    /// Has the policy decide, and does what it decides. Clients wait meanwhile, so a pool that is
    /// filled on a busy machine is filled in several turns.
    fn settle(&mut self, now: Time) {
        self.turn.unsettled = false;
        while !self.turn.unsettled {
            self.table.settle(now, &mut self.actions);
            if self.actions.is_empty() {
                return;
            }
            // What comes of these (a child that is started) may ask for another look.
            self.carry_out(now);
            let passed = self.setup.clock.now().saturating_sub(now);
            self.turn.unsettled = passed > SETTLE_MAX;
        }
    }

    fn step(&mut self, now: Time, event: Event) {
        self.table.step(now, event, &mut self.actions);
        self.carry_out(now);
    }

    fn carry_out(&mut self, now: Time) {
        while !self.actions.is_empty() {
            let spare = mem::take(&mut self.spare);
            let mut batch = mem::replace(&mut self.actions, spare);
            for action in batch.drain(..) {
                self.act(now, action);
            }
            // A reload has thousands, a turn has few.
            batch.shrink_to(ACTIONS_KEPT);
            self.spare = batch;
        }
    }

    fn act(&mut self, now: Time, action: Action) {
        match action {
            Action::Watch(id) => self.watch(now, id),
            Action::Unwatch(id) => self.ports.unwatch(id, &self.poll),
            Action::Spawn {
                service,
                generation,
                stress,
            } => self.spawn(now, service, generation, stress),
            Action::Signal { pid, signal } => self.chores.add(Chore::Signal(pid, signal)),
            Action::Order { pid, order } => self.order(now, pid, order),
            Action::HangUp { pid } => self.channels.remove(pid, &self.poll),
            Action::Dismiss(id) => self.dismiss(id),
            Action::Wake(id) => self.wake(now, id),
            Action::Close(id) => self.close(id),
            Action::Terminate { signal } => self.terminate(signal),
            Action::Log(record) => self.write(&record),
        }
    }

    /// Closes all that a service has, whose children were signalled.
    fn close(&mut self, id: ServiceId) {
        self.chores.add(Chore::CloseListeners(id));
        self.part_with(id, Chore::Close);
    }

    /// Tells a service's children to leave: none of them is to take a client who comes now.
    fn dismiss(&mut self, id: ServiceId) {
        self.part_with(id, |channel| Chore::CloseRest(channel.hang_up()));
    }

    /// Has the channels of a service's children closed, whom nobody hears any more.
    fn part_with(&mut self, id: ServiceId, close: impl Fn(StatusChannel) -> Chore) {
        for &pid in self.table.pids_of(id) {
            if let Some(channel) = self.reports.take(pid) {
                self.chores.add(close(channel));
            }
        }
        self.reports.forget(id, &self.poll);
    }

    fn watch(&mut self, now: Time, service: ServiceId) {
        let spare = spare(&self.table, service) > 0;
        if let Err(error) = self.ports.watch(service, spare, &self.poll) {
            let reason = describe_error(&error);
            let event = Event::WatchFailed { service, reason };
            self.table.step(now, event, &mut self.actions);
        }
    }

    fn write(&mut self, record: &Record) {
        if matches!(record, Record::Terminating { .. }) {
            // postlogd is about to be ended with us.
            self.log.set_postlogd_available(false);
        }
        let about = About {
            child: record.child(),
            ..record.service().map(about).unwrap_or_default()
        };
        match record {
            record if record.is_detail() => self.log.detail(about, record),
            record if record.is_warning() => {
                self.log.write_about(Severity::Warning, about, record);
            }
            record => self.log.write_about(Severity::Info, about, record),
        }
    }

    fn wake(&mut self, now: Time, id: ServiceId) {
        let Some(service) = self.ports.service(id) else {
            return;
        };
        let owner = self.config.parameters.mail_owner.1;
        if let Err(failed) = self.triggers.start(now, service, owner, &self.poll) {
            failed.log(&mut self.log);
        }
    }

    /// Ends the children. The master leads their process group unless it was started otherwise
    /// (`-d`, `-D`, `-i`), when the group may have other members.
    fn terminate(&mut self, number: i32) {
        self.ending.get_or_insert(Ending::Signal(number));
        self.setup.supervisor.stopping();
        self.stop_waiting_for_names();
        let time = u32::try_from(self.farewell_time().as_secs()).unwrap_or(u32::MAX);
        signal::die_within(time.saturating_add(END_TIME));
        self.end_children();
        self.finish_chores();
        self.see_children_off();
    }

    fn end_children(&mut self) {
        if signal::leads_group() {
            if let Err(error) = signal::terminate_group() {
                let reason = describe_error(&error);
                self.log
                    .error(format!("cannot end the process group: {reason}"));
            }
            return;
        }
        for pid in self.table.pids() {
            signal::send(pid, signal::Signal::SIGTERM);
        }
    }
}

/// How many children the service has available besides the one for the next client.
fn spare(table: &Table, id: ServiceId) -> u32 {
    let avail = table.service(id).map_or(0, |service| service.avail());
    avail.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_what_is_ready() {
        let id = ServiceId::from_index(4711);
        for ready in [
            Ready::Signals,
            Ready::Listener(id),
            Ready::Reports(id),
            Ready::Trigger(7),
            Ready::Channel(4_194_304),
            Ready::Output(4_194_304),
            Ready::StatusDoor,
            Ready::Reader(7),
            Ready::ControlDoor,
            Ready::Operator(7),
            Ready::Names,
        ] {
            assert_eq!(Ready::from_key(ready.key()), ready);
        }
    }
}
