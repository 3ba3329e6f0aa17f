//! The parameters that the master itself reads, with Postfix's defaults.

mod log;
mod network;
mod reader;
mod values;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

pub use self::log::SYSLOG_FACILITIES;
use self::log::{log_format, maillog_file, maillog_file_permissions, syslog_facility};
use self::network::network;
use self::reader::Reader;
pub use self::values::Values;
use super::disabled::Disabled;
use super::expand::expand;
use super::inet::Network;
use super::main_cf::Dictionary;
use super::numbers::{Level, boolean};
use super::text::{is_list_separator, shown};
use super::words::{Words, name_and_value, unbraced};
use super::{Diagnostics, Kind, Resolver, StandAlone, User};

/// One item of `import_environment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImportedVariable {
    /// `NAME`: taken from the master's own environment, if set there.
    Keep(String),
    /// `NAME=VALUE`: set to this value.
    Set(String, OsString),
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// Postfix's format.
    Text,
    /// One JSON object per line.
    Json,
    /// The native fields of systemd's journal.
    Journal,
}

/// The parameter values, expanded and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    pub daemon_directory: PathBuf,
    pub queue_directory: PathBuf,
    pub data_directory: PathBuf,
    /// The user's name and IDs; never root.
    pub mail_owner: (String, User),
    pub myhostname: String,
    /// The process limit of a service without a limit of its own; at least 1.
    pub default_process_limit: u32,
    /// At least one second.
    pub service_throttle_time: Duration,
    /// Not in Postfix: the time from the removal of a service until its children get SIGKILL; at
    /// least one second.
    pub service_kill_time: Duration,
    pub import_environment: Vec<ImportedVariable>,
    /// A facility name of syslog(3), such as `mail` or `local0`.
    pub syslog_facility: String,
    pub syslog_name: String,
    /// Not in Postfix.
    pub log_format: LogFormat,
    /// Empty to log to syslog.
    pub maillog_file: String,
    /// 0o644, 0o640 or 0o600.
    pub maillog_file_permissions: u32,
    pub postlog_service_name: String,
    /// The command that `-D` runs; may be empty.
    pub debugger_command: String,
    /// Not in Postfix: listen also on addresses that no network interface has yet.
    pub bind_missing_addresses: bool,
    /// `tcp_windowsize`: the size of socket buffers in bytes; 0 for the system's default.
    pub inet_windowsize: u32,
    /// Not in Postfix: whether a reload may find an empty service table.
    pub allow_empty_table: bool,
    /// Not in Postfix: the directory of further service tables.
    pub table_directory: Option<PathBuf>,
    /// Whether the installation is not a Postfix installation; then the master creates its
    /// directories.
    pub stand_alone: bool,
}

/// The parameters that the service table depends on. They are complete even if some parameters have
/// errors, so that errors in the table are found in the same run.
#[derive(Debug)]
pub(super) struct TableSettings {
    pub(super) daemon_directory: PathBuf,
    pub(super) default_process_limit: u32,
    pub(super) service_throttle_time: Duration,
    /// Whether the default of the chroot column is still `y`.
    pub(super) chroot: bool,
    /// Whether a command that begins with `/` is an absolute path.
    pub(super) absolute_commands: bool,
    pub(super) network: Network,
    pub(super) disabled: Disabled,
}

/// The parameters that the master reads, and their defaults. The defaults of `myhostname` and
/// `mydomain` are computed from the machine's name.
const DEFAULTS: [(&str, &str); 26] = [
    ("allow_empty_table", "no"),
    ("bind_missing_addresses", "no"),
    ("compatibility_level", "0"),
    ("daemon_directory", "/usr/lib/postfix/sbin"),
    ("data_directory", "/var/lib/postfix"),
    ("debugger_command", ""),
    ("default_process_limit", "100"),
    (
        "import_environment",
        "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ XAUTHORITY DISPLAY LANG=C POSTLOG_SERVICE \
         POSTLOG_HOSTNAME",
    ),
    ("inet_interfaces", "all"),
    ("inet_protocols", "all"),
    (
        "known_tcp_ports",
        "lmtp=24, smtp=25, smtps=submissions=465, submission=587",
    ),
    ("log_format", "text"),
    ("mail_owner", "postfix"),
    ("maillog_file", ""),
    ("maillog_file_permissions", "0600"),
    ("maillog_file_prefixes", "/var, /dev/stdout"),
    ("master_service_disable", ""),
    ("multi_instance_name", ""),
    ("postlog_service_name", "postlog"),
    ("queue_directory", "/var/spool/postfix"),
    ("service_kill_time", "10s"),
    ("service_throttle_time", "60s"),
    ("syslog_facility", "mail"),
    (
        "syslog_name",
        "${multi_instance_name?{$multi_instance_name}:{postfix}}",
    ),
    ("table_directory", ""),
    ("tcp_windowsize", "0"),
];

/// The user of root's services without Postfix, if there is one with this name.
const OWN_USER: &str = "master";
/// Their user otherwise, as which programs of other origin run, too.
const SHARED_USER: &str = "nobody";

/// Defaults that differ in a stand-alone installation. Children need `PATH` to find their
/// interpreters, and `HOME` to find their files.
const STAND_ALONE_DEFAULTS: [(&str, &str); 6] = [
    ("compatibility_level", "3.6"),
    (
        "import_environment",
        "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG POSTLOG_SERVICE POSTLOG_HOSTNAME PATH HOME USER \
         LOGNAME SHELL TZ LANG LC_ALL XDG_RUNTIME_DIR XDG_STATE_HOME RUNTIME_DIRECTORY \
         STATE_DIRECTORY",
    ),
    ("mail_owner", SHARED_USER),
    ("syslog_facility", "daemon"),
    ("syslog_name", "master"),
    ("table_directory", "$config_directory/master.cf.d"),
];

/// Parameters of other programs that values of the parameters above are likely to refer to.
const REFERENCES: [(&str, &str); 8] = [
    ("command_directory", "/usr/sbin"),
    ("default_privs", "nobody"),
    ("mail_name", "Postfix"),
    ("meta_directory", "/etc/postfix"),
    ("multi_instance_group", ""),
    ("myorigin", "$myhostname"),
    ("setgid_group", "postdrop"),
    ("shlib_directory", "/usr/lib/postfix"),
];

/// The names of the parameters that the master reads.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let defaults = DEFAULTS.iter().map(|(name, _)| *name);
    defaults.chain(["mydomain", "myhostname"])
}

/// Whether a parameter is true or false.
pub(super) fn is_boolean(name: &str) -> bool {
    let default = DEFAULTS.iter().find(|(known, _)| *known == name);
    default.is_some_and(|(_, value)| boolean(value.as_bytes()).is_some())
}

/// Whether a parameter is a path that `master.toml` may write relative to its own directory.
pub(super) fn is_path(name: &str) -> bool {
    name.ends_with("_directory") || name == "maillog_file"
}

/// Sets the parameters that Postfix's programs set before they read `main.cf`.
pub(super) fn predefine(dictionary: &mut Dictionary, directory: &Path) {
    dictionary.define("config_directory", literal(directory));
    dictionary.define("process_name", "master");
}

/// Reads and checks the parameters. Returns `None` after an error, which is then in `findings`.
/// Values are expanded on demand: unlike in Postfix, a reference to a parameter with a default
/// always finds it, whatever the order.
pub(super) fn read(
    mut dictionary: Dictionary,
    stand_alone: Option<&StandAlone>,
    resolver: &dyn Resolver,
    findings: &mut Diagnostics,
) -> (Option<Parameters>, TableSettings) {
    let mut shares_nobody = false;
    if let Some(stand_alone) = stand_alone {
        // A file with an error may have a value that is not here.
        let is_default = dictionary.get(b"mail_owner").is_none() && !findings.has_errors();
        shares_nobody = stand_alone.user.is_none() && is_default;
        complete_stand_alone(&mut dictionary, stand_alone, resolver);
    }
    complete(&mut dictionary, &resolver.hostname(), resolver.process_id());
    let mut reader = Reader::new(&dictionary, findings);
    let owner = reader.string("mail_owner").unwrap_or_default();
    if shares_nobody && owner == SHARED_USER && resolver.user(SHARED_USER).is_some() {
        let warning = shared_user(&mut reader);
        reader.warn("mail_owner", warning);
    }
    let parameters = parameters(&mut reader, stand_alone, resolver);
    let table = table_settings(&mut reader, parameters.as_ref(), resolver);
    (parameters, table)
}

/// Sets the defaults of a stand-alone installation.
fn complete_stand_alone(
    dictionary: &mut Dictionary,
    stand_alone: &StandAlone,
    resolver: &dyn Resolver,
) {
    default_directories(dictionary, stand_alone);
    if stand_alone.user.is_some() {
        // This is safe: an unprivileged user cannot write to the files of other users.
        dictionary.default("maillog_file_prefixes", "/");
    }
    stand_alone_defaults(dictionary, resolver);
}

/// Services without Postfix have a user of their own if there is one with this name.
fn stand_alone_defaults(dictionary: &mut Dictionary, resolver: &dyn Resolver) {
    let is_unprivileged = |user: User| user.uid != 0 && user.gid != 0;
    if resolver.user(OWN_USER).is_some_and(is_unprivileged) {
        dictionary.default("mail_owner", OWN_USER);
    }
    for (name, value) in STAND_ALONE_DEFAULTS {
        dictionary.default(name, value);
    }
}

/// What is wrong with the user that all systems have, and what to do.
fn shared_user(reader: &mut Reader<'_>) -> String {
    let mut path = |name: &str| reader.string(name).unwrap_or_default();
    let (queue, data) = (path("queue_directory"), path("data_directory"));
    format!(
        "parameter mail_owner: the services run as {SHARED_USER}, and whatever else does can harm them: give them a user \
         of their own, with \"useradd --system {OWN_USER}\"; then stop the master, run \"chown -R \
         {OWN_USER}: {queue}/private {queue}/public {data}\", and start it"
    )
}

fn default_directories(dictionary: &mut Dictionary, stand_alone: &StandAlone) {
    for (name, path) in [
        ("daemon_directory", &stand_alone.daemon_directory),
        ("queue_directory", &stand_alone.queue_directory),
        ("data_directory", &stand_alone.data_directory),
    ] {
        dictionary.default(name, literal(path));
    }
}

/// The value that expands to a path: a dollar sign in the path is no reference.
fn literal(path: &Path) -> Vec<u8> {
    let parts: Vec<_> = path.as_os_str().as_bytes().split(|&b| b == b'$').collect();
    parts.join(b"$$".as_slice())
}

/// Sets the defaults of all parameters.
fn complete(dictionary: &mut Dictionary, hostname: &str, process_id: u32) {
    // Postfix sets this one last, so that no file can override it.
    dictionary.define("process_id", process_id.to_string());
    for (name, value) in DEFAULTS.into_iter().chain(REFERENCES) {
        dictionary.default(name, value);
    }
    let hostname = default_hostname(dictionary, hostname);
    dictionary.default("myhostname", hostname);
    let domain = default_domain(dictionary);
    dictionary.default("mydomain", domain);
}

/// The machine's name; the domain is appended if it has none.
fn default_hostname(dictionary: &Dictionary, name: &str) -> String {
    if name.contains('.') {
        name.to_owned()
    } else if dictionary.get(b"mydomain").is_some() {
        format!("{name}.$mydomain")
    } else {
        format!("{name}.{DEFAULT_DOMAIN}")
    }
}

const DEFAULT_DOMAIN: &str = "localdomain";

/// The text after the first dot of `myhostname`.
fn default_domain(dictionary: &Dictionary) -> Vec<u8> {
    // Errors in the value are reported when `myhostname` itself is read.
    let mut ignored = Diagnostics::default();
    let hostname = dictionary
        .get(b"myhostname")
        .and_then(|value| expand(value, dictionary, &mut ignored).ok())
        .unwrap_or_default();
    match hostname.iter().position(|&b| b == b'.') {
        Some(dot) => hostname[dot + 1..].to_vec(),
        None => DEFAULT_DOMAIN.into(),
    }
}

/// Reads all parameters, even after an error, to report all errors at once.
fn parameters(
    reader: &mut Reader<'_>,
    stand_alone: Option<&StandAlone>,
    resolver: &dyn Resolver,
) -> Option<Parameters> {
    let daemon_directory = reader.path("daemon_directory");
    let queue_directory = reader.path("queue_directory");
    let data_directory = reader.path("data_directory");
    let mail_owner = match stand_alone.and_then(|stand_alone| stand_alone.user) {
        Some(user) => Some(named(user, resolver)),
        None => mail_owner(reader, resolver),
    };
    let myhostname = myhostname(reader);
    let default_process_limit = reader.number("default_process_limit", 1);
    let service_throttle_time = reader.time("service_throttle_time");
    let service_kill_time = reader.time("service_kill_time");
    let import_environment = import_environment(reader);
    let syslog_facility = syslog_facility(reader);
    let syslog_name = reader.nonempty("syslog_name");
    let maillog_file = maillog_file(reader, stand_alone.is_some(), resolver);
    let log_format = log_format(reader, maillog_file.as_deref());
    let maillog_file_permissions = maillog_file_permissions(reader);
    let postlog_service_name = reader.nonempty("postlog_service_name");
    let debugger_command = reader.string("debugger_command");
    let bind_missing_addresses = reader.boolean("bind_missing_addresses");
    // As in Postfix, a negative size means the default.
    let inet_windowsize = reader.number("tcp_windowsize", i32::MIN);
    let allow_empty_table = reader.boolean("allow_empty_table");
    let table_directory = table_directory(reader);
    Some(Parameters {
        daemon_directory: daemon_directory?.into(),
        queue_directory: queue_directory?.into(),
        data_directory: data_directory?.into(),
        mail_owner: mail_owner?,
        myhostname: myhostname?,
        default_process_limit: default_process_limit?.unsigned_abs(),
        service_throttle_time: service_throttle_time?,
        service_kill_time: service_kill_time?,
        import_environment: import_environment?,
        syslog_facility: syslog_facility?,
        syslog_name: syslog_name?,
        log_format: log_format?,
        maillog_file: maillog_file?,
        maillog_file_permissions: maillog_file_permissions?,
        postlog_service_name: postlog_service_name?,
        debugger_command: debugger_command?,
        inet_windowsize: u32::try_from(inet_windowsize?).unwrap_or(0),
        bind_missing_addresses: bind_missing_addresses?,
        allow_empty_table: allow_empty_table?,
        table_directory: table_directory?,
        stand_alone: stand_alone.is_some(),
    })
}

/// `Some(None)` if there is no such directory.
fn table_directory(reader: &mut Reader<'_>) -> Option<Option<PathBuf>> {
    let name = "table_directory";
    let value = PathBuf::from(OsString::from_vec(reader.value(name)?));
    if value.as_os_str().is_empty() {
        return Some(None);
    }
    if !value.is_absolute() {
        let value = shown(value.as_os_str().as_bytes());
        let problem = format!("bad parameter value: {value}: expected an absolute path, or none");
        reader.reject(name, problem);
        return None;
    }
    Some(Some(value))
}

fn table_settings(
    reader: &mut Reader<'_>,
    parameters: Option<&Parameters>,
    resolver: &dyn Resolver,
) -> TableSettings {
    let level = compatibility_level(reader);
    let patterns = reader.value("master_service_disable").unwrap_or_default();
    let mut disabled = Disabled::parse(&patterns);
    let bind_missing = parameters.is_some_and(|p| p.bind_missing_addresses);
    let network = network(reader, bind_missing, resolver);
    if network.families.is_empty() {
        disabled.add_type(Kind::Inet.as_str());
    }
    TableSettings {
        daemon_directory: parameters.map_or_else(PathBuf::new, |p| p.daemon_directory.clone()),
        default_process_limit: parameters.map_or(1, |p| p.default_process_limit),
        service_throttle_time: parameters.map_or(Duration::ZERO, |p| p.service_throttle_time),
        chroot: level.is_some_and(|level| level < Level::ONE),
        absolute_commands: parameters.is_some_and(|p| p.stand_alone),
        network,
        disabled,
    }
}

fn compatibility_level(reader: &mut Reader<'_>) -> Option<Level> {
    let name = "compatibility_level";
    let value = reader.value(name)?;
    match Level::parse(&value) {
        Ok(level) => Some(level),
        Err(problem) => {
            reader.error(name, problem.to_string());
            None
        }
    }
}

/// The machine's name. As in Postfix, the domain, which is derived from it, must be valid, too.
fn myhostname(reader: &mut Reader<'_>) -> Option<String> {
    let hostname = reader.hostname("myhostname")?;
    reader.hostname("mydomain")?;
    Some(hostname)
}

/// A user with its name; the number if the user has no name, as in some containers.
fn named(user: User, resolver: &dyn Resolver) -> (String, User) {
    let name = resolver.user_name(user.uid);
    (name.unwrap_or_else(|| user.uid.to_string()), user)
}

/// An unprivileged user with only one name (Postfix, `mail_params.c`).
fn mail_owner(reader: &mut Reader<'_>, resolver: &dyn Resolver) -> Option<(String, User)> {
    let parameter = "mail_owner";
    let name = reader.nonempty(parameter)?;
    let Some(user) = resolver.user(&name) else {
        reader.reject(parameter, format!("unknown user name value: {name}"));
        return None;
    };
    if user.uid == 0 {
        reader.reject(parameter, format!("user {name} has privileged user ID"));
        return None;
    }
    if user.gid == 0 {
        reader.reject(parameter, format!("user {name} has privileged group ID"));
        return None;
    }
    match resolver.user_name(user.uid) {
        Some(other) if other != name => {
            let uid = user.uid;
            let message = format!("user {name} has the same user ID {uid} as user {other}");
            reader.reject(parameter, message);
            None
        }
        _ => Some((name, user)),
    }
}

fn import_environment(reader: &mut Reader<'_>) -> Option<Vec<ImportedVariable>> {
    let name = "import_environment";
    let value = reader.value(name)?;
    let mut words = Words::new(&value, is_list_separator);
    let mut variables = Vec::new();
    while let Some(range) = words.braced_word() {
        match imported_variable(&value[range]) {
            Ok(variable) => variables.push(variable),
            Err(problem) => {
                reader.reject(name, problem);
                return None;
            }
        }
    }
    Some(variables)
}

/// `NAME`, `NAME=VALUE` or `{ NAME = VALUE }`.
fn imported_variable(word: &[u8]) -> Result<ImportedVariable, String> {
    let text = unbraced(word).map_err(|(problem, _)| problem.to_string())?;
    let utf8 = |name: &[u8]| {
        let bad = || format!("expected a name in UTF-8: \"{}\"", shown(name));
        String::from_utf8(name.to_vec()).map_err(|_| bad())
    };
    if !text.contains(&b'=') {
        return utf8(text).map(ImportedVariable::Keep);
    }
    let (name, value) = name_and_value(text)
        .ok_or_else(|| format!("expected \"name = value\": \"{}\"", shown(text)))?;
    Ok(ImportedVariable::Set(
        utf8(name)?,
        OsString::from_vec(value.to_vec()),
    ))
}

#[cfg(test)]
mod tests;
