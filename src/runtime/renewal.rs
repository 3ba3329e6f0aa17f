//! Replaces templates that have grown old: another one loads while the old one serves, as in a
//! reload. One that cannot load changes nothing, and is tried again later.

use std::time::Duration;

use super::Runtime;
use super::services::{about_child, described};
use super::templates::{Next, Slot};
use crate::log::Severity;
use crate::policy::{Event, Pid, ServiceId, Time};

/// The longest time between two attempts to load a template, after some that failed.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// What a service remembers of its templates.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// No template is replaced before this time.
    pub(super) not_before: Time,
    /// Templates that could not load since the last one that did.
    pub(super) failures: u32,
}

/// What is to be done next.
enum Step {
    Load,
    Replace(Pid),
    Fail(String),
}

impl Runtime {
    /// When the next template is old enough.
    pub(super) fn renewals_deadline(&self) -> Option<Time> {
        if self.reloader.loads_templates() {
            return None;
        }
        let slots = self.templates.services.iter();
        slots
            .filter_map(|(id, slot)| self.renewal_due(*id, slot))
            .min()
    }

    fn renewal_due(&self, id: ServiceId, slot: &Slot) -> Option<Time> {
        let template = self.templates.running.get(&slot.current?)?;
        let due = template.renewal_due()?.max(slot.renewal.not_before);
        (slot.next.is_none() && self.may_load(id)).then_some(due)
    }

    /// Goes on with all replacements, except while a reload is about to replace all templates.
    pub(super) fn renew_templates(&mut self, now: Time) {
        if self.reloader.loads_templates() {
            return;
        }
        while let Some((id, step)) = self.next_renewal(now) {
            match step {
                Step::Load => self.load_another(id),
                Step::Replace(pid) => self.replace_template(now, id, pid),
                Step::Fail(why) => self.put_renewal_off(now, id, &why),
            }
        }
    }

    fn next_renewal(&self, now: Time) -> Option<(ServiceId, Step)> {
        self.templates.services.iter().find_map(|(id, slot)| {
            let step = match &slot.next {
                None => {
                    self.renewal_due(*id, slot).filter(|due| *due <= now)?;
                    Step::Load
                }
                Some(Next::Loaded(pid)) => Step::Replace(*pid),
                Some(Next::Failed(why)) => Step::Fail(why.clone()),
                Some(Next::Wanted(..) | Next::Loading(_)) => return None,
            };
            Some((*id, step))
        })
    }

    fn load_another(&mut self, id: ServiceId) {
        let service = self.services.get(id).map(|io| io.service.clone());
        if let (Some(service), Some(slot)) = (service, self.templates.services.get_mut(&id)) {
            slot.next = Some(Next::Wanted(service, self.environment.clone()));
        }
    }

    /// The new template has loaded: it takes the place of the old one, and children of the old one
    /// are replaced by its children.
    fn replace_template(&mut self, now: Time, id: ServiceId, pid: Pid) {
        if !self.has_listeners(id, pid) {
            self.retire_next(now, id);
            return self.put_renewal_off(now, id, "a listener was opened again meanwhile");
        }
        let old = self
            .templates
            .services
            .get(&id)
            .and_then(|slot| slot.current);
        let old = old.and_then(|old| self.templates.running.get(&old));
        let reason = old.map_or_else(String::new, |old| {
            let (pid, age, children) = (old.pid, old.age(now).as_secs(), old.forked);
            format!(": pid {pid} was {age} s old and has forked {children} children")
        });
        self.retire_current(now, id);
        self.templates.missing.remove(&id);
        let service = self.services.get(id).map(|io| io.service.clone());
        if let (Some(service), Some(slot)) = (service, self.templates.services.get_mut(&id)) {
            slot.current = Some(pid);
            slot.next = None;
            slot.renewal.failures = 0;
            slot.renewal.not_before = now + service.throttle_time;
            let (name, path) = (described(&service), service.path.display());
            let text = format!("{name}: template process {path} pid {pid} is the new one{reason}");
            let about = about_child(&service, pid);
            self.log.write_about(Severity::Info, about, text);
        }
        self.step(now, Event::Replace { service: id });
        self.order_fork(now, id);
    }

    fn put_renewal_off(&mut self, now: Time, id: ServiceId, why: &str) {
        let service = self.services.get(id).map(|io| io.service.clone());
        let (Some(service), Some(slot)) = (service, self.templates.services.get_mut(&id)) else {
            return;
        };
        let most = RETRY_MAX.max(service.throttle_time);
        let time = service
            .throttle_time
            .saturating_mul(1 << slot.renewal.failures.min(16));
        let time = time.min(most);
        slot.next = None;
        slot.renewal.failures = slot.renewal.failures.saturating_add(1);
        slot.renewal.not_before = now + time;
        let text = format!(
            "{}: the new template has not loaded: {why}: the old one serves on, another one is \
             started in {} s",
            described(&service),
            time.as_secs()
        );
        let about = super::services::about(&service);
        self.log.write_about(Severity::Warning, about, text);
    }
}
