//! Templates in a reload: new ones load while the old ones serve, and take their places with the rest
//! of the configuration.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Service;
use crate::policy::{Action, Plan, Time};
use crate::runtime::Runtime;
use crate::runtime::renewal::Renewal;
use crate::runtime::services::{ServiceIo, described};
use crate::runtime::templates::Next;
use crate::sys::spawn::Environment;

impl Runtime {
    /// Puts the templates in force that a reload has loaded. Services without one get theirs when
    /// the reload is done. To be called when services and listeners are the new ones.
    pub(in crate::runtime) fn commit_templates(&mut self, now: Time, plan: &Plan) {
        for entry in &plan.entries {
            let id = entry.id;
            if !entry.service.pool().preload {
                let orders = self.drop_templates(now, id).into_iter();
                self.queue.extend(orders.map(|order| Action::Spawn {
                    service: id,
                    generation: order.generation,
                    stress: order.stress,
                }));
                continue;
            }
            self.retire_current(now, id);
            let slot = self.templates.services.entry(id).or_default();
            slot.renewal = Renewal::default();
            let next = slot.next.as_ref().and_then(Next::pid);
            if let Some(pid) = next.filter(|pid| self.has_listeners(id, *pid)) {
                let slot = self.templates.services.entry(id).or_default();
                slot.current = Some(pid);
                slot.next = None;
                self.order_fork(now, id);
            } else {
                self.retire_next(now, id);
                self.templates.missing.insert(id);
            }
        }
    }

    /// Begins to load the templates of a configuration that a reload is about to put in force, of
    /// the services that are there already. Whether there are any.
    pub(in crate::runtime) fn load_templates(
        &mut self,
        now: Time,
        services: &[Arc<Service>],
        environment: &Environment,
    ) -> bool {
        // A replacement that has begun meanwhile has the former configuration.
        self.cancel_templates(now);
        let plan = self.table.plan(services, Duration::ZERO);
        let known = plan.entries.into_iter().filter(|entry| entry.known);
        let mut any = false;
        for entry in known.filter(|entry| entry.service.pool().preload) {
            let (id, service) = (entry.id, entry.service);
            let found = |io: &ServiceIo| io.is_found_as(&service);
            if self.services.get(id).is_some_and(found) {
                let slot = self.templates.services.entry(id).or_default();
                slot.next = Some(Next::Wanted(service, environment.clone()));
                any = true;
            }
        }
        any
    }

    /// Whether all templates that a reload waits for have loaded.
    ///
    /// # Errors
    /// One could not, in words.
    pub(in crate::runtime) fn have_loaded(&self) -> Result<bool, String> {
        let mut all = true;
        for (id, slot) in &self.templates.services {
            match &slot.next {
                Some(Next::Failed(why)) => {
                    let name = self.services.get(*id).map(|io| described(&io.service));
                    let name = name.unwrap_or_default();
                    return Err(format!("{name}: the new template has not loaded: {why}"));
                }
                Some(Next::Wanted(..) | Next::Loading(_)) => all = false,
                Some(Next::Loaded(_)) | None => {}
            }
        }
        Ok(all)
    }

    /// Ends the templates that a reload has begun to load and does not need.
    pub(in crate::runtime) fn cancel_templates(&mut self, now: Time) {
        for id in self.templates.services.keys().copied().collect::<Vec<_>>() {
            self.retire_next(now, id);
        }
    }
}
