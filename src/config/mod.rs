//! Reads configuration text into a [`Config`]. This module is pure: it uses no files, descriptors,
//! process IDs or clocks, and resolves names through the caller's [`Resolver`]. Every finding has a
//! file, a line, a column and what was expected. All findings of all files are collected before a
//! configuration is refused.

mod characters;
mod diagnostic;
mod disabled;
mod expand;
mod hostname;
mod inet;
mod limits;
mod lines;
mod listen;
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

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_derive::{Deserialize, Serialize};

pub use characters::is_invisible;
use diagnostic::Place;
pub use diagnostic::{Diagnostic, Diagnostics, Position, Severity};
pub use limits::{ChildLimits, StartLimit};
pub use listen::{AlsoListen, Endpoint, ListenAddress, SocketRights};
use main_cf::Dictionary;
use master_toml::ServiceTable;
pub use master_toml::nearest;
use parameters::TableSettings;
pub use parameters::{ImportedVariable, LogFormat, Parameters, SYSLOG_FACILITIES, Values};
pub use pool::{Accept, Pool, Ramp};
pub use service::{ByIdentity, Extra, Kind, RunOptions, Service, Wakeup};

/// The directory of further settings, beside `master.toml`.
pub const DROP_IN_SETTINGS: &str = "master.toml.d";

/// The content of one installation's configuration files, checked, with all names resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// The parameters that the master itself reads.
    pub parameters: Parameters,
    /// The services, in the order of the table; no two have the same [`Service::identity`].
    pub services: Vec<Arc<Service>>,
    /// Findings that do not prevent the use of the configuration.
    pub warnings: Vec<Diagnostic>,
}

/// The content of a file, and the name under which messages refer to it.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: PathBuf,
    pub text: Vec<u8>,
}

/// The files of one configuration, as read.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `config_directory`.
    pub directory: PathBuf,
    pub base: Base,
    pub master_cf: Source,
    /// Further tables, in the order in which they are read.
    pub more_tables: Vec<Source>,
    /// Optional settings that Postfix's files do not have.
    pub master_toml: Option<Source>,
    /// The severity of a file or program that users other than root can change; none if that does
    /// not matter.
    pub if_others_may_write: Option<Severity>,
    /// Further files of such settings, in the order in which they are read.
    pub more_toml: Vec<Source>,
    /// Whether the configuration is a directory, and so has directories of further files: a table
    /// that is named is all that is meant.
    pub has_drop_ins: bool,
}

/// The source of parameters that `master.toml` does not set.
#[derive(Clone, Debug)]
pub enum Base {
    /// A Postfix installation: its `main.cf`, and Postfix's defaults.
    Postfix(Source),
    /// There is no `main.cf`: defaults for services without Postfix.
    StandAlone(StandAlone),
}

/// The defaults that depend on the machine and on the user who runs the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandAlone {
    pub daemon_directory: PathBuf,
    pub queue_directory: PathBuf,
    pub data_directory: PathBuf,
    /// The user under which all programs run; `None` for root, who uses `mail_owner` instead.
    pub user: Option<User>,
}

impl Sources {
    /// The names of the files, in the order in which they are read.
    fn paths(&self) -> Vec<PathBuf> {
        let more = |sources: &[Source]| sources.iter().map(|s| s.path.clone()).collect::<Vec<_>>();
        [
            vec![self.first_path(), self.master_toml_path()],
            more(&self.more_toml),
            vec![self.master_cf.path.clone()],
            more(&self.more_tables),
        ]
        .concat()
    }

    /// The service tables.
    pub fn tables(&self) -> impl Iterator<Item = &Source> {
        std::iter::once(&self.master_cf).chain(&self.more_tables)
    }

    /// The files of settings that Postfix's files do not have.
    pub fn tomls(&self) -> impl Iterator<Item = &Source> {
        self.master_toml.iter().chain(&self.more_toml)
    }

    /// The file for findings about settings that no file contains.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// Access to the system's names. Tests replace it by a table.
pub trait Resolver {
    /// The machine's own name, from `gethostname(2)`.
    fn hostname(&self) -> String;
    /// The addresses of a host name. It is never called for a literal address.
    ///
    /// # Errors
    /// The system's explanation why there is none.
    fn host(&self, name: &str) -> Result<Vec<IpAddr>, String>;
    /// The port of a TCP service in services(5).
    fn tcp_service(&self, name: &str) -> Option<u16>;
    /// The addresses of all network interfaces that are up.
    fn interfaces(&self) -> Vec<IpAddr>;
    /// Whether programs of this machine can listen on an address.
    fn has_address(&self, address: IpAddr) -> bool;
    /// A user of passwd(5).
    fn user(&self, name: &str) -> Option<User>;
    /// The first name in passwd(5) that has this user ID.
    fn user_name(&self, uid: u32) -> Option<String>;
    /// The supplementary groups of a user of passwd(5), among them `gid`, the user's own.
    fn groups(&self, user: &str, gid: u32) -> Vec<u32>;
    /// A group of group(5).
    fn group(&self, name: &str) -> Option<u32>;
    /// The path without links, of a file or directory that is there.
    ///
    /// # Errors
    /// The system's explanation why there is none.
    fn real_path(&self, path: &Path) -> Result<PathBuf, String>;
    /// The real paths of a program and of its interpreter or loader, as far as they can be read.
    fn needed_files(&self, program: &Path) -> Vec<PathBuf>;
    /// The kernel's version of Landlock; 0 is none.
    fn landlock_version(&self) -> u32;
    /// Whether the kernel can create sockets of this family (Postfix, `inet_proto.c`).
    fn has_family(&self, family: Family) -> bool;
    /// The master's own process ID, for `$process_id`.
    fn process_id(&self) -> u32;
    /// Whether log lines can be appended to this path: a regular file, or a file that can be made.
    /// If the master writes the file `alone`, and no postlogd does, what only the master cannot do
    /// counts, too.
    ///
    /// # Errors
    /// What is in the way, and what is expected.
    fn check_log_file(&self, path: &Path, alone: bool) -> Result<(), String>;
    /// Whether only root can change what this path names.
    ///
    /// # Errors
    /// The file or directory on its way that others can change, and what to do.
    fn check_trust(&self, path: &Path) -> Result<(), String>;
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
        Self::read(sources, Severity::Warning, resolver)
    }

    /// Reads a configuration that replaces another one. If that `has_services`, an empty table is an
    /// error: it would end all of them, and is rarely meant.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_to_replace(
        sources: &Sources,
        has_services: bool,
        resolver: &dyn Resolver,
    ) -> Result<Self, Diagnostics> {
        let if_empty = if has_services {
            Severity::Error
        } else {
            Severity::Warning
        };
        Self::read(sources, if_empty, resolver)
    }

    fn read(
        sources: &Sources,
        if_empty: Severity,
        resolver: &dyn Resolver,
    ) -> Result<Self, Diagnostics> {
        let mut findings = Diagnostics::default();
        let (parameters, settings, tables) = sources.parameters(resolver, &mut findings);
        let allows_empty = parameters.as_ref().is_some_and(|p| p.allow_empty_table);
        let if_empty = (!allows_empty).then_some(if_empty);
        let mut services = master_cf::parse(sources, &settings, if_empty, resolver, &mut findings);
        let system = master_toml::System {
            resolver,
            base: &sources.base,
            directory: &sources.directory,
            parameters: parameters.as_ref(),
            network: &settings.network,
        };
        master_toml::apply(
            tables,
            &mut services,
            &settings.disabled,
            system,
            &mut findings,
        );
        let table_directory = parameters
            .as_ref()
            .and_then(|p| p.table_directory.as_deref());
        sources.check_trust(table_directory, &services, resolver, &mut findings);
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

    /// The services as a minimal `master.cf`: without comments, defaults, and disabled or
    /// overridden entries. With the same parameters it gives the same services.
    pub fn master_cf(&self) -> Vec<u8> {
        master_cf::print(&self.services)
    }
}

impl Parameters {
    /// Reads only the parameters, even if the service table has errors.
    ///
    /// # Errors
    /// As [`Config::parse`], without errors in the service table.
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
    /// Finds files and programs that users other than root can change: they could have root run what
    /// they like.
    fn check_trust(
        &self,
        table_directory: Option<&Path>,
        services: &[Arc<Service>],
        resolver: &dyn Resolver,
        findings: &mut Diagnostics,
    ) {
        let Some(severity) = self.if_others_may_write else {
            return;
        };
        // Each is told once, where it is met first.
        let mut told = BTreeSet::new();
        let mut check = |file: &Path, line: Option<u32>, path: &Path, what: String| {
            let Err(problem) = resolver.check_trust(path) else {
                return;
            };
            if told.insert(problem.clone()) {
                findings.0.push(Diagnostic {
                    severity,
                    path: file.to_owned(),
                    position: line.map(|line| Position { line, column: 1 }),
                    message: format!("root {what}, and {problem}"),
                });
            }
        };
        let files = match &self.base {
            Base::Postfix(main_cf) => Some(main_cf),
            Base::StandAlone(_) => None,
        };
        let files = files.into_iter().chain(self.tables()).chain(self.tomls());
        for Source { path, .. } in files {
            check(path, None, path, "reads this file".to_owned());
        }
        // A file can be added to an empty directory, too.
        let settings = self.directory.join(DROP_IN_SETTINGS);
        let settings = self.has_drop_ins.then_some(&*settings);
        for path in settings.into_iter().chain(table_directory) {
            check(path, None, path, "reads this directory".to_owned());
        }
        let mut programs = BTreeSet::new();
        for service in services.iter().filter(|service| !service.has_user()) {
            if programs.insert(&service.path) {
                let what = format!("runs {}", service.path.display());
                check(&service.table, Some(service.line), &service.path, what);
            }
        }
    }

    /// Where there are no drop-in directories, removes the setting of one. Returns its place.
    fn close(&self, dictionary: &mut Dictionary) -> Option<Place> {
        if self.has_drop_ins {
            return None;
        }
        let set = dictionary.get(b"table_directory").map(|text| text.place(0));
        dictionary.define("table_directory", "");
        set
    }

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
        let tables = master_toml::merge_all(self.tomls(), &mut dictionary, findings);
        if let Some(set) = self.close(&mut dictionary) {
            let message = "\"table_directory\" has no effect: the service table is named with -c";
            findings.push(Diagnostic::warning(set, message));
        }
        let (parameters, settings) = parameters::read(dictionary, stand_alone, resolver, findings);
        (parameters, settings, tables)
    }
}

#[cfg(test)]
mod tests;
