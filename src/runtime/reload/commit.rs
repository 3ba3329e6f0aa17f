//! Puts a configuration in force, at the start and at each reload: all is opened first, and only
//! then does anything change.

use std::fmt;

use anyhow::anyhow;

use super::listeners::{self, OpenedListeners};
use crate::config::Config;
use crate::policy::{Event, Plan, Time};
use crate::runtime::Runtime;
use crate::runtime::services::{Listeners, Replaced};
use crate::runtime::settings::{as_strings, environment, log_settings};
use crate::sys::process;

/// A configuration that can be put in force without anything going wrong.
pub(in crate::runtime) struct Prepared {
    config: Config,
    plan: Plan,
    opened: OpenedListeners,
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
    /// Opens what a configuration needs and is not open yet; changes nothing.
    ///
    /// # Errors
    /// All endpoints that cannot be opened, one a line.
    pub(in crate::runtime) fn prepare(&self, config: Config) -> anyhow::Result<Prepared> {
        let kill_time = config.parameters.service_kill_time;
        let plan = self.table.plan(&config.services, kill_time);
        let opened = listeners::open(&self.services, &self.inherited, &plan, &config);
        let opened = opened.map_err(|errors| anyhow!(errors.join("\n")))?;
        Ok(Prepared {
            config,
            plan,
            opened,
        })
    }

    /// Puts a configuration in force. What that asks for is queued, and is not done yet. The
    /// listeners that it replaces are to be [closed](crate::runtime::services::close_listeners) then: a child that finds its
    /// listener shut down before it is told to leave would complain.
    pub(in crate::runtime) fn commit(&mut self, now: Time, prepared: Prepared) -> Listeners {
        let Prepared {
            config,
            plan,
            opened,
        } = prepared;
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
        self.config = config;
        let replaced = self.services.commit(&plan, opened.commit(), &self.poll);
        let Replaced {
            unwatched,
            listeners,
        } = replaced;
        for id in unwatched {
            self.watch(now, id);
        }
        self.step(now, Event::Reload(plan));
        self.reloader.history.loaded(now);
        listeners
    }
}
