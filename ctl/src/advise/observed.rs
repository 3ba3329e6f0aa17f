//! What is known of a service: its last day, or its counters since the master's start.

use std::collections::VecDeque;
use std::time::Duration;

use master::status::day::{Day, Period};
use master::status::{Document, Service};

use crate::words::time;

/// A whole day, in seconds, but for what is missed when statusd is replaced.
pub const DAY: f64 = 86_400.0 * 0.98;
/// A period tells the rate of clients if this part of it was seen, in seconds, and this number of
/// clients came.
const SECONDS_MIN: f64 = 60.0;
const CLIENTS_MIN: u64 = 20;
/// The longest time of a client that is believed.
const TIME_MAX: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
pub struct Observed<'a> {
    pub service: &'a Service,
    /// How long the service was seen.
    pub seconds: f64,
    /// By statusd's history.
    pub history: Option<Sums>,
    pub peak: u32,
    pub clients: u64,
    pub starts: u64,
    pub failures: u64,
    /// The most memory of its group.
    pub memory: Option<u64>,
    /// The load of the worst time, if it is known.
    pub load: Option<Rates>,
}

/// What only a history tells. Times are in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub full: f64,
    pub stalled: f64,
    pub throttled: f64,
    pub waiting: u32,
}

/// Clients a second, and how long each takes.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub rate: f64,
    pub time: Duration,
}

impl<'a> Observed<'a> {
    pub fn new(document: &Document, service: &'a Service, day: Option<&Day>) -> Self {
        match day.and_then(|day| day.of(service)) {
            Some(day) => Self::by_history(service, &day.periods),
            None => Self::by_counters(service, document.time - document.started),
        }
    }

    fn by_history(service: &'a Service, periods: &VecDeque<Period>) -> Self {
        let sum = |of: fn(&Period) -> f64| periods.iter().map(of).sum::<f64>();
        // The file is not root's, and may hold any number.
        let count = |of: fn(&Period) -> u64| periods.iter().map(of).fold(0, u64::saturating_add);
        let most = |of: fn(&Period) -> u64| periods.iter().map(of).max().unwrap_or(0);
        Self {
            service,
            seconds: sum(|p| p.seconds),
            history: Some(Sums {
                full: sum(|p| p.full),
                stalled: sum(|p| p.stalled),
                throttled: sum(|p| p.throttled),
                waiting: most(|p| p.waiting.into()) as u32,
            }),
            peak: most(|p| p.peak.into()) as u32,
            clients: count(|p| p.clients),
            starts: count(|p| p.starts),
            failures: count(|p| p.failures),
            memory: Some(most(|p| p.memory)).filter(|bytes| *bytes > 0),
            load: worst(periods),
        }
    }

    fn by_counters(service: &'a Service, seconds: f64) -> Self {
        Self {
            service,
            seconds,
            history: None,
            peak: service.peak,
            clients: service.connections,
            starts: service.started,
            failures: service.failed + service.killed,
            memory: service.memory,
            load: None,
        }
    }

    /// What is missing until all can be said, if something is.
    pub fn missing(&self) -> Option<String> {
        (self.seconds < DAY).then(|| format!("{} of 24 h were seen", time(self.seconds)))
    }
}

/// The load of the period with the most clients, those included that waited at its limit.
fn worst(periods: &VecDeque<Period>) -> Option<Rates> {
    let rates = periods
        .iter()
        .filter(|p| p.seconds >= SECONDS_MIN && p.clients >= CLIENTS_MIN)
        .filter_map(|period| {
            let clients = period.clients as f64;
            let time = Duration::try_from_secs_f64(period.busy / clients).ok()?;
            Some(Rates {
                rate: (clients + f64::from(period.waiting)) / period.seconds,
                time: time.min(TIME_MAX),
            })
        });
    let busy = |rates: &Rates| rates.rate * rates.time.as_secs_f64();
    rates.max_by(|a, b| busy(a).total_cmp(&busy(b)))
}
