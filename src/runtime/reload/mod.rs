//! A reload, from the signal to its end. It is a transaction: all is read, checked and opened
//! first, and only then does anything change. Host names may wait for a name server, so another
//! process looks them up while the master serves. What a change asks for (signals, channels to
//! close, listeners to watch) is carried out over some turns; then the reload is done.

mod commit;
mod foreign;
mod listeners;
mod names;
mod opened;
mod templates;

use std::mem;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Config, Sources};
use crate::log::Severity;
use crate::policy::Time;
use crate::sys::lookup::Question;
use crate::sys::poll::Poll;
use crate::sys::process;
use crate::upgrade::History;

use super::Runtime;
use super::services::{Listeners, close_listeners};
use super::settings::{as_strings, environment, log_error};
pub use names::Names;

pub(super) use listeners::{is_for, open_again};

/// When it waits longer than this, the log says what for.
const NAMES_SLOW: Duration = Duration::from_secs(2);

/// A reload whose configuration is in force, while the changes are being carried out.
#[derive(Debug)]
struct Committed {
    /// What has changed, in words.
    what: String,
    /// The warnings.
    findings: Vec<String>,
    /// Listeners to close then.
    replaced: Listeners,
}

/// A reload that waits for host names.
#[derive(Debug)]
struct Waiting {
    sources: Sources,
    names: Names,
    /// When names that are not known have no address.
    until: Time,
    /// When to log what it waits for; none once that was done.
    slow_at: Option<Time>,
}

#[derive(Debug, Default)]
pub(super) struct Reloader {
    pub(super) requested: bool,
    waiting: Option<Box<Waiting>>,
    /// The configuration of a reload that waits for templates.
    loading: Option<Box<Config>>,
    /// Whether answers have come that it waits for.
    pub(super) answered: bool,
    committed: Option<Committed>,
    pub(super) history: History,
}

impl Reloader {
    /// Whether it goes on as soon as all is done that is queued.
    pub(super) fn is_due(&self) -> bool {
        self.requested || self.answered || self.committed.is_some()
    }

    /// Whether one is requested or not over.
    pub(super) fn is_under_way(&self) -> bool {
        self.requested || self.waiting.is_some() || self.loading.is_some()
    }

    /// Whether one is in force, and has listeners to close.
    pub(super) fn is_closing(&self) -> bool {
        self.committed.is_some()
    }

    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        if self.is_due() {
            return Some(now);
        }
        let waiting = self.waiting.as_ref()?;
        Some(waiting.slow_at.unwrap_or(waiting.until))
    }

    /// Whether it waits for templates.
    pub(super) fn loads_templates(&self) -> bool {
        self.loading.is_some()
    }

    /// Ends a reload that waits for host names, and closes what one has left to be closed.
    pub(super) fn cancel(&mut self, poll: &Poll) {
        self.loading = None;
        if let Some(waiting) = self.waiting.take() {
            waiting.names.forget(poll);
        }
        if let Some(committed) = self.committed.take() {
            close_listeners(committed.replaced);
        }
    }
}

impl Runtime {
    /// Begins a reload that was requested, or goes on with one. Nothing is done while actions are
    /// queued: they name children and services as they are now.
    pub(super) fn reload(&mut self, now: Time) {
        if !self.is_settled() {
            return;
        }
        if let Some(committed) = self.reloader.committed.take() {
            self.reload_done(committed);
        }
        self.reloader.answered = false;
        if mem::take(&mut self.reloader.requested) {
            self.begin_reload(now);
        } else if let Some(waiting) = self.reloader.waiting.take() {
            self.wait_for_names(now, waiting);
        } else if let Some(config) = self.reloader.loading.take() {
            self.wait_for_templates(config);
        }
    }

    /// Reads the configuration. A reload that waits for names is over: the files may be others now.
    fn begin_reload(&mut self, now: Time) {
        self.reloader.cancel(&self.poll);
        self.cancel_templates(now);
        self.log.info(format!(
            "reload -- version {}, configuration {}",
            env!("CARGO_PKG_VERSION"),
            self.setup.location.path().display()
        ));
        self.lifecycle.supervisor.reloading();
        match self.setup.location.read() {
            Ok(sources) => {
                let waiting = Waiting {
                    sources,
                    names: Names::default(),
                    until: now,
                    slow_at: Some(now + NAMES_SLOW),
                };
                self.parse(Box::new(waiting));
            }
            Err(error) => self.end_reload(Err(error)),
        }
    }

    /// Puts what was read in force, unless it has host names that must be looked up.
    fn parse(&mut self, mut waiting: Box<Waiting>) {
        let serves = !self.config.services.is_empty();
        let config = Config::parse_to_replace(&waiting.sources, serves, &waiting.names);
        match waiting.names.look_up(&self.poll) {
            Ok(false) => match config {
                Ok(config) => self.begin_loading(config),
                Err(findings) => self.end_reload(Err(findings.into())),
            },
            Ok(true) => {
                waiting.until = self.now() + waiting.names.time_limit();
                self.reloader.answered = !waiting.names.is_pending();
                self.reloader.waiting = Some(waiting);
            }
            Err(error) => {
                let error = anyhow::Error::new(error).context("cannot look host names up");
                self.end_reload(Err(error));
            }
        }
    }

    fn wait_for_names(&mut self, now: Time, mut waiting: Box<Waiting>) {
        let late = waiting.until <= now;
        let late = late.then(|| names::no_answer(waiting.names.time_limit()));
        if waiting.names.read(late.as_deref(), &self.poll) {
            return self.parse(waiting);
        }
        let slow = waiting.slow_at.take_if(|at| *at <= now);
        match slow.and_then(|_| waiting.names.current()) {
            Some(Question::Host(host)) => self.log.warning(format!(
                "the reload waits for a name server: looking up \"{host}\""
            )),
            Some(Question::File(path)) => self.log.warning(format!(
                "the reload waits for a file system: looking at {}",
                path.display()
            )),
            None => {}
        }
        self.reloader.waiting = Some(waiting);
    }

    /// Has new templates load while the old ones serve.
    fn begin_loading(&mut self, config: Config) {
        let variables = environment(&config.parameters, &self.setup.inherited);
        let environment = as_strings(variables).into();
        let now = self.now();
        if self.load_templates(now, &config.services, &environment) {
            self.reloader.loading = Some(Box::new(config));
        } else {
            self.end_reload(Ok(config));
        }
    }

    fn wait_for_templates(&mut self, config: Box<Config>) {
        match self.have_loaded() {
            Ok(false) => self.reloader.loading = Some(config),
            Ok(true) => self.end_reload(Ok(*config)),
            Err(why) => self.end_reload(Err(anyhow::Error::msg(why))),
        }
    }

    /// Puts a configuration in force, or says why not and changes nothing.
    fn end_reload(&mut self, config: anyhow::Result<Config>) {
        self.log.keep_lines();
        let committed = config.and_then(|mut config| {
            self.keep_directories(&mut config);
            self.commit(config)
        });
        match committed {
            Ok((what, replaced)) => {
                let findings = self.log.take_kept();
                self.reloader.committed = Some(Committed {
                    what,
                    findings,
                    replaced,
                });
            }
            Err(error) => {
                // New ones have loaded, and a listener could not be opened, say.
                let now = self.now();
                self.cancel_templates(now);
                let configuration = self.setup.location.path().display().to_string();
                log_error(&mut self.log, Severity::Error, &error);
                self.log.error(format!(
                    "reload failed and changed nothing: the former configuration stays in force; \
                     correct {configuration} and reload again"
                ));
                let findings = self.log.take_kept();
                let state = format!("{}, but the last reload failed: see the log", self.state());
                self.report_reload(false, findings, &state);
            }
        }
    }

    fn reload_done(&mut self, done: Committed) {
        close_listeners(done.replaced);
        self.services.trim(&self.poll);
        self.services.watch_hangups(&self.poll);
        process::trim_memory();
        self.find_postlogd();
        self.log.info(format!("reload done: {}", done.what));
        let state = self.state();
        self.report_reload(true, done.findings, &state);
    }

    fn report_reload(&mut self, succeeded: bool, findings: Vec<String>, state: &str) {
        self.lifecycle.supervisor.ready(state);
        let now = self.now();
        self.reloader.history.reloaded(now, succeeded, findings);
        self.admin.renew_document();
    }

    /// The directories that are locked stay what they are.
    fn keep_directories(&mut self, config: &mut Config) {
        let (old, new) = (&self.config.parameters, &mut config.parameters);
        let whole = if old.stand_alone {
            "the master"
        } else {
            "Postfix"
        };
        let mut keep = |name, old: &PathBuf, new: &mut PathBuf| {
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
        };
        keep(
            "queue_directory",
            &old.queue_directory,
            &mut new.queue_directory,
        );
        keep(
            "data_directory",
            &old.data_directory,
            &mut new.data_directory,
        );
    }
}
