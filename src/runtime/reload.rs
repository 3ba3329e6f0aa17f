//! A reload, from the signal to its end. It is a transaction: everything is read, checked and
//! opened first, and only then does anything change. Host names may wait for a name server, so
//! another process looks them up, while the master serves on; all else is done in one go.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::load::log_error;
use super::{Ready, Runtime};
use crate::config::{Config, Family, Resolver, Sources, User};
use crate::errors::describe_error;
use crate::files::Names;
use crate::log::Severity;
use crate::policy::Time;
use crate::sys::lookup::{Answer, Lookup};
use crate::sys::poll::Interest;
use crate::sys::process;

/// How long a reload waits for all of its host names. (The resolver's own limits, resolv.conf(5),
/// are for each name and each server.)
const NAMES_TIME: Duration = Duration::from_secs(60);
/// When it waits longer than this, the log says what for.
const NAMES_SLOW: Duration = Duration::from_secs(2);

/// A reload that has begun.
#[derive(Debug)]
struct Reload {
    sources: Sources,
    /// What is known of the hosts that these name.
    hosts: BTreeMap<String, Answer>,
    /// When those that are not known by then have no address.
    until: Time,
}

/// A reload that waits for host names.
#[derive(Debug)]
pub(super) struct Waiting {
    reload: Reload,
    lookup: Lookup,
    /// When to say so, if that was not said yet.
    slow_at: Option<Time>,
}

impl Waiting {
    pub(super) fn next_deadline(&self) -> Time {
        self.slow_at.unwrap_or(self.reload.until)
    }
}

/// The system's names; of hosts those that are known, and a note of the others.
struct KnownHosts<'a> {
    known: &'a BTreeMap<String, Answer>,
    unknown: RefCell<BTreeSet<String>>,
}

impl Resolver for KnownHosts<'_> {
    fn host(&self, name: &str) -> Answer {
        let unknown = || {
            self.unknown.borrow_mut().insert(name.to_owned());
            Err("not looked up yet".to_owned())
        };
        self.known.get(name).cloned().unwrap_or_else(unknown)
    }

    fn hostname(&self) -> String {
        Names.hostname()
    }

    fn tcp_service(&self, name: &str) -> Option<u16> {
        Names.tcp_service(name)
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        Names.interfaces()
    }

    fn user(&self, name: &str) -> Option<User> {
        Names.user(name)
    }

    fn user_name(&self, uid: u32) -> Option<String> {
        Names.user_name(uid)
    }

    fn has_family(&self, family: Family) -> bool {
        Names.has_family(family)
    }

    fn process_id(&self) -> u32 {
        Names.process_id()
    }

    fn check_log_file(&self, path: &Path) -> Result<(), String> {
        Names.check_log_file(path)
    }
}

impl Runtime {
    /// Begins a reload that is asked for, or goes on with one that has its names or has waited long
    /// enough for them. Tells whether it did.
    pub(super) fn see_to_reload(&mut self, now: Time) -> bool {
        if !self.chores.are_done() {
            // That of the last one is not.
            return false;
        }
        if mem::take(&mut self.turn.reload) {
            self.begin_reload(now);
            return true;
        }
        let Some(waiting) = &mut self.reloading else {
            return false;
        };
        let all_there = match mem::take(&mut self.turn.answered) {
            true => waiting.lookup.read(),
            false => Ok(false),
        };
        let why_missing = match all_there {
            Ok(true) => "whoever looked it up has died".to_owned(),
            Ok(false) if waiting.reload.until <= now => {
                format!("no answer within {} s", NAMES_TIME.as_secs())
            }
            Ok(false) => {
                self.tell_of_slow_names(now);
                return false;
            }
            Err(error) => describe_error(&error),
        };
        if let Some(Waiting {
            mut reload, lookup, ..
        }) = self.stop_waiting_for_names()
        {
            reload.hosts.extend(lookup.into_answers(&why_missing));
            self.reload(now, reload);
        }
        true
    }

    /// Reads the configuration again. A reload that still waits for names is over: since it began,
    /// somebody may have corrected these.
    fn begin_reload(&mut self, now: Time) {
        self.stop_waiting_for_names();
        self.log.info(format!(
            "reload -- version {}, configuration {}",
            env!("CARGO_PKG_VERSION"),
            self.setup.location.path().display()
        ));
        self.setup.supervisor.reloading();
        match self.setup.location.read() {
            Ok(sources) => {
                let reload = Reload {
                    sources,
                    hosts: BTreeMap::new(),
                    until: now + NAMES_TIME,
                };
                self.reload(now, reload);
            }
            Err(error) => self.end_reload(Err(error)),
        }
    }

    /// Puts what was read in force, unless there are host names in it that are to be looked up.
    fn reload(&mut self, now: Time, reload: Reload) {
        let names = KnownHosts {
            known: &reload.hosts,
            unknown: RefCell::default(),
        };
        let config = Config::parse(&reload.sources, &names);
        let unknown = names.unknown.into_inner();
        if unknown.is_empty() {
            return self.end_reload(config.map_err(Into::into));
        }
        match self.look_up(unknown) {
            Ok(lookup) => {
                self.reloading = Some(Waiting {
                    reload,
                    lookup,
                    slow_at: Some(now + NAMES_SLOW),
                });
            }
            Err(error) => {
                let error = Err(error).context("cannot look host names up");
                self.end_reload(error);
            }
        }
    }

    fn look_up(&self, hosts: BTreeSet<String>) -> io::Result<Lookup> {
        let lookup = Lookup::start(hosts.into_iter().collect())?;
        let key = Ready::Names.key();
        self.poll.add(lookup.as_fd(), key, Interest::Readable)?;
        Ok(lookup)
    }

    fn tell_of_slow_names(&mut self, now: Time) {
        let Some(waiting) = &mut self.reloading else {
            return;
        };
        if waiting.slow_at.is_none_or(|at| now < at) {
            return;
        }
        waiting.slow_at = None;
        if let Some(host) = waiting.lookup.current() {
            self.log.warning(format!(
                "the reload waits for a name server: looking up \"{host}\""
            ));
        }
    }

    /// Nobody looks names up any more.
    pub(super) fn stop_waiting_for_names(&mut self) -> Option<Waiting> {
        let waiting = self.reloading.take()?;
        // It was added.
        let _ = self.poll.remove(&waiting.lookup);
        Some(waiting)
    }

    /// Puts a configuration in force, or says why not and changes nothing.
    fn end_reload(&mut self, config: anyhow::Result<Config>) {
        self.log.keep_lines();
        let prepared = config.and_then(|mut config| {
            self.keep_directories(&mut config);
            self.prepare(config)
        });
        let succeeded = prepared.is_ok();
        match prepared {
            Ok(prepared) => {
                let what = prepared.to_string();
                // There may have been much to open; what is to be given time has all of it.
                self.commit(self.setup.clock.now(), prepared);
                process::trim_memory();
                self.log.info(format!("reload done: {what}"));
                self.setup.supervisor.ready(&self.state());
            }
            Err(error) => {
                let configuration = self.setup.location.path().display().to_string();
                log_error(&mut self.log, Severity::Error, &error);
                self.log.error(format!(
                    "reload failed and changed nothing: the former configuration stays in force; \
                     correct {configuration} and reload again"
                ));
                let state = format!("{}, but the last reload failed: see the log", self.state());
                self.setup.supervisor.ready(&state);
            }
        }
        let findings = self.log.take_kept();
        let now = self.setup.clock.now();
        self.history.reloaded(now, succeeded, findings);
        self.readers.renew();
    }

    /// The directories that are locked stay what they are.
    fn keep_directories(&mut self, config: &mut Config) {
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
        let whole = match old.stand_alone {
            true => "the master",
            false => "Postfix",
        };
        for (name, old, new) in pairs {
            if old != new {
                self.log.warning(format!(
                    "ignoring {name} parameter value change\n\
                     old value: \"{}\", new value: \"{}\"\n\
                     to change {name}, stop and start {whole}",
                    old.display(),
                    new.display()
                ));
                new.clone_from(old);
            }
        }
    }
}
