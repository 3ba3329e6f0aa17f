//! What a master tells of itself to whoever may ask: one JSON document, the same for every reader.
//! The master fills it in, and whoever reads it (masterctl(1), statusd) parses it with these types.
//!
//! Points in time are seconds since 1970 with a fraction; durations are seconds. A later version of
//! the format may add fields, which readers ignore that do not know them; [`FORMAT`] changes when
//! one is removed or means something else.

use serde_derive::{Deserialize, Serialize};

/// The version of the format.
pub const FORMAT: u32 = 1;

/// The socket at which the document is to be had, below the queue directory. No service can have
/// this name.
pub const SOCKET: &str = "pid/master.status";

/// A master and all its services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub format: u32,
    /// The master's own version.
    pub version: String,
    pub pid: u32,
    /// When this was written down.
    pub time: f64,
    /// When the master was started.
    pub started: f64,
    /// The configuration directory, or the service table.
    pub configuration: String,
    pub queue_directory: String,
    /// How many configurations have been in force, the first included.
    pub generation: u32,
    /// When the present configuration came into force.
    pub loaded: f64,
    /// The last reload since the start, if there was one.
    pub last_reload: Option<Reload>,
    /// In the order of their places.
    pub services: Vec<Service>,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    pub time: f64,
    /// Whether the new configuration is in force.
    pub succeeded: bool,
    /// The log's lines about it, without their tags; at most 100.
    pub findings: Vec<String>,
}

/// One service: a line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// By which messages on the control socket name it; of one that is gone another may have it.
    pub place: u32,
    /// The table's first column.
    pub name: String,
    /// The table's second column.
    #[serde(rename = "type")]
    pub kind: String,
    /// The canonical name: `[127.0.0.1]:25`, `private/bounce`.
    pub endpoint: String,
    /// The addresses, or the path.
    pub listeners: Vec<String>,
    /// The program, and the table's own arguments.
    pub program: String,
    pub arguments: Vec<String>,
    pub unprivileged: bool,
    pub chroot: bool,
    /// `shared` or `ordered`.
    pub accept: String,
    /// Seconds from one wake-up to the next, if there are any.
    pub wakeup: Option<f64>,
    /// When the next one is due.
    pub wakeup_next: Option<f64>,
    /// All children.
    pub total: u32,
    /// Those of them that wait for a client.
    pub available: u32,
    /// Those that have one, as far as the master was told.
    pub busy: u32,
    /// Those of an ordered pool that are not ready yet.
    pub starting: u32,
    /// The process limit; 0 is none.
    pub maximum: u32,
    /// The most that were busy at a time, and when that was first so.
    pub peak: u32,
    pub peak_time: Option<f64>,
    /// How often all processes that the limit allows were in use.
    pub limit_reached: u64,
    /// Whether the master looks for clients itself, because no child does.
    pub listening: bool,
    /// Whether somebody has told the master not to.
    pub paused: bool,
    /// After failures, no child is started before this.
    pub throttled_until: Option<f64>,
    /// Stress mode ends then, unless the limit is reached again.
    pub stress_until: Option<f64>,
    /// How many clients children have reported.
    pub connections: u64,
    /// Children that were started, that ended with status 0, with another, and by a signal.
    pub started: u64,
    pub ended: u64,
    pub failed: u64,
    pub killed: u64,
    /// Clients that wait in the listeners' queues, where the system tells.
    pub backlog: Option<u32>,
    /// How many can wait there, for each listener.
    pub backlog_limit: u32,
    pub children: Vec<Child>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    pub pid: i32,
    pub generation: u32,
    pub state: State,
    /// How many clients it has reported.
    pub uses: u32,
    /// For how long it has run, in seconds.
    pub age: f64,
}

/// What a child does, as far as the master was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is not ready yet.
    Starting,
    /// It waits for a client.
    Available,
    /// It has a client, or was ordered to take one.
    Busy,
    /// It was told to leave, and does when it has finished with its client.
    Leaving,
}
