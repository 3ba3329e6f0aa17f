//! What a master hands over to its next version: the document with its state, and the words by which
//! the two programs understand each other. The former program writes it, and executes the next one
//! in its own process, which reads it and goes on.
//!
//! The document is JSON. [`FORMAT`] changes when a field is removed or gets another meaning. Fields
//! that are added have a default; those that a program does not know are named in its log.

mod fields;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_derive::{Deserialize, Serialize};

use crate::config::{Parameters, Service};
use crate::files::Location;
use crate::groups::Groups;
use crate::log::Terminal;
use crate::policy::{Limiter, Pid, Snapshot, Time};
use crate::protocol::template::Order;

pub use fields::check_clocks;

/// The version of the format.
pub const FORMAT: u32 = 1;
/// The variable of the environment by which the next program finds the state: the process that it is
/// for, and the descriptor.
pub const VARIABLE: &str = "MASTER_RESUME";
/// The option of a program that is only to say whether it understands a state.
pub const CHECK: &str = "--resume-check";
/// A program that understands the state says this, and its version.
const UNDERSTOOD: &str = "resume-check: understood by version ";
/// One that does not says this, and why.
const REFUSED: &str = "resume-check: refused: ";

/// The state of a master. Numbers of descriptors are those that it has, and its next version will have.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    pub format: u32,
    /// The version of the program that has written it.
    pub version: String,
    /// When that program began to write it.
    pub began: Time,
    /// All descriptors that stay open.
    pub descriptors: Vec<i32>,
    pub process: Process,
    pub location: Location,
    pub parameters: Parameters,
    /// All services that the rest names, by number.
    pub configs: Vec<Arc<Service>>,
    /// The numbers of the services of the configuration that is in force, in its order.
    pub in_force: Vec<usize>,
    pub table: Snapshot,
    pub services: Vec<ServiceState>,
    pub children: Vec<ChildState>,
    #[serde(default)]
    pub groups: Groups,
    #[serde(default)]
    pub templates: TemplatesState,
    #[serde(default)]
    pub wakeups: Vec<WakeupState>,
    pub admin: AdminState,
    pub history: History,
    pub log: LogState,
}

/// What the process was started with.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// The path by which the first program was executed.
    pub program: Option<PathBuf>,
    /// When it is to end by itself.
    pub exit_at: Option<Time>,
    /// Children's limits on descriptors.
    pub limit: Option<(u64, u64)>,
    /// The lock files.
    pub locks: Vec<i32>,
    /// Listeners of the service manager.
    pub inherited: Vec<i32>,
    /// Children that have not executed their program, and when they have taken too long.
    #[serde(default)]
    pub unfinished: Vec<(Pid, Time)>,
}

/// What a service has of the system.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServiceState {
    pub place: usize,
    pub config: usize,
    pub listeners: Vec<ListenerState>,
    #[serde(default)]
    pub output: Limiter<100, 1>,
    #[serde(default)]
    pub listened_again: Limiter<8, 1>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ListenerState {
    pub fd: i32,
    pub inherited: bool,
    pub given: bool,
    /// The device and the inode of the file at its path.
    #[serde(default)]
    pub file: Option<(u64, u64)>,
}

/// A channel, and whether the kernel refuses descriptors that are sent to it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ChannelState {
    pub fd: i32,
    pub refuses: bool,
}

/// What a child has of the system.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChildState {
    pub pid: Pid,
    pub place: usize,
    pub pidfd: i32,
    pub channel: Option<ChannelState>,
    /// Of a child of an ordered pool: what was read of a message, and what was not written yet.
    #[serde(default)]
    pub pool: Option<(Vec<u8>, Vec<u8>)>,
    #[serde(default)]
    pub output: Option<OutputState>,
}

/// What a child prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct OutputState {
    pub channel: ChannelState,
    pub config: usize,
    pub purpose: Purpose,
    pub line: Vec<u8>,
    pub last_words: Vec<Vec<u8>>,
}

/// What is done with what a child prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// It is logged.
    Log,
    /// It goes to the terminal, and is logged if the child fails, the last lines of it.
    Show,
    /// The last lines are logged if the child fails.
    LastWords,
}

/// The templates of preloaded services.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplatesState {
    /// Their processes, also of those that are ending.
    pub processes: Vec<ChildState>,
    pub running: Vec<TemplateState>,
    pub services: Vec<PreloadedState>,
    /// Places of services whose template is to be started.
    pub missing: Vec<usize>,
    /// Templates that got SIGTERM, and when they get SIGKILL.
    pub leaving: Vec<(Time, Pid)>,
    pub warnings: Limiter,
}

/// A template that runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct TemplateState {
    pub pid: Pid,
    pub config: usize,
    /// The listeners that it has; `None` for one that its service does not have any more.
    pub listeners: Vec<Option<i32>>,
    pub channel: ChannelState,
    /// Through which its children become known.
    pub socket: ChannelState,
    pub is_socket_watched: bool,
    /// A line whose end was not read yet.
    pub line: Vec<u8>,
    pub step: TemplateStep,
    pub started: Time,
    pub forked: u32,
    pub refusals: u32,
}

/// What a template does, and until when at the latest.
#[derive(Debug, Serialize, Deserialize)]
pub enum TemplateStep {
    Loading(Time),
    Idle,
    Forking(ForkState),
    Closed(Time, Option<Order>),
}

/// A child that a template forks.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForkState {
    pub order: Order,
    pub until: Time,
    pub is_forked: bool,
    pub connection: Option<ChannelState>,
    /// Its process and the descriptor for that.
    pub child: Option<(Pid, i32)>,
    pub is_ready: bool,
    pub is_lost: bool,
}

/// A preloaded service.
#[derive(Debug, Serialize, Deserialize)]
pub struct PreloadedState {
    pub place: usize,
    pub current: Option<Pid>,
    /// The template that is to take its place. One that a reload has asked for is not kept.
    pub next: Option<NextState>,
    /// Children that are asked for.
    pub requests: Vec<Order>,
    /// No template is replaced before this time.
    pub not_before: Time,
    /// Templates in a row that could not load.
    pub not_loaded: u32,
    pub failures: u32,
    pub failure: Option<(Time, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum NextState {
    Wanted,
    Loading(Pid),
    Loaded(Pid),
    /// In words.
    Failed(String),
}

/// A wake-up under way.
#[derive(Debug, Serialize, Deserialize)]
pub struct WakeupState {
    pub fd: i32,
    pub config: usize,
    pub step: WakeupStep,
    /// None if it was said already that it takes too long.
    pub until: Option<Time>,
}

/// What a wake-up waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WakeupStep {
    /// That a connection is made.
    Connecting,
    /// That the service closes the connection, which is one to a local socket.
    Local,
    /// That the service closes the connection, which is one by TCP.
    Remote,
    /// What another process says, which does it all.
    Process,
}

/// The sockets for the master's own clients, and the clients.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminState {
    pub sockets: Vec<Option<SocketState>>,
    /// Documents that were not sent to all of their readers.
    pub documents: Vec<String>,
    pub readers: Vec<ReaderState>,
    /// Connections on which no request has come yet.
    pub operators: Vec<ChannelState>,
    /// Operators that wait for the end of the upgrade.
    pub waiting: Vec<OperatorState>,
}

/// A client that reads a status document.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReaderState {
    /// The place of its socket in [`AdminState::sockets`].
    pub socket: usize,
    pub connection: ChannelState,
    /// The place of its document in [`AdminState::documents`].
    pub document: usize,
    /// Bytes of it that were sent.
    pub sent: usize,
}

/// A client whose request is carried out.
#[derive(Debug, Serialize, Deserialize)]
pub struct OperatorState {
    pub connection: ChannelState,
    /// Its user and process.
    pub uid: u32,
    pub pid: i32,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SocketState {
    pub fd: i32,
    pub refuses: bool,
    pub file: Option<(u64, u64)>,
}

/// What has happened so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    pub started: Option<Time>,
    pub generation: u32,
    pub loaded: Time,
    pub reloads: u32,
    pub last_reload: Option<(Time, bool, Vec<String>)>,
    pub upgrades: u32,
    /// When the last one was, and the version before it.
    pub last_upgrade: Option<(Time, String)>,
    /// A reload was requested, or was not over: it begins anew.
    pub reload: bool,
}

impl History {
    /// A configuration is in force now.
    pub fn loaded(&mut self, now: Time) {
        self.started.get_or_insert(now);
        self.generation = self.generation.saturating_add(1);
        self.loaded = now;
    }

    /// A reload is over.
    pub fn reloaded(&mut self, now: Time, succeeded: bool, findings: Vec<String>) {
        self.reloads = self.reloads.saturating_add(1);
        self.last_reload = Some((now, succeeded, findings));
    }

    /// A program of this version has gone on in the place of another.
    pub fn upgraded(&mut self, now: Time, from: String) {
        self.upgrades = self.upgrades.saturating_add(1);
        self.last_upgrade = Some((now, from));
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct LogState {
    pub terminal: Terminal,
    pub lost: u64,
    pub reason: String,
}

/// Why a state cannot be gone on from.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// The part of the document that all formats have.
#[derive(Deserialize)]
struct Head {
    format: u32,
    version: String,
}

impl State {
    /// The document's text.
    ///
    /// # Errors
    /// A path that is no text.
    pub fn encode(&self) -> Result<Vec<u8>, Unfit> {
        serde_json::to_vec(self).map_err(|error| Unfit(error.to_string()))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// It is of a later program, or is none.
    pub fn decode(text: &[u8]) -> Result<Self, Unfit> {
        let not_read = |error| Unfit(format!("the state cannot be read: {error}"));
        match serde_json::from_slice::<Self>(text) {
            Ok(state) if state.format <= FORMAT => Ok(state),
            unfit => {
                let Head { format, version } = serde_json::from_slice(text).map_err(not_read)?;
                if format <= FORMAT {
                    return unfit.map_err(not_read);
                }
                let own = env!("CARGO_PKG_VERSION");
                Err(Unfit(format!(
                    "the state of version {version} has format {format}, and version {own} knows \
                     formats up to {FORMAT}: it is an older program, to which only a restart leads \
                     back"
                )))
            }
        }
    }

    /// Whether the parts fit together, in words if not. The table that goes on from it is returned.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<crate::policy::Table, Unfit> {
        let table = crate::policy::Table::restore(&self.table, &self.configs).map_err(Unfit)?;
        let configs = self.configs.len();
        let processes = self.children.iter().chain(&self.templates.processes);
        let outputs = processes.filter_map(|process| process.output.as_ref());
        let mut numbers = self.in_force.iter().copied();
        let services = self.services.iter().map(|service| service.config);
        let templates = self.templates.running.iter().map(|t| t.config);
        let wakeups = self.wakeups.iter().map(|wakeup| wakeup.config);
        let mut others = services
            .chain(outputs.map(|output| output.config))
            .chain(templates)
            .chain(wakeups);
        if numbers.any(|n| n >= configs) || others.any(|n| n >= configs) {
            return Err(Unfit("a service has no configuration".to_owned()));
        }
        for child in &self.children {
            if table.service_of(child.pid).map(|id| id.index()) != Some(child.place) {
                let text = format!("process {} is of no service", child.pid);
                return Err(Unfit(text));
            }
        }
        for template in &self.templates.running {
            let mut processes = self.templates.processes.iter();
            if !processes.any(|process| process.pid == template.pid) {
                let text = format!("template {} has no process", template.pid);
                return Err(Unfit(text));
            }
        }
        Ok(table)
    }
}

/// What a program says that was asked whether it understands a state.
pub fn answer(understood: &Result<(), String>) -> String {
    match understood {
        Ok(()) => format!("{UNDERSTOOD}{}\n", env!("CARGO_PKG_VERSION")),
        Err(why) => format!("{REFUSED}{}\n", why.replace('\n', " ")),
    }
}

/// The version of a program that has said this, if it understands the state.
///
/// # Errors
/// Why not, in words.
pub fn read_answer(status: i32, text: &str) -> Result<String, String> {
    let said = |prefix| text.lines().find_map(|line| line.strip_prefix(prefix));
    match (said(UNDERSTOOD), said(REFUSED)) {
        (Some(version), None) if status == 0 => Ok(version.to_owned()),
        (_, Some(why)) => Err(why.to_owned()),
        _ => {
            let line = text.lines().next().unwrap_or_default();
            let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
            let said = if line.is_empty() {
                "nothing".to_owned()
            } else {
                format!("\"{line}\"")
            };
            Err(format!(
                "it is no master that can go on from the state of this one: with {CHECK} it ends \
                 with status {status} and says {said}"
            ))
        }
    }
}

/// The value of [`VARIABLE`].
pub fn variable(pid: u32, fd: i32) -> String {
    format!("{pid} {fd}")
}

/// The descriptor in the value of [`VARIABLE`], if that is for this process.
pub fn read_variable(value: &str, pid: u32) -> Option<i32> {
    let (of, fd) = value.split_once(' ')?;
    let fd = fd.parse().ok().filter(|fd| *fd > 2);
    fd.filter(|_| of.parse() == Ok(pid))
}
