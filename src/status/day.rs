//! What a day of status documents comes to. statusd keeps it and leaves it in its history file, and
//! `masterctl advise` reads it there.
//!
//! This module does not use a clock: a document has its time.

use std::collections::VecDeque;

use serde_derive::{Deserialize, Serialize};

use super::{Document, Service};

/// The length of a period, in seconds.
pub const PERIOD: f64 = 300.0;
/// The number of periods in a day.
pub const PERIODS: u64 = 288;
/// The longest time that one document stands for, in seconds: after a longer one it is not known what
/// was meanwhile.
const LONGEST: f64 = 10.0;
/// Services that have a day at the most.
const SERVICES_MAX: usize = 200;

/// The last 24 hours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Day {
    /// The time of the last document, and when its master was started.
    time: f64,
    started: f64,
    /// In the order of their names.
    pub services: Vec<ServiceDay>,
}

/// A day of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceDay {
    /// The identity across reloads.
    pub endpoint: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// The oldest is the first.
    pub periods: VecDeque<Period>,
    counted: Counters,
}

/// Five minutes of a service. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Period {
    /// The number of such periods since 1970.
    pub number: u64,
    /// How much of it was seen.
    pub seconds: f64,
    /// How long as many children were busy as the limit allows, clients waited although children were
    /// available, and the service was throttled.
    pub full: f64,
    pub stalled: f64,
    pub throttled: f64,
    /// The sum of all children's busy time.
    pub busy: f64,
    /// The most busy children.
    pub peak: u32,
    /// The most clients in the queue while the service was full.
    pub waiting: u32,
    /// Clients that were reported, children that were started, and that failed.
    pub clients: u64,
    pub starts: u64,
    pub failures: u64,
    /// The most memory of its control group, in bytes.
    pub memory: u64,
}

/// Counters of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Counters {
    clients: u64,
    starts: u64,
    failures: u64,
}

impl Day {
    /// Takes a document, which stands for the time since the last one.
    pub fn take(&mut self, document: &Document) {
        let passed = document.time - self.time;
        // The clock may have been set.
        let passed = if (0.0..=LONGEST).contains(&passed) {
            passed
        } else {
            0.0
        };
        let restarted = (document.started - self.started).abs() > 1.0;
        (self.time, self.started) = (document.time, document.started);
        let number = (document.time.max(0.0) / PERIOD) as u64;
        let oldest = (number + 1).saturating_sub(PERIODS);
        for day in &mut self.services {
            // Older periods go, and, after the clock was set back, those of the future.
            let is_of_the_day = |period: &Period| (oldest..=number).contains(&period.number);
            day.periods.retain(is_of_the_day);
        }
        for service in &document.services {
            self.take_service(service, document.time, passed, number, restarted);
        }
        self.services.retain(|day| !day.periods.is_empty());
    }

    fn take_service(
        &mut self,
        service: &Service,
        now: f64,
        passed: f64,
        number: u64,
        restarted: bool,
    ) {
        let counters = Counters::of(service);
        let at = match self.find(service) {
            Ok(at) => at,
            Err(_) if self.services.len() >= SERVICES_MAX => return,
            Err(at) => {
                let day = ServiceDay {
                    endpoint: service.endpoint.clone(),
                    kind: service.kind.clone(),
                    counted: counters,
                    ..ServiceDay::default()
                };
                self.services.insert(at, day);
                at
            }
        };
        let day = &mut self.services[at];
        // Another master counts from 0.
        let before = if restarted {
            Counters::default()
        } else {
            day.counted
        };
        day.counted = counters;
        if day
            .periods
            .back()
            .is_none_or(|period| period.number < number)
        {
            day.periods.push_back(Period {
                number,
                ..Period::default()
            });
        }
        if let Some(period) = day.periods.back_mut() {
            period.add(service, now, passed);
            period.count(before, counters);
        }
    }

    /// A service of that time, if it was seen.
    pub fn of(&self, service: &Service) -> Option<&ServiceDay> {
        self.find(service).ok().map(|at| &self.services[at])
    }

    /// Where a service is, or is to be added: they are in the order of their names.
    fn find(&self, service: &Service) -> Result<usize, usize> {
        let name = (&service.endpoint, &service.kind);
        self.services
            .binary_search_by(|day| (&day.endpoint, &day.kind).cmp(&name))
    }

    /// The time of the last document.
    pub fn time(&self) -> f64 {
        self.time
    }
}

impl Period {
    fn add(&mut self, service: &Service, now: f64, passed: f64) {
        let while_it_is = |it_is: bool| if it_is { passed } else { 0.0 };
        self.seconds += passed;
        self.full += while_it_is(service.is_full());
        self.stalled += while_it_is(service.stalled);
        self.throttled += while_it_is(service.throttled_until.is_some());
        self.busy += f64::from(service.busy) * passed;
        // Between two documents there may have been more, if never before.
        let between = service.peak_time.is_some_and(|at| at > now - passed);
        let peak = if between { service.peak } else { service.busy };
        self.peak = self.peak.max(peak);
        if service.is_full() {
            self.waiting = self.waiting.max(service.backlog.unwrap_or(0));
        }
        self.memory = self.memory.max(service.memory.unwrap_or(0));
    }

    fn count(&mut self, before: Counters, after: Counters) {
        self.clients = self
            .clients
            .saturating_add(after.clients.saturating_sub(before.clients));
        self.starts = self
            .starts
            .saturating_add(after.starts.saturating_sub(before.starts));
        self.failures = self
            .failures
            .saturating_add(after.failures.saturating_sub(before.failures));
    }
}

impl Counters {
    fn of(service: &Service) -> Self {
        Self {
            clients: service.connections,
            starts: service.started,
            failures: service.failed + service.killed,
        }
    }
}
