//! Fills in the status document.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Runtime;
use crate::policy::{ChildInfo, ChildState, Service, ServiceId, Time};
use crate::status::{self, Child, Document, Reload, State};
use crate::sys::clock;
use crate::sys::queues::Queues;

/// What has become of the master since it was started. Times are the loop's own, as all are that
/// are waited for; the document has the time of day.
#[derive(Debug, Default)]
pub(super) struct History {
    started: Option<Time>,
    generation: u32,
    loaded: Time,
    reloads: u32,
    last_reload: Option<(Time, bool, Vec<String>)>,
}

impl History {
    /// A configuration came into force.
    pub(super) fn loaded(&mut self, now: Time) {
        self.started.get_or_insert(now);
        self.generation = self.generation.saturating_add(1);
        self.loaded = now;
    }

    /// A reload is over.
    pub(super) fn reloaded(&mut self, now: Time, succeeded: bool, findings: Vec<String>) {
        self.reloads = self.reloads.saturating_add(1);
        self.last_reload = Some((now, succeeded, findings));
    }
}

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
    /// The document, as readers get it.
    pub(super) fn document(&self, now: Time) -> Vec<u8> {
        let calendar = Calendar {
            now,
            time_of_day: clock::time_of_day(),
        };
        let configuration = self.setup.location.path().display().to_string();
        let parameters = &self.config.parameters;
        let History {
            started,
            generation,
            loaded,
            reloads,
            ref last_reload,
        } = self.history;
        let last_reload = last_reload.as_ref();
        // A system that does not tell of these has a field that is null.
        let paths = Queues::read().unwrap_or_default();
        let document = Document {
            format: status::FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            time: calendar.at(now),
            started: calendar.at(started.unwrap_or(now)),
            configuration,
            queue_directory: parameters.queue_directory.display().to_string(),
            settings: status::parameters(parameters),
            verbose: self.table.is_verbose(),
            generation,
            loaded: calendar.at(loaded),
            reloads,
            last_reload: last_reload.map(|(time, succeeded, findings)| Reload {
                time: calendar.at(*time),
                succeeded: *succeeded,
                findings: findings.clone(),
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
            backlog: self.ports.backlog(id, paths),
            children: children.map(|info| child(calendar.now, info)).collect(),
            ..status::Service::configured(place, service.config())
        }
    }
}

fn child(now: Time, info: ChildInfo) -> Child {
    let ChildInfo {
        pid,
        generation,
        state,
        clients,
        started,
    } = info;
    Child {
        pid,
        generation,
        state: match state {
            ChildState::Starting => State::Starting,
            ChildState::Available => State::Available,
            ChildState::Busy => State::Busy,
            ChildState::Leaving => State::Leaving,
        },
        uses: clients,
        age: now.saturating_sub(started).as_secs_f64(),
    }
}
