//! What the parameters mean for the environment of the children, and for the log.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::config::{self, Diagnostics, ImportedVariable, LogFormat, Parameters};
use crate::errors::describe_error;
use crate::log::{Format, JOURNAL, Log, Settings, Severity, Target, Terminal};

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

/// `NAME=VALUE`, as programs inherit them. A text with a zero byte is no variable.
pub(super) fn as_strings(variables: BTreeMap<OsString, OsString>) -> Vec<CString> {
    let strings = variables.into_iter().filter_map(|(name, value)| {
        let mut string = name;
        string.push("=");
        string.push(value);
        CString::new(string.into_vec()).ok()
    });
    strings.collect()
}

/// The log's settings according to the parameters.
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

/// Logs an error with this severity. The warnings among a configuration's findings stay warnings.
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
