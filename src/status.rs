//! What a master tells of itself to whoever may ask: one JSON document, the same for every reader.
//! The master fills it in, and whoever reads it (masterctl(1), statusd) parses it with these types.
//!
//! Points in time are seconds since 1970 with a fraction; durations are seconds. A later version of
//! the format may add fields, which readers ignore that do not know them; [`FORMAT`] changes when
//! one is removed or means something else.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

use crate::config::{self, ChildLimits, Endpoint, ImportedVariable, Parameters, Pool, Ramp};

/// The version of the format.
pub const FORMAT: u32 = 1;

/// The socket at which the document is to be had, below the queue directory. No service can have
/// this name.
pub const SOCKET: &str = "pid/master.status";

/// Settings by name, each as a text that can be compared.
pub type Settings = BTreeMap<String, String>;

/// A master and all its services; these may be anything that looks like [`Service`]s in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document<Services = Vec<Service>> {
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
    /// Parameters that the master itself reads, under their names.
    #[serde(default)]
    pub settings: Settings,
    /// Whether it logs what is decided, and not only what matters.
    #[serde(default)]
    pub verbose: bool,
    /// How many configurations have been in force, the first included.
    pub generation: u32,
    /// When the present configuration came into force.
    pub loaded: f64,
    /// How many reloads there were since the start, failed ones included.
    #[serde(default)]
    pub reloads: u32,
    /// The last reload since the start, if there was one.
    pub last_reload: Option<Reload>,
    /// In the order of their places.
    pub services: Services,
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
    /// What else is configured, under its name in `master.toml`, unless it is as by default.
    #[serde(default)]
    pub settings: Settings,
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
    /// For how many seconds the next failure will throttle it, where `throttle_time` has two times.
    pub throttle_next: Option<f64>,
    /// Stress mode ends then, unless the limit is reached again.
    pub stress_until: Option<f64>,
    /// How many clients children have reported.
    pub connections: u64,
    /// Children that were started, that ended with status 0, with another, and by a signal.
    pub started: u64,
    pub ended: u64,
    pub failed: u64,
    pub killed: u64,
    /// Where `crash_percent` is set: the clients that it looks at, which are the last ones, and
    /// those of them whose child ended abnormally.
    pub recent_clients: Option<u32>,
    pub recent_crashes: Option<u32>,
    /// Clients that wait in the listeners' queues, where the system tells.
    pub backlog: Option<u32>,
    /// How many can wait there, for each listener.
    pub backlog_limit: u32,
    pub children: Vec<Child>,
}

impl Service {
    /// Whether all processes that the limit allows are in use. To be busy is what the only process
    /// of a service is for: it counts when somebody waits for it.
    pub fn is_full(&self) -> bool {
        match self.maximum {
            0 => false,
            1 => self.busy >= 1 && self.backlog.is_some_and(|waiting| waiting > 0),
            limit => self.busy >= limit,
        }
    }
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

impl Service {
    /// What is configured of a service. Nothing has happened to it yet.
    pub fn configured(place: u32, service: &config::Service) -> Self {
        let listeners = match &service.endpoint {
            Endpoint::Inet(addresses) => addresses.iter().map(ToString::to_string).collect(),
            Endpoint::Path(path) => vec![path.display().to_string()],
        };
        let accept = match service.is_ordered() {
            true => "ordered",
            false => "shared",
        };
        let arguments = service.args.iter();
        Self {
            place,
            name: service.name.clone(),
            kind: service.kind.as_str().to_owned(),
            endpoint: service.canonical.clone(),
            listeners,
            program: service.path.display().to_string(),
            arguments: arguments
                .map(|a| a.to_string_lossy().into_owned())
                .collect(),
            unprivileged: service.unprivileged,
            chroot: service.chroot,
            accept: accept.to_owned(),
            settings: settings(service),
            wakeup: service.wakeup.map(|wakeup| wakeup.every.as_secs_f64()),
            wakeup_next: None,
            total: 0,
            available: 0,
            busy: 0,
            starting: 0,
            maximum: service.max,
            peak: 0,
            peak_time: None,
            limit_reached: 0,
            listening: false,
            paused: false,
            throttled_until: None,
            throttle_next: None,
            stress_until: None,
            connections: 0,
            started: 0,
            ended: 0,
            failed: 0,
            killed: 0,
            recent_clients: None,
            recent_crashes: None,
            backlog: None,
            backlog_limit: service.backlog,
            children: Vec::new(),
        }
    }
}

/// What is configured of a service and has no field of its own.
fn settings(service: &config::Service) -> Settings {
    let once_used = service.wakeup.is_some_and(|wakeup| wakeup.conditional);
    let once_used = once_used.then(|| ("wakeup_once_used", "yes".to_owned()));
    let all = limits(service).into_iter().chain(pool(*service.pool()));
    let all = all.flatten().chain(once_used);
    all.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A setting that is not as by default.
type Told = Option<(&'static str, String)>;

fn limits(service: &config::Service) -> [Told; 5] {
    let ChildLimits {
        throttle_most,
        crash_percent,
        stop_timeout,
        request_timeout,
        capture_output,
    } = *service.limits();
    let first = seconds(service.throttle_time);
    let throttle_time = match throttle_most {
        Some(most) => format!("{first}..{}", seconds(most)),
        None => first,
    };
    [
        Some(("throttle_time", throttle_time)),
        crash_percent.map(|percent| ("crash_percent", percent.to_string())),
        stop_timeout.map(|time| ("stop_timeout", seconds(time))),
        request_timeout.map(|time| ("request_timeout", seconds(time))),
        capture_output.then(|| ("capture_output", "true".to_owned())),
    ]
}

fn pool(pool: Pool) -> [Told; 6] {
    let Pool {
        accept,
        min_children,
        min_idle,
        max_idle,
        spawn_ramp,
        reply_timeout,
        ping_interval,
    } = pool;
    let usual = match accept {
        config::Accept::Ordered => Pool::ordered(),
        config::Accept::Shared => Pool::default(),
    };
    let ramp = match spawn_ramp {
        Ramp::Single => "single",
        Ramp::Double => "double",
    };
    let number = |name, value: u32, usual| (value != usual).then(|| (name, value.to_string()));
    let time = |name, value, usual| (value != usual).then(|| (name, seconds(value)));
    [
        number("min_children", min_children, usual.min_children),
        number("min_idle", min_idle, usual.min_idle),
        number("max_idle", max_idle, usual.max_idle),
        (spawn_ramp != usual.spawn_ramp).then(|| ("spawn_ramp", ramp.to_owned())),
        time("reply_timeout", reply_timeout, usual.reply_timeout),
        time("ping_interval", ping_interval, usual.ping_interval),
    ]
}

/// The parameters that the master itself reads. Of variables, only the names: their values are
/// nobody else's business.
pub fn parameters(parameters: &Parameters) -> Settings {
    let variables = parameters
        .import_environment
        .iter()
        .map(|variable| match variable {
            ImportedVariable::Keep(name) => name.clone(),
            ImportedVariable::Set(name, _) => format!("{name}="),
        });
    let all = [
        (
            "daemon_directory",
            parameters.daemon_directory.display().to_string(),
        ),
        (
            "data_directory",
            parameters.data_directory.display().to_string(),
        ),
        ("mail_owner", parameters.mail_owner.0.clone()),
        ("service_kill_time", seconds(parameters.service_kill_time)),
        (
            "import_environment",
            variables.collect::<Vec<_>>().join(" "),
        ),
        ("syslog_facility", parameters.syslog_facility.clone()),
        ("syslog_name", parameters.syslog_name.clone()),
        ("maillog_file", parameters.maillog_file.clone()),
        (
            "postlog_service_name",
            parameters.postlog_service_name.clone(),
        ),
        ("inet_windowsize", parameters.inet_windowsize.to_string()),
    ];
    all.map(|(name, value)| (name.to_owned(), value)).into()
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs_f64())
}
