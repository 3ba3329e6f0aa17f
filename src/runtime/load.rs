//! From files to a configuration in force: at start, and again at each reload. A reload is a
//! transaction: everything is read, checked and opened first, and only then does anything change.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};

use super::opening::{self, Opened};
use super::ports::Adopted;
use super::{Event, Runtime};
use crate::config::{
    self, Config, Diagnostics, Family, ImportedVariable, Parameters, Resolver, Source, Sources,
    User,
};
use crate::log::{Log, Settings, Severity, Target, Terminal, reason};
use crate::policy::{Plan, Time};
use crate::sys::spawn::Environment;
use crate::sys::{listen, names, process};

/// A configuration file that is larger is none.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Where the configuration is.
#[derive(Clone, Debug)]
pub struct Location {
    /// Absolute, because the working directory changes.
    pub directory: PathBuf,
}

impl Location {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file could not be read, and why.
    pub fn read(&self) -> anyhow::Result<Sources> {
        let mut sources = self.read_parameters()?;
        sources.master_cf = read(sources.master_cf.path)?;
        Ok(sources)
    }

    /// Reads the files with parameters; the service table is left empty.
    ///
    /// # Errors
    /// Which file could not be read, and why.
    pub fn read_parameters(&self) -> anyhow::Result<Sources> {
        let toml = self.directory.join("master.toml");
        Ok(Sources {
            directory: self.directory.clone(),
            main_cf: self.read_main_cf()?,
            master_cf: Source {
                path: self.directory.join("master.cf"),
                text: Vec::new(),
            },
            master_toml: toml
                .symlink_metadata()
                .is_ok()
                .then(|| read(toml))
                .transpose()?,
        })
    }

    fn read_main_cf(&self) -> anyhow::Result<Source> {
        let path = self.directory.join("main.cf");
        ensure!(
            path.symlink_metadata().is_ok(),
            "{} does not exist: name the directory that has main.cf and master.cf with -c",
            path.display()
        );
        read(path)
    }
}

fn read(path: PathBuf) -> anyhow::Result<Source> {
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut text = Vec::with_capacity(size.min(FILE_MAX) as usize + 1);
    file.take(FILE_MAX + 1)
        .read_to_end(&mut text)
        .with_context(|| format!("read {}", path.display()))?;
    ensure!(
        text.len() as u64 <= FILE_MAX,
        "{}: larger than {FILE_MAX} bytes, which no configuration is",
        path.display()
    );
    Ok(Source { path, text })
}

/// The environment in which the master was started.
pub type Inherited = BTreeMap<OsString, OsString>;

/// The system's names, for the configuration.
#[derive(Debug)]
pub struct Names;

impl Resolver for Names {
    fn hostname(&self) -> String {
        names::hostname()
    }

    fn host(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        names::host(name).map_err(|error| error.to_string())
    }

    fn tcp_service(&self, name: &str) -> Option<u16> {
        names::tcp_service(name)
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        names::interfaces()
    }

    fn user(&self, name: &str) -> Option<User> {
        let (uid, gid) = names::user(name)?;
        Some(User { uid, gid })
    }

    fn user_name(&self, uid: u32) -> Option<String> {
        names::user_name(uid)
    }

    fn has_family(&self, family: Family) -> bool {
        names::has_inet_family(family == Family::Ipv6)
    }

    fn process_id(&self) -> u32 {
        std::process::id()
    }
}

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
        terminal,
    }
}

/// Writes what went wrong with this severity. What the configuration was only warned about stays
/// a warning.
pub fn log_error(log: &mut Log, severity: Severity, error: &anyhow::Error) {
    let Some(findings) = error.downcast_ref::<Diagnostics>() else {
        return log.write(severity, reason(error.as_ref()));
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
        let opened = opening::open(&self.ports, &plan, &config);
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
        let adopted = self.ports.adopt(&plan, opened.keep(), &self.poll);
        let Adopted { unwatched, dropped } = adopted;
        for id in unwatched {
            self.watch(now, id);
        }
        self.step(now, Event::Reload(plan));
        dropped.iter().for_each(listen::shut_down);
    }

    /// Reads the configuration again and puts it in force, or says why not and changes nothing.
    pub(super) fn reload(&mut self) {
        let version = env!("CARGO_PKG_VERSION");
        let directory = self.setup.location.directory.display().to_string();
        self.log.info(format!(
            "reload -- version {version}, configuration {directory}"
        ));
        let prepared = self.load_again().and_then(|config| self.prepare(config));
        match prepared {
            Ok(prepared) => {
                let what = prepared.to_string();
                // Names may have been slow to resolve; what is to be given time has all of it.
                self.commit(self.setup.clock.now(), prepared);
                self.log.info(format!("reload done: {what}"));
            }
            Err(error) => {
                log_error(&mut self.log, Severity::Error, &error);
                self.log.error(format!(
                    "reload failed and changed nothing: the former configuration stays in force; \
                     correct {directory} and reload again"
                ));
            }
        }
    }

    /// Reads the configuration for a reload, which cannot change the directories that are locked.
    fn load_again(&mut self) -> anyhow::Result<Config> {
        let sources = self.setup.location.read()?;
        let mut config = Config::parse(&sources, &Names)?;
        let (old, new) = (&self.config.parameters, &mut config.parameters);
        let pairs = [
            (
                "queue_directory",
                &old.queue_directory,
                &mut new.queue_directory,
            ),
            (
                "data_directory",
                &old.data_directory,
                &mut new.data_directory,
            ),
        ];
        for (name, old, new) in pairs {
            if old != new {
                self.log.warning(format!(
                    "ignoring {name} parameter value change\n\
                     old value: \"{}\", new value: \"{}\"\n\
                     to change {name}, stop and start Postfix",
                    old.display(),
                    new.display()
                ));
                new.clone_from(old);
            }
        }
        Ok(config)
    }
}
