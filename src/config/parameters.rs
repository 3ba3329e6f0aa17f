//! The parameters of `main.cf` that the master itself reads, with Postfix's defaults.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::User;

/// One item of `import_environment`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportedVariable {
    /// `NAME`: kept when the master's own environment has it.
    Keep(String),
    /// `NAME=VALUE`: set.
    Set(String, OsString),
}

/// The values after expansion and checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub config_directory: PathBuf,
    pub daemon_directory: PathBuf,
    pub queue_directory: PathBuf,
    pub data_directory: PathBuf,
    /// The name, and the user with that name: never root.
    pub mail_owner: (String, User),
    pub myhostname: String,
    /// As written, to tell whether a reload changed it.
    pub inet_interfaces: String,
    /// As written, to tell whether a reload changed it.
    pub inet_protocols: String,
    pub default_process_limit: u32,
    pub service_throttle_time: Duration,
    /// Ours: how long a removed service's children may take to leave before SIGKILL.
    pub service_kill_time: Duration,
    pub import_environment: Vec<ImportedVariable>,
    pub syslog_facility: String,
    pub syslog_name: String,
    /// Empty: log to syslog.
    pub maillog_file: String,
    pub maillog_file_permissions: u32,
    pub postlog_service_name: String,
    /// The command that `-D` runs; empty when there is none.
    pub debugger_command: String,
    /// Bytes for the sockets' buffers; 0 leaves the system's choice.
    pub inet_windowsize: u32,
}
