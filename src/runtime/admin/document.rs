//! Fills in the status document.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::policy::{ChildInfo, ChildState, Service, ServiceId, Time};
use crate::runtime::Runtime;
use crate::runtime::template::Template;
use crate::runtime::templates::Slot;
use crate::status::{self, Child, Document, Failure, Reload, State, Upgrade};
use crate::sys::queues::Queues;
use crate::sys::{clock, process};

/// The time of day at points of the loop's time.
#[derive(Clone, Copy)]
struct Calendar {
    now: Time,
    time_of_day: Duration,
}

impl Calendar {
    fn at(self, time: Time) -> f64 {
        let (time, now) = (time.as_secs_f64(), self.now.as_secs_f64());
        self.time_of_day.as_secs_f64() + (time - now)
    }
}

/// A list of which each item is made when it is written down, and needs memory no longer.
struct OneByOne<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for OneByOne<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

impl Runtime {
    /// The document, as its readers get it.
    pub(super) fn document(&self, now: Time) -> Vec<u8> {
        let calendar = Calendar {
            now,
            time_of_day: clock::time_of_day(),
        };
        let configuration = self.setup.location.path().display().to_string();
        let parameters = &self.config.parameters;
        let history = &self.reloader.history;
        let last_reload = history.last_reload.as_ref();
        // Where the system does not tell, the field is null.
        let paths = Queues::read().unwrap_or_default();
        let document = Document {
            format: status::FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            time: calendar.at(now),
            started: calendar.at(history.started.unwrap_or(now)),
            configuration,
            queue_directory: parameters.queue_directory.display().to_string(),
            settings: status::parameters(parameters),
            log: match self.log.lost() {
                None => "ok".to_owned(),
                Some((1, reason)) => format!("lost 1 line: {reason}"),
                Some((lines, reason)) => format!("lost {lines} lines: {reason}"),
            },
            verbose: self.table.is_verbose(),
            generation: history.generation,
            loaded: calendar.at(history.loaded),
            reloads: history.reloads,
            last_reload: last_reload.map(|(time, succeeded, findings)| Reload {
                time: calendar.at(*time),
                succeeded: *succeeded,
                findings: findings.clone(),
            }),
            upgrades: history.upgrades,
            last_upgrade: history.last_upgrade.as_ref().map(|(time, from)| Upgrade {
                time: calendar.at(*time),
                from: from.clone(),
            }),
            services: OneByOne(|| {
                let services = self.table.services();
                let services = services.filter(|(_, service)| !service.removed());
                services.map(|(id, service)| self.describe(calendar, &paths, id, service))
            }),
        };
        serde_json::to_vec(&document).expect("text and numbers, and maps with keys of text")
    }

    fn describe(
        &self,
        calendar: Calendar,
        paths: &Queues,
        id: ServiceId,
        service: &Service,
    ) -> status::Service {
        let at = |time: Option<Time>| time.map(|time| calendar.at(time));
        let stats = service.stats();
        let limits = service.config().limits();
        let recent = limits.crash_percent.map(|_| service.crashes());
        let throttle_next = service.next_throttle_time();
        let children = self.table.children_of(id).into_iter();
        let usage = self.groups.usage(id.index()).unwrap_or_default();
        let slot = self.templates.services.get(&id);
        let templates = slot.into_iter().flat_map(Slot::pids);
        let templates = templates.filter_map(|pid| self.templates.running.get(&pid));
        let failure = slot.and_then(|slot| slot.failure.as_ref());
        let place = u32::try_from(id.index()).expect("a place is a number of 32 bits");
        status::Service {
            wakeup_next: at(service.wakeup_at()),
            total: service.total(),
            available: service.avail(),
            busy: service.busy(),
            starting: service.starting(),
            peak: stats.peak,
            peak_time: at(stats.peak_at),
            limit_reached: stats.limit_reached,
            listening: service.listening(),
            paused: service.paused(),
            stalled: service.stalled(),
            throttled_until: at(service.throttled_until()),
            throttle_next: throttle_next.map(|time| time.as_secs_f64()),
            stress_until: at(service.stress_until()),
            connections: stats.connections,
            started: stats.started,
            ended: stats.ended,
            failed: stats.failed,
            killed: stats.killed,
            recent_clients: recent.map(|(_, clients)| clients),
            recent_crashes: recent.map(|(crashed, _)| crashed),
            memory: usage.memory,
            processor_time: usage.processor.map(|time| time.as_secs_f64()),
            backlog: self.services.get(id).and_then(|io| io.backlog(paths)),
            children: children.map(|info| child(calendar.now, info)).collect(),
            templates: templates.map(|found| template(calendar, found)).collect(),
            template_failures: slot.map_or(0, |slot| slot.failures),
            template_failure: failure.map(|(time, reason)| Failure {
                time: calendar.at(*time),
                reason: reason.clone(),
            }),
            ..status::Service::configured(place, service.config())
        }
    }
}

fn template(calendar: Calendar, template: &Template) -> status::Template {
    let memory = process::memory(template.pid).ok();
    let (private, shared) = memory.unzip();
    status::Template {
        pid: template.pid,
        state: template.status(),
        age: template.age(calendar.now).as_secs_f64(),
        forked: template.forked,
        due: template.renewal_due().map(|time| calendar.at(time)),
        shared,
        private,
    }
}

fn child(now: Time, info: ChildInfo) -> Child {
    Child {
        pid: info.pid,
        generation: info.generation,
        state: match info.state {
            ChildState::Starting => State::Starting,
            ChildState::Available => State::Available,
            ChildState::Busy => State::Busy,
            ChildState::Leaving => State::Leaving,
        },
        uses: info.clients,
        age: now.saturating_sub(info.started).as_secs_f64(),
    }
}
