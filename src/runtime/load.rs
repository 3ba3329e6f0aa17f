//! A configuration is put in force, at start and again at each reload: everything is opened first,
//! and only then does anything change.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::opening::{self, Opened};
use super::ports::Adopted;
use super::{Event, Runtime};
use crate::config::{self, Config, Diagnostics, ImportedVariable, LogFormat, Parameters};
use crate::errors::describe_error;
use crate::log::{Format, JOURNAL, Log, Settings, Severity, Target, Terminal};
use crate::policy::{Plan, Time};
use crate::sys::spawn::Environment;
use crate::sys::{listen, process};

/// The environment in which the master was started.
pub type Inherited = BTreeMap<OsString, OsString>;

/// The environment of the children: what `import_environment` lets through or sets, and what
/// Postfix's programs tell each other in this way (Postfix, `mail_params.c`, `maillog_client.c`).
pub fn environment(parameters: &Parameters, inherited: &Inherited) -> BTreeMap<OsString, OsString> {
    let mut variables = BTreeMap::new();
    for variable in &parameters.import_environment {
        match variable {
            ImportedVariable::Keep(name) => {
                let name = OsString::from(name);
                let value = inherited.get(&name).cloned();
                variables.extend(value.map(|value| (name, value)));
            }
            ImportedVariable::Set(name, value) => {
                variables.insert(name.into(), value.clone());
            }
        }
    }
    variables.insert("MAIL_LOGTAG".into(), parameters.syslog_name.clone().into());
    variables.remove(Path::new("POSTLOG_SERVICE").as_os_str());
    variables.remove(Path::new("POSTLOG_HOSTNAME").as_os_str());
    if !parameters.maillog_file.is_empty() {
        let socket = postlog_socket(parameters).into_os_string();
        let hostname = parameters.myhostname.clone().into();
        variables.insert("POSTLOG_SERVICE".into(), socket);
        variables.insert("POSTLOG_HOSTNAME".into(), hostname);
    }
    variables
}

fn postlog_socket(parameters: &Parameters) -> PathBuf {
    let queue = &parameters.queue_directory;
    queue.join("public").join(&parameters.postlog_service_name)
}

/// `NAME=VALUE`, as programs are given them; what holds a zero byte is no variable.
fn as_strings(variables: BTreeMap<OsString, OsString>) -> Vec<CString> {
    let strings = variables.into_iter().filter_map(|(name, value)| {
        let mut string = name;
        string.push("=");
        string.push(value);
        CString::new(string.into_vec()).ok()
    });
    strings.collect()
}

/// Where the parameters have the log go.
pub fn log_settings(parameters: &Parameters, terminal: Terminal) -> Settings {
    let target = match parameters.maillog_file.as_str() {
        "" if parameters.log_format == LogFormat::Journal => Target::Journal {
            socket: JOURNAL.into(),
            facility: parameters.syslog_facility.clone(),
        },
        "" => Target::Syslog {
            facility: parameters.syslog_facility.clone(),
        },
        file => Target::Postlog {
            socket: postlog_socket(parameters),
            file: Some(file.into()),
            permissions: parameters.maillog_file_permissions,
            hostname: parameters.myhostname.clone(),
        },
    };
    Settings {
        tag: format!("{}/master", parameters.syslog_name),
        target,
        format: match parameters.log_format {
            LogFormat::Json => Format::Json,
            LogFormat::Text | LogFormat::Journal => Format::Text,
        },
        terminal,
    }
}

/// Writes what went wrong with this severity. What the configuration was only warned about stays
/// a warning.
pub fn log_error(log: &mut Log, severity: Severity, error: &anyhow::Error) {
    let Some(findings) = error.downcast_ref::<Diagnostics>() else {
        return log.write(severity, describe_error(error.as_ref()));
    };
    for finding in &findings.0 {
        match finding.severity {
            config::Severity::Warning => log.warning(finding),
            config::Severity::Error => log.write(severity, finding),
        }
    }
}

/// A configuration that can be put in force without anything going wrong.
pub(super) struct Prepared {
    config: Config,
    plan: Plan,
    opened: Opened,
}

/// What changes: `services: 1 added, 2 removed, 30 kept`.
impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.plan.entries.iter().filter(|e| e.known).count();
        let added = self.plan.entries.len() - kept;
        let removed = self.plan.removed.len();
        write!(f, "services: {added} added, {removed} removed, {kept} kept")
    }
}

impl Runtime {
    /// Opens what a configuration needs and does not have yet; changes nothing.
    ///
    /// # Errors
    /// All endpoints that cannot be opened, one a line.
    pub(super) fn prepare(&self, config: Config) -> anyhow::Result<Prepared> {
        let kill_time = config.parameters.service_kill_time;
        let plan = self.table.plan(&config.services, kill_time);
        let opened = opening::open(&self.ports, &self.handed, &plan, &config);
        let opened = opened.map_err(|errors| anyhow!(errors.join("\n")))?;
        Ok(Prepared {
            config,
            plan,
            opened,
        })
    }

    /// Puts a configuration in force.
    pub(super) fn commit(&mut self, now: Time, prepared: Prepared) {
        let Prepared {
            config,
            plan,
            opened,
        } = prepared;
        let variables = environment(&config.parameters, &self.setup.inherited);
        process::set_environment(&variables);
        self.environment = Environment::new(as_strings(variables));
        let terminal = self.log.settings().terminal;
        self.log.set(log_settings(&config.parameters, terminal));
        self.log.catch_panics();
        // It knows the log's former descriptor.
        self.watchdog_at = None;
        for warning in &config.warnings {
            self.log.warning(warning);
        }
        self.config = config;
        let kept = opened.keep();
        self.handed
            .retain(|handed| !kept.taken_over.contains(handed.address()));
        let adopted = self.ports.adopt(&plan, kept, &self.poll);
        let Adopted { unwatched, dropped } = adopted;
        for id in unwatched {
            self.watch(now, id);
        }
        self.step(now, Event::Reload(plan));
        // All children that there were have been told to leave, and are not heard any more.
        for (id, _) in self.table.services() {
            self.reports.forget(id, &self.poll);
        }
        // Where there is not much to do, it is done when this is said to be done.
        self.do_chores();
        self.history.loaded(now);
        dropped.iter().for_each(listen::shut_down);
    }
}
