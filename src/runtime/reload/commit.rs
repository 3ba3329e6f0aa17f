//! Puts a configuration in force, at the start and at each reload: all is opened first, and only
//! then does anything change.

use anyhow::Context;

use super::listeners;
use crate::config::Config;
use crate::errors::describe_error;
use crate::files::check_executor;
use crate::policy::{Event, Plan};
use crate::runtime::Runtime;
use crate::runtime::services::Listeners;
use crate::runtime::settings::{as_strings, environment, log_settings};
use crate::sys::process;

impl Runtime {
    /// Opens what a configuration needs and is not open yet, and puts it in force. What that asks for
    /// is queued, and is not done yet. Returned is what changes, in words, and which listeners are to
    /// be [closed](crate::runtime::services::close_listeners) when it is done: a child that finds its
    /// listener shut down before it is told to leave would complain.
    ///
    /// # Errors
    /// All endpoints that cannot be opened, one a line, or a program that is needed. Nothing has changed then.
    pub(in crate::runtime) fn commit(
        &mut self,
        config: Config,
    ) -> anyhow::Result<(String, Listeners)> {
        if config.services.iter().any(|s| s.needs_executor()) {
            check_executor(&self.setup.executor)?;
        }
        let kill_time = config.parameters.service_kill_time;
        let plan = self.table.plan(&config.services, kill_time);
        let any_preloaded = config.services.iter().any(|s| s.pool().preload);
        if any_preloaded {
            let made_subreaper = process::set_subreaper(true);
            made_subreaper.context("cannot become the parent of what templates fork")?;
        }
        let mut opened = listeners::open(&self.services, &self.inherited, &plan, &config)?;
        let variables = environment(&config.parameters, &self.setup.inherited);
        process::set_environment(&variables);
        self.environment = as_strings(variables).into();
        let terminal = self.log.settings().terminal;
        self.log.set(log_settings(&config.parameters, terminal));
        self.log.catch_panics();
        self.lifecycle.log_changed();
        for warning in &config.warnings {
            self.log.warning(warning);
        }
        for warning in opened.warnings.drain(..) {
            self.log.warning(warning);
        }
        self.config = config;
        let what = summary(&plan);
        // There may have been much to open; what is given time has all of it.
        let now = self.now();
        let replaced = self.services.commit(&plan, opened.commit(), &self.poll);
        for id in replaced.unwatched {
            self.watch(now, id);
        }
        self.commit_groups(now, &plan);
        self.commit_templates(now, &plan);
        if !any_preloaded {
            // All templates have been told to end.
            if let Err(error) = process::set_subreaper(false) {
                let reason = describe_error(&error);
                self.log.warning(format!(
                    "orphans of children go on to become the master's: {reason}"
                ));
            }
        }
        self.step(now, Event::Reload(plan));
        self.reloader.history.loaded(now);
        Ok((what, replaced.listeners))
    }
}

/// What changes: `services: 1 added, 2 removed, 30 kept`.
fn summary(plan: &Plan) -> String {
    let kept = plan.entries.iter().filter(|entry| entry.known).count();
    let added = plan.entries.len() - kept;
    let removed = plan.removed.len();
    format!("services: {added} added, {removed} removed, {kept} kept")
}
