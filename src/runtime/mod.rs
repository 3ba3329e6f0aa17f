//! The event loop: turns what the system reports into [`Event`]s for the policy, and carries out
//! its [`Action`]s. It does not know why an action was chosen.
//!
//! One turn, see [`Runtime::turn`]: wait; read what children report, then process the ends of
//! children (a child that has reported and ended counts as used), then deadlines, then clients that
//! wait (a child that has become available takes them itself); have the policy settle, and carry out
//! as many queued actions as a turn may; then the master's own clients; then a reload.

mod admin;
mod children;
mod exits;
mod faults;
mod groups;
mod lifecycle;
mod output;
mod pools;
mod progress;
mod reload;
mod renewal;
mod services;
mod settings;
mod setup;
mod shutdown;
mod spawn;
mod status;
mod template;
mod template_start;
mod templates;
mod token;
mod upgrade;
mod wakeups;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::config::{Config, Endpoint, Kind};
use crate::errors::describe_error;
use crate::groups::Groups;
use crate::log::{About, Log, Severity};
use crate::policy::{self, Action, Errno, Event, Limiter, Pid, Record, ServiceId, Table, Time};
use crate::sys::channel::Found;
use crate::sys::inherited::InheritedListener;
use crate::sys::poll::{Poll, Ready};
use crate::sys::process;
use crate::sys::signal::Signal;
use crate::sys::spawn::{Environment, Spawner};

use admin::Admin;
use children::Children;
use exits::Exits;
pub use lifecycle::Ending;
use lifecycle::Lifecycle;
use output::Outputs;
pub use reload::Names;
use reload::Reloader;
use services::{Services, about};
pub use settings::{Inherited, environment, log_error, log_settings};
pub use setup::{Clock, Setup, SystemClock};
use status::Batches;
use templates::Templates;
use token::Token;
pub use upgrade::Received;
use upgrade::Upgrader;
use wakeups::Wakeups;

/// What the actions of one turn may cost: about two milliseconds, for which clients wait.
const TURN_BUDGET: u32 = 64;
/// No further child is started in a turn that takes longer, as on a busy machine.
const TURN_TIME: Duration = Duration::from_millis(10);
/// What the start of a child costs of [`TURN_BUDGET`]. Other actions cost one.
const SPAWN_COST: u32 = 8;
/// Room in the queue that is kept: a reload queues thousands of actions, a turn a few.
const QUEUE_KEPT: usize = 64;

/// The running master: the policy's table, what it has of the system, and the parts that have
/// subjects of their own.
#[derive(Debug)]
pub struct Runtime {
    setup: Setup,
    config: Config,
    table: Table,
    /// What the policy has asked for, in this order.
    queue: VecDeque<Action>,
    poll: Poll,
    log: Log,
    services: Services,
    children: Children,
    groups: Groups,
    /// Listeners that the service manager has handed over, for as long as the master lives.
    inherited: Vec<InheritedListener>,
    spawner: Spawner,
    environment: Environment,
    exits: Exits,
    batches: Batches,
    outputs: Outputs,
    templates: Templates,
    /// When the master looks for clients that no child takes.
    look_at: Option<Time>,
    wakeups: Wakeups,
    admin: Admin,
    reloader: Reloader,
    upgrader: Upgrader,
    lifecycle: Lifecycle,
    turn: Turn,
    faults: faults::Faults,
    /// Lines that the memory of children cannot be measured.
    unmeasured: Limiter<1, 3600>,
}

/// What one turn has found, by what is to be done with it.
#[derive(Debug, Default)]
struct Turn {
    ready: Vec<Ready>,
    /// Services whose children's reports are to be read.
    reported: Vec<ServiceId>,
    /// The children of one such service that have reported.
    children: Vec<Pid>,
    pool_channels: Vec<Pid>,
    outputs: Vec<Pid>,
    /// Services of which a listener was shut down.
    hung_up: Vec<ServiceId>,
    /// Services with clients that wait.
    clients: Vec<ServiceId>,
    admin: Vec<Token>,
    /// The actions of a step, before they are queued.
    actions: Vec<Action>,
}

impl Runtime {
    fn now(&self) -> Time {
        self.setup.clock.now()
    }

    /// Serves until told to end.
    ///
    /// # Errors
    /// The poller's or the signals', without which nothing can be served.
    pub fn run(&mut self) -> anyhow::Result<Ending> {
        loop {
            self.turn()?;
            if let Some(ending) = self.lifecycle.ending {
                return Ok(ending);
            }
        }
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let before = self.now();
        self.lifecycle.tick(before, &self.log)?;
        let timeout = self.next_deadline(before).saturating_sub(before);
        self.poll
            .wait(timeout, &mut self.turn.ready)
            .context("cannot wait for events")?;
        let now = self.now();
        self.spawner.clear_slots();
        self.sort_ready(now);
        self.mend_listeners(now);
        self.read_signals(now)?;
        if self.lifecycle.ending.is_some() {
            return Ok(());
        }
        self.read_outputs(now);
        self.read_reports(now);
        self.read_pool_messages(now);
        self.serve_templates(now);
        self.process_exits(now);
        self.pass_deadlines(now);
        self.look_for_clients(now);
        self.report_clients(now);
        self.perform(now);
        self.administer(now);
        self.admin.expire(now, &self.poll, &mut self.log);
        self.answer_operators(now);
        self.reload(now);
        self.upgrade(now);
        Ok(())
    }

    /// When the next turn is due, if nothing is ready before.
    fn next_deadline(&mut self, now: Time) -> Time {
        if !self.is_settled() {
            return now;
        }
        let deadlines = [
            self.table.next_deadline(),
            self.spawner.next_deadline(now),
            self.exits.next_deadline(now),
            self.groups.next_deadline(),
            self.batches.next_deadline(),
            self.templates_deadline(now),
            self.outputs.next_deadline(),
            self.look_at,
            self.wakeups.next_deadline(),
            self.admin.next_deadline(),
            self.reloader.next_deadline(now),
            self.upgrader.next_deadline(now),
            Some(self.lifecycle.next_deadline(now)),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(now)
    }

    /// Sorts what is ready by what is to be done with it.
    fn sort_ready(&mut self, now: Time) {
        let ready = mem::take(&mut self.turn.ready);
        for &Ready { key, hung_up } in &ready {
            let Some(token) = Token::from_key(key) else {
                self.log
                    .error(format!("the poller has reported an unknown key: {key}"));
                continue;
            };
            match token {
                Token::Signals => self.lifecycle.signalled = true,
                Token::Listener(id) if hung_up => self.turn.hung_up.push(id),
                Token::Listener(id) => self.turn.clients.push(id),
                Token::Hangups => self.turn.hung_up.extend(self.services.hung_up()),
                Token::Reports(id) => self.reports_ready(now, id),
                Token::Exit(pid) => self.child_ended(pid),
                Token::PoolChannel(pid) => self.turn.pool_channels.push(pid),
                Token::Output(pid) => self.turn.outputs.push(pid),
                Token::Template(pid) => self.templates.ready.push(pid),
                Token::Wakeup(at) => self.wakeups.ready(at, &self.poll, &mut self.log),
                Token::Status(_) | Token::OwnStatus(_) | Token::Control(_) => {
                    self.turn.admin.push(token)
                }
                Token::Names => self.reloader.answered = true,
                Token::Upgrade => self.upgrader.answered = true,
            }
        }
        self.turn.ready = ready;
    }

    fn read_signals(&mut self, now: Time) -> anyhow::Result<()> {
        for number in self.lifecycle.take_signals()? {
            match number {
                libc::SIGHUP => self.reloader.requested = true,
                libc::SIGUSR2 => self.request_upgrade(now, None, None),
                libc::SIGCHLD => {
                    self.exits.orphans = true;
                    self.lifecycle.rest_from_sigchld(now)?;
                }
                signal => {
                    self.step(now, Event::Stop { signal });
                    // The signal that the whole group gets reaches the master, too.
                    self.terminate(signal);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Tells the policy of clients that wait; a service with several listeners may be told twice,
    /// which changes nothing. They wait on while a reload or
    /// an operator waits for what is queued to be done: the queue must become empty.
    fn report_clients(&mut self, now: Time) {
        let mut services = mem::take(&mut self.turn.clients);
        let waits = self.reloader.is_due() || self.upgrader.is_due() || self.admin.awaits_answer();
        if !self.queue.is_empty() && waits {
            services.clear();
        }
        services.dedup();
        for service in services.drain(..) {
            let clients = self.services.get(service).map_or(0, |io| io.clients());
            let actions = &mut self.turn.actions;
            self.table.connection(now, service, clients, actions);
        }
        self.queue.extend(self.turn.actions.drain(..));
        self.turn.clients = services;
    }

    fn pass_deadlines(&mut self, now: Time) {
        if self.table.next_deadline().is_some_and(|at| at <= now) {
            self.step(now, Event::Deadline);
        }
        while let Some(pid) = self.spawner.next_hanging(now) {
            if self.is_template(pid) {
                self.template_hangs(now, pid);
            } else {
                self.step(now, Event::ExecHangs { pid });
            }
        }
        self.expire_groups(now);
        self.wakeups.expire(now, &self.poll, &mut self.log);
        self.lifecycle.pass_exit_time(now);
    }

    /// Tells the policy a fact, and queues what it asks for.
    fn step(&mut self, now: Time, event: Event) {
        self.table.step(now, event, &mut self.turn.actions);
        self.queue.extend(self.turn.actions.drain(..));
    }

    /// Has the policy settle, and queues what it asks for.
    fn settle(&mut self, now: Time) {
        self.table.settle(now, &mut self.turn.actions);
        self.queue.extend(self.turn.actions.drain(..));
    }

    /// Whether all that the policy has asked for is done, and it has no more to ask for.
    fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.table.is_settled()
    }

    /// Has the policy settle, and carries out what is queued, as far as the turn's budget goes. The
    /// rest is for the next turn.
    fn perform(&mut self, now: Time) {
        self.settle(now);
        let began = self.now();
        let mut budget = TURN_BUDGET;
        // Starts that must wait for the child before. All else goes on: its end may be among it.
        let mut waiting = Vec::new();
        while budget > 0 {
            if self.queue.is_empty() {
                // All that the events so far have asked for is done.
                self.settle(now);
            }
            let Some(action) = self.queue.pop_front() else {
                break;
            };
            match action {
                Action::Spawn {
                    service,
                    generation,
                    stress,
                } => {
                    if !waiting.is_empty() || !self.spawn(now, service, generation, stress) {
                        waiting.push(action);
                    } else {
                        budget = budget.saturating_sub(SPAWN_COST);
                    }
                }
                action => {
                    self.carry_out(now, action);
                    budget -= 1;
                }
            }
            if self.has_taken_long(began) {
                break;
            }
        }
        self.queue.extend(waiting);
        if self.queue.is_empty() {
            self.queue.shrink_to(QUEUE_KEPT);
            self.turn.actions.shrink_to(QUEUE_KEPT);
        }
    }

    /// Whether a part of a turn that began then has taken so long that the rest waits for the next
    /// turn. What a child has prepared can make single system calls slow.
    fn has_taken_long(&self, began: Time) -> bool {
        self.now().saturating_sub(began) > TURN_TIME
    }

    /// Carries out an action other than a start. What it is about may be gone by now.
    fn carry_out(&mut self, now: Time, action: Action) {
        match action {
            Action::Watch(id) => self.watch(now, id),
            Action::Unwatch(id) => self.services.unwatch(id, &self.poll),
            Action::Signal { pid, signal } => {
                self.signal(pid, signal);
                self.kill_group(pid, signal);
            }
            Action::Order { pid, order } => self.order(now, pid, order),
            Action::CloseChannel { pid } => {
                self.read_last_words(now, pid);
                self.close_channel(pid);
            }
            Action::Measure { pid } => self.measure(now, pid),
            Action::Wake(id) => self.wake(now, id),
            Action::Close(id) => {
                self.drop_templates(now, id);
                self.services.close(id, &self.poll);
                self.end_group_if_unused(now, id);
            }
            Action::Log(record) => self.log_record(&record),
            // These two have their own ways: `perform` and `read_signals`.
            Action::Spawn { .. } | Action::Terminate { .. } => {}
        }
    }

    fn signal(&self, pid: Pid, signal: policy::Signal) {
        if let Some(child) = self.children.get(pid) {
            child.process.send(match signal {
                policy::Signal::Int => Signal::SIGINT,
                policy::Signal::Term => Signal::SIGTERM,
                policy::Signal::Kill => Signal::SIGKILL,
            });
        }
    }

    /// Closes a child's channel of which nothing more is to be read.
    fn close_if_ended(&mut self, now: Time, pid: Pid, found: Found) {
        let event = match found {
            Found::Bytes(_) | Found::Nothing => return,
            Found::End => {
                // The child has ended; or it, or a process that has the channel from it, has shut
                // it down.
                self.child_ended(pid);
                Event::ChannelClosed { pid }
            }
            Found::Descriptors => Event::SentDescriptors { pid },
        };
        self.close_channel(pid);
        self.step(now, event);
    }

    fn close_channel(&mut self, pid: Pid) {
        self.children
            .close_channel(pid, &mut self.services, &self.poll);
    }

    /// The child is not reaped yet, so that the pid is its own.
    fn measure(&mut self, now: Time, pid: Pid) {
        if self.children.get(pid).is_none() {
            return;
        }
        match process::memory(pid) {
            Ok((bytes, _)) => self.step(now, Event::Measured { pid, bytes }),
            Err(error) => {
                if self.unmeasured.allow(now).is_some() {
                    let reason = describe_error(&error);
                    self.log.warning(format!(
                        "cannot measure the memory of process {pid}, so that \"memory_recycle\" has no effect: {reason}"
                    ));
                }
            }
        }
    }

    fn wake(&mut self, now: Time, id: ServiceId) {
        if let Some(io) = self.services.get(id) {
            // A service manager makes its socket for root, where it likes.
            let is_owners = io.service.kind != Kind::Inet
                && !io.listeners.iter().any(|listener| listener.is_inherited());
            let owner = is_owners.then_some(self.config.parameters.mail_owner.1);
            self.wakeups
                .start(now, &io.service, owner, &self.poll, &mut self.log);
        }
    }

    fn log_record(&mut self, record: &Record) {
        match record.kind {
            // postlogd is about to be ended with the master.
            policy::Kind::Terminating { .. } => self.log.set_postlogd_available(false),
            policy::Kind::Throttled(..) | policy::Kind::Unthrottled(_) => self.find_postlogd(),
            _ => {}
        }
        let about = About {
            child: record.child,
            ..record.service.as_deref().map(about).unwrap_or_default()
        };
        match record.severity {
            policy::Severity::Detail => self.log.detail(about, record),
            policy::Severity::Info => self.log.write_about(Severity::Info, about, record),
            policy::Severity::Warning => self.log.write_about(Severity::Warning, about, record),
        }
    }
}

impl Runtime {
    /// Has the log know whether a process reads postlogd's socket, or will be started to.
    fn find_postlogd(&mut self) {
        let name = &self.config.parameters.postlog_service_name;
        let socket = Endpoint::Path(Path::new("public").join(name));
        let mut services = self.table.services();
        let is_down = services.any(|(_, service)| {
            !service.removed() && service.throttled() && service.config().endpoint == socket
        });
        self.log.set_postlogd_available(!is_down);
        if is_down {
            self.log.rescue_unread();
        }
    }
}

/// The number of a system's error, for the policy.
fn errno(error: &io::Error) -> Errno {
    // The few errors without a number are about an argument.
    Errno(error.raw_os_error().unwrap_or(libc::EINVAL))
}
