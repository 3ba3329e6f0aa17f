//! Text to [`Config`]: pure, no files, descriptors, pids or clock. Names are resolved by the caller,
//! behind [`Resolver`]. Every finding has a file, a line, a column and what was expected,
//! and all findings of all files are collected before anything is refused.

mod diagnostic;
mod disabled;
mod expand;
mod hostname;
mod inet;
mod limits;
mod lines;
mod main_cf;
mod master_cf;
mod master_toml;
mod numbers;
mod parameters;
mod pool;
mod service;
#[cfg(test)]
mod testing;
mod text;
mod words;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diagnostic::Place;
pub use diagnostic::{Diagnostic, Diagnostics, Position, Severity};
pub use limits::ChildLimits;
use main_cf::Dictionary;
use master_toml::ServiceTable;
pub use master_toml::nearest;
use parameters::TableSettings;
pub use parameters::{ImportedVariable, LogFormat, Parameters, SYSLOG_FACILITIES, Values};
pub use pool::{Accept, Pool, Ramp};
pub use service::{ByIdentity, Endpoint, Extra, Kind, RunOptions, Service, Wakeup};

/// What one installation's files say, checked and with all names resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// The parameters that the master itself reads.
    pub parameters: Parameters,
    /// The services, in the order of the table; no two have the same [`Service::identity`].
    pub services: Vec<Arc<Service>>,
    /// What deserves attention but does not stand in the way.
    pub warnings: Vec<Diagnostic>,
}

/// A file's name for messages, and what is in it.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: PathBuf,
    pub text: Vec<u8>,
}

/// The files of one configuration, as they were read.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `config_directory`.
    pub directory: PathBuf,
    pub base: Base,
    pub master_cf: Source,
    /// Optional settings that neither of Postfix's files has room for.
    pub master_toml: Option<Source>,
}

/// Where parameters have their values from that `master.toml` does not set.
#[derive(Clone, Debug)]
pub enum Base {
    /// A Postfix installation: its `main.cf`, and Postfix's defaults.
    Postfix(Source),
    /// There is no `main.cf`: defaults for services without Postfix.
    StandAlone(StandAlone),
}

/// The defaults that depend on the machine and on the user that runs the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandAlone {
    pub daemon_directory: PathBuf,
    pub queue_directory: PathBuf,
    pub data_directory: PathBuf,
    /// The user that everything runs as; none for root, where `mail_owner` has that part.
    pub user: Option<User>,
}

impl Sources {
    /// The names of the files, in the order in which they are read.
    fn paths(&self) -> Vec<PathBuf> {
        vec![
            self.first_path(),
            self.master_toml_path(),
            self.master_cf.path.clone(),
        ]
    }

    /// The file that findings name which are about what no file says.
    fn first_path(&self) -> PathBuf {
        match &self.base {
            Base::Postfix(main_cf) => main_cf.path.clone(),
            Base::StandAlone(_) => self.master_toml_path(),
        }
    }

    fn master_toml_path(&self) -> PathBuf {
        match &self.master_toml {
            Some(source) => source.path.clone(),
            None => self.directory.join("master.toml"),
        }
    }
}

/// A user of the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// The system's names, replaced by a table in tests.
pub trait Resolver {
    /// The machine's own name, as `gethostname(2)` has it.
    fn hostname(&self) -> String;
    /// The addresses of a host name (never called for a literal address).
    ///
    /// # Errors
    /// The system's words on why there is none.
    fn host(&self, name: &str) -> Result<Vec<IpAddr>, String>;
    /// The port of a TCP service in services(5).
    fn tcp_service(&self, name: &str) -> Option<u16>;
    /// The addresses of all network interfaces that are up.
    fn interfaces(&self) -> Vec<IpAddr>;
    /// A user of passwd(5).
    fn user(&self, name: &str) -> Option<User>;
    /// The first name in passwd(5) for a user ID.
    fn user_name(&self, uid: u32) -> Option<String>;
    /// Whether the kernel can create sockets of this family (Postfix, `inet_proto.c`).
    fn has_family(&self, family: Family) -> bool;
    /// The master's own process ID, for `$process_id`.
    fn process_id(&self) -> u32;
    /// Whether log lines can be appended to what is at this path: a regular file, or nothing yet.
    ///
    /// # Errors
    /// What it is instead, and what is expected.
    fn check_log_file(&self, path: &Path) -> Result<(), String>;
}

/// The two network protocols of `inet_protocols`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Config {
    /// Reads a whole configuration.
    ///
    /// # Errors
    /// All findings of all files, warnings included, when at least one of them is an error.
    pub fn parse(sources: &Sources, resolver: &dyn Resolver) -> Result<Self, Diagnostics> {
        let mut findings = Diagnostics::default();
        let (parameters, settings, tables) = sources.parameters(resolver, &mut findings);
        let mut services = master_cf::parse(&sources.master_cf, &settings, resolver, &mut findings);
        master_toml::apply(tables, &mut services, &settings.disabled, &mut findings);
        findings.tidy(&sources.paths());
        match parameters {
            Some(parameters) if !findings.has_errors() => Ok(Self {
                parameters,
                services,
                warnings: findings.0,
            }),
            _ => Err(findings),
        }
    }

    /// The services as a `master.cf` that says the same beside the same parameters: without
    /// comments, defaults and what is disabled or overridden.
    pub fn master_cf(&self) -> Vec<u8> {
        master_cf::print(&self.services)
    }
}

impl Parameters {
    /// Reads only the parameters, whether or not the service table is in order.
    ///
    /// # Errors
    /// As [`Config::parse`], without the table's.
    pub fn parse(sources: &Sources, resolver: &dyn Resolver) -> Result<Self, Diagnostics> {
        let mut findings = Diagnostics::default();
        let (parameters, ..) = sources.parameters(resolver, &mut findings);
        findings.tidy(&sources.paths());
        match parameters {
            Some(parameters) if !findings.has_errors() => Ok(parameters),
            _ => Err(findings),
        }
    }
}

impl Sources {
    fn parameters(
        &self,
        resolver: &dyn Resolver,
        findings: &mut Diagnostics,
    ) -> (Option<Parameters>, TableSettings, Vec<ServiceTable>) {
        let mut dictionary = Dictionary::new(&self.first_path());
        parameters::predefine(&mut dictionary, &self.directory);
        let stand_alone = match &self.base {
            Base::Postfix(main_cf) => {
                dictionary.load(main_cf, findings);
                None
            }
            Base::StandAlone(stand_alone) => Some(stand_alone),
        };
        let tables = match &self.master_toml {
            Some(master_toml) => master_toml::merge(master_toml, &mut dictionary, findings),
            None => Vec::new(),
        };
        let (parameters, settings) = parameters::read(dictionary, stand_alone, resolver, findings);
        (parameters, settings, tables)
    }
}

#[cfg(test)]
mod tests;
