//! The templates in the state that is handed over to the next version.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::{Next, Slot};
use crate::config::Service;
use crate::policy::{Pid, ServiceId, Time};
use crate::runtime::Runtime;
use crate::runtime::renewal::Renewal;
use crate::runtime::template::{Fault, Template};
use crate::runtime::upgrade::{Received, Saving};
use crate::sys::listen::Listener;
use crate::upgrade::{NextState, PreloadedState, TemplatesState};

impl Slot {
    fn save(&self, id: ServiceId) -> PreloadedState {
        PreloadedState {
            place: id.index(),
            current: self.current,
            next: self.next.as_ref().map(|next| match next {
                Next::Wanted(..) => NextState::Wanted,
                Next::Loading(pid) => NextState::Loading(*pid),
                Next::Loaded(pid) => NextState::Loaded(*pid),
                Next::Failed(why) => NextState::Failed(why.clone()),
            }),
            requests: self.requests.iter().copied().collect(),
            not_before: self.renewal.not_before,
            not_loaded: self.renewal.failures,
            failures: self.failures,
            failure: self.failure.clone(),
        }
    }
}

impl Runtime {
    pub(in crate::runtime) fn save_templates(&self, saving: &mut Saving) -> TemplatesState {
        let templates = &self.templates;
        let processes = self.children.sorted().into_iter();
        let processes = processes.filter(|child| self.is_template(child.process.pid()));
        TemplatesState {
            processes: processes.map(|child| saving.child(child)).collect(),
            running: templates.running.values().map(|t| t.save(saving)).collect(),
            services: templates
                .services
                .iter()
                .map(|(id, s)| s.save(*id))
                .collect(),
            missing: templates.missing.iter().map(|id| id.index()).collect(),
            leaving: templates.leaving.clone(),
            warnings: templates.warnings,
        }
    }

    /// Whether a process is a template, one that is ending perhaps: no child of which the policy knows.
    pub(in crate::runtime) fn is_template(&self, pid: Pid) -> bool {
        self.table.service_of(pid).is_none()
    }

    /// Goes on with all templates. One that cannot be reached counts as ended; their number.
    pub(in crate::runtime) fn resume_templates(
        &mut self,
        now: Time,
        state: TemplatesState,
        configs: &[Arc<Service>],
        listeners: &HashMap<RawFd, Arc<Listener>>,
        received: &mut Received,
    ) -> usize {
        for slot in state.services {
            self.resume_slot(slot);
        }
        let missing = state.missing.into_iter();
        self.templates.missing = missing.map(ServiceId::from_index).collect();
        self.templates.leaving = state.leaving;
        self.templates.warnings = state.warnings;
        let mut lost = Vec::new();
        for process in state.processes {
            let (pid, id) = (process.pid, ServiceId::from_index(process.place));
            match received.child(process, configs) {
                Ok(child) => {
                    self.children.insert(child);
                    self.watch_child(now, id, pid);
                }
                Err(_) => lost.push((id, pid)),
            }
        }
        for template in state.running {
            let pid = template.pid;
            let Some(id) = self.children.get(pid).map(|child| child.service) else {
                continue;
            };
            match Template::resume(template, configs, listeners, received, &self.poll) {
                Ok(template) => drop(self.templates.running.insert(pid, template)),
                Err(_) => {
                    self.kill_template(pid);
                    lost.push((id, pid));
                }
            }
        }
        self.templates.killed = self.killed_templates().collect();
        let fault = Fault::new(libc::ECHILD, "was lost in an upgrade");
        for (id, pid) in &lost {
            let slot = self.templates.services.get(id);
            if slot.is_some_and(|slot| slot.pids().any(|known| known == *pid)) {
                self.lose_template_of(now, *id, *pid, &fault);
            }
        }
        lost.len()
    }

    /// Templates that have not ended, and are of no use any more.
    fn killed_templates(&self) -> impl Iterator<Item = (Pid, Option<ServiceId>)> {
        let templates = &self.templates;
        let ended = move |pid| templates.pids().all(|other| other != pid);
        let children = self.children.sorted().into_iter();
        let ended = children.filter(move |child| {
            let pid = child.process.pid();
            self.is_template(pid) && ended(pid)
        });
        ended.map(|child| {
            let id = Some(child.service).filter(|id| templates.services.contains_key(id));
            (child.process.pid(), id)
        })
    }

    fn resume_slot(&mut self, state: PreloadedState) {
        let id = ServiceId::from_index(state.place);
        let service = self.services.get(id).map(|io| io.service.clone());
        let next = state.next.and_then(|next| {
            Some(match next {
                NextState::Wanted => Next::Wanted(service?, self.environment.clone()),
                NextState::Loading(pid) => Next::Loading(pid),
                NextState::Loaded(pid) => Next::Loaded(pid),
                NextState::Failed(why) => Next::Failed(why),
            })
        });
        let slot = Slot {
            current: state.current,
            next,
            requests: state.requests.into(),
            renewal: Renewal {
                not_before: state.not_before,
                failures: state.not_loaded,
            },
            failures: state.failures,
            failure: state.failure,
        };
        self.templates.services.insert(id, slot);
    }
}
