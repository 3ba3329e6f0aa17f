//! The status document of a master: JSON, the same for every reader. The master writes it;
//! masterctl(1) and statusd read it with these types.
//!
//! Points in time are in seconds since 1970, with a fraction; durations are in seconds. Later
//! versions may add fields, which readers must ignore if they do not know them. [`FORMAT`] changes
//! when a field is removed or gets another meaning.

pub mod day;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

use crate::config::{
    self, ChildLimits, ImportedVariable, Parameters, Pool, Ramp, SocketRights, StartLimit,
};

/// The version of the format.
pub const FORMAT: u32 = 1;

/// The socket on which the master sends the document, below the queue directory. No service can
/// have this name.
pub const SOCKET: &str = "pid/master.status";

/// A second one for root and the master's user alone: other users' readers cannot delay them.
pub const OWN_SOCKET: &str = "pid/master.own-status";

/// Settings by name. The values are texts, for comparison.
pub type Settings = BTreeMap<String, String>;

/// A master and all its services. `Services` may be any type that is written like a list of
/// [`Service`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document<Services = Vec<Service>> {
    pub format: u32,
    /// The master's own version.
    pub version: String,
    pub pid: u32,
    /// When the document was made.
    pub time: f64,
    /// When the master was started.
    pub started: f64,
    /// The path of the configuration directory, or of the service table.
    pub configuration: String,
    pub queue_directory: String,
    /// Parameters that the master itself reads, by name.
    #[serde(default)]
    pub settings: Settings,
    /// `ok`, or how many of the last log lines were lost, and why.
    #[serde(default)]
    pub log: String,
    /// Whether the master logs each decision (`-v`).
    #[serde(default)]
    pub verbose: bool,
    /// The number of configurations that have been in force, including the first.
    pub generation: u32,
    /// When the current configuration came into force.
    pub loaded: f64,
    /// The number of reloads since the start, including failed ones.
    #[serde(default)]
    pub reloads: u32,
    /// The last reload since the start.
    pub last_reload: Option<Reload>,
    /// The number of upgrades since the start.
    #[serde(default)]
    pub upgrades: u32,
    /// The last upgrade since the start.
    #[serde(default)]
    pub last_upgrade: Option<Upgrade>,
    /// In the order of their places.
    pub services: Services,
}

/// Another program has gone on in the master's place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upgrade {
    pub time: f64,
    /// The version before.
    pub from: String,
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    pub time: f64,
    /// Whether the new configuration is in force.
    pub succeeded: bool,
    /// The log lines of the reload, without tags; at most 100.
    pub findings: Vec<String>,
}

/// One service: a line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The number by which requests on the control socket name the service. It is reused after the
    /// service is gone.
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
    /// The path of the program, and the arguments in the table.
    pub program: String,
    pub arguments: Vec<String>,
    pub unprivileged: bool,
    pub chroot: bool,
    /// `shared` or `ordered`.
    pub accept: String,
    /// Other settings that differ from their defaults, by their name in `master.toml`.
    #[serde(default)]
    pub settings: Settings,
    /// Interval between wake-ups in seconds, if the service has wake-ups.
    pub wakeup: Option<f64>,
    /// When the next wake-up is due.
    pub wakeup_next: Option<f64>,
    /// The number of children.
    pub total: u32,
    /// The number of children that wait for a client.
    pub available: u32,
    /// The number of children that have a client, according to their reports.
    pub busy: u32,
    /// The number of children of an ordered pool that are not ready yet.
    pub starting: u32,
    /// The process limit; 0 for none.
    pub maximum: u32,
    /// The maximum number of busy children, and when it was first reached.
    pub peak: u32,
    pub peak_time: Option<f64>,
    /// How often the number of busy processes has reached the limit.
    pub limit_reached: u64,
    /// Whether the master watches the listeners, because no child is available.
    pub listening: bool,
    /// Whether an operator has paused the service.
    pub paused: bool,
    /// Whether clients wait although processes count as available.
    #[serde(default)]
    pub stalled: bool,
    /// The service is throttled: no child is started before this time.
    pub throttled_until: Option<f64>,
    /// How long the next failure throttles the service, in seconds, if `throttle_time` is a range.
    pub throttle_next: Option<f64>,
    /// When stress mode ends, unless the limit is reached again.
    pub stress_until: Option<f64>,
    /// The number of clients that children have reported.
    pub connections: u64,
    /// The number of children that were started, that ended with status 0, with another status, and
    /// by a signal.
    pub started: u64,
    pub ended: u64,
    pub failed: u64,
    pub killed: u64,
    /// With `crash_percent`: the number of recent clients that are counted, and the number of these
    /// whose child ended abnormally.
    pub recent_clients: Option<u32>,
    pub recent_crashes: Option<u32>,
    /// The number of clients in the listeners' queues, if the system reports it.
    pub backlog: Option<u32>,
    /// What the processes of its control group use: bytes of memory, if the controller is there, and
    /// processor time in seconds, that of processes which have ended included.
    #[serde(default)]
    pub memory: Option<u64>,
    #[serde(default)]
    pub processor_time: Option<f64>,
    /// The length of each listener's queue.
    pub backlog_limit: u32,
    pub children: Vec<Child>,
    /// The templates of a preloaded service: the one that forks the children, then the one that is
    /// to take its place. They are none of the children, and not counted in `total`.
    #[serde(default)]
    pub templates: Vec<Template>,
    /// The failures of templates since the service is there, and the last one.
    #[serde(default)]
    pub template_failures: u32,
    pub template_failure: Option<Failure>,
}

impl Service {
    /// Whether clients wait because all processes are busy. With a limit of one, a busy process is
    /// normal: the service is full only if a client waits.
    pub fn is_full(&self) -> bool {
        match self.maximum {
            0 => false,
            1 => self.busy >= 1 && self.backlog.is_some_and(|waiting| waiting > 0),
            limit => self.busy >= limit,
        }
    }

    /// Whether children are forked from a template.
    pub fn is_preloaded(&self) -> bool {
        self.settings.contains_key("preload")
    }

    /// Whether children cannot be forked yet, because no template has loaded.
    pub fn is_loading(&self) -> bool {
        let template = self.templates.first();
        let has_loaded = template.is_some_and(|template| template.state != TemplateState::Loading);
        self.is_preloaded() && !has_loaded
    }
}

/// The template of a preloaded service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    pub pid: i32,
    pub state: TemplateState,
    /// The time since its start, in seconds.
    pub age: f64,
    /// The number of children that it has forked.
    pub forked: u32,
    /// When it is to be replaced, by `preload_max_age` and `preload_max_uses`.
    pub due: Option<f64>,
    /// Its resident memory in bytes, if the system tells: pages of files, and its own, which its
    /// children share until one of them writes there.
    #[serde(default)]
    pub shared: Option<u64>,
    #[serde(default)]
    pub private: Option<u64>,
}

/// What a template does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateState {
    Loading,
    /// It waits for orders.
    Ready,
    /// It was ordered to fork a child.
    Forking,
    /// It is about to end.
    Ending,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub time: f64,
    pub reason: String,
}

/// One child process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    pub pid: i32,
    pub generation: u32,
    pub state: State,
    /// The number of clients that it has reported.
    pub uses: u32,
    /// The time since its start, in seconds.
    pub age: f64,
}

/// The state of a child, according to its reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is not ready yet.
    Starting,
    /// It waits for a client.
    Available,
    /// It has a client, or was ordered to take one.
    Busy,
    /// It was told to leave. It ends after it has finished with its client.
    Leaving,
}

impl Service {
    /// The status of a service that has just been configured.
    pub fn configured(place: u32, service: &config::Service) -> Self {
        let accept = if service.is_ordered() {
            "ordered"
        } else {
            "shared"
        };
        let arguments = service.args.iter();
        Self {
            place,
            name: service.name.clone(),
            kind: service.kind.as_str().to_owned(),
            endpoint: service.canonical.clone(),
            listeners: service.listen_addresses().map(|a| a.to_string()).collect(),
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
            stalled: false,
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
            memory: None,
            processor_time: None,
            backlog_limit: service.backlog,
            children: Vec::new(),
            templates: Vec::new(),
            template_failures: 0,
            template_failure: None,
        }
    }
}

/// The configured settings that have no field of their own.
fn settings(service: &config::Service) -> Settings {
    let once_used = service
        .wakeup
        .is_some_and(|wakeup| wakeup.conditional)
        .then(|| ("wakeup_once_used", "yes".to_owned()));
    let all = limits(service)
        .into_iter()
        .chain(pool(*service.pool()))
        .chain(also_listen(service.also_listen()))
        .flatten()
        .chain(once_used);
    let all = all.map(|(name, value)| (name.to_owned(), value));
    let sandbox = service.sandbox().map(|sandbox| sandbox.shown());
    let group = service.group().map(|settings| match settings {
        [] => vec![("control_group".to_owned(), "true".to_owned())],
        settings => {
            let shown = settings
                .iter()
                .map(|s| (s.name.to_string(), s.shown.clone()));
            shown.collect()
        }
    });
    all.chain(sandbox.unwrap_or_default())
        .chain(group.unwrap_or_default())
        .collect()
}

/// A setting that differs from its default.
type ChangedSetting = Option<(&'static str, String)>;

fn limits(service: &config::Service) -> [ChangedSetting; 9] {
    let ChildLimits {
        throttle_most,
        crash_percent,
        stop_timeout,
        request_timeout,
        start_limit,
        capture_output,
        max_uses,
        max_age,
        memory_recycle,
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
        start_limit.map(|StartLimit { starts, period }| {
            ("start_limit", format!("{starts}/{}", seconds(period)))
        }),
        capture_output.then(|| ("capture_output", "true".to_owned())),
        max_uses.map(|uses| ("max_uses", uses.to_string())),
        max_age.map(|time| ("max_age", seconds(time))),
        memory_recycle.map(|bytes| ("memory_recycle", bytes.to_string())),
    ]
}

fn pool(pool: Pool) -> [ChangedSetting; 9] {
    let Pool {
        accept,
        min_children,
        min_idle,
        max_idle,
        spawn_ramp,
        reply_timeout,
        ping_interval,
        preload,
        preload_max_age,
        preload_max_uses,
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
        preload.then(|| ("preload", "true".to_owned())),
        preload_max_age.map(|age| ("preload_max_age", seconds(age))),
        preload_max_uses.map(|uses| ("preload_max_uses", uses.to_string())),
    ]
}

fn also_listen(also: &config::AlsoListen) -> [ChangedSetting; 4] {
    let SocketRights { mode, uid, gid } = also.rights;
    let addresses = also
        .endpoints
        .iter()
        .flat_map(config::Endpoint::listen_addresses);
    let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
    [
        (!addresses.is_empty()).then(|| ("also_listen", addresses.join(", "))),
        (mode != SocketRights::DEFAULT.mode).then(|| ("socket_mode", format!("{mode:04o}"))),
        uid.map(|uid| ("socket_user", uid.to_string())),
        gid.map(|gid| ("socket_group", gid.to_string())),
    ]
}

/// The parameters that the master itself reads. Of environment variables, only the names are
/// included, because the values may be secret.
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
        ("allow_empty_table", yes_or_no(parameters.allow_empty_table)),
        (
            "table_directory",
            parameters
                .table_directory
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string()),
        ),
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

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs_f64())
}
