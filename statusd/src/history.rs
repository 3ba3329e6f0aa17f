//! The history of each service over ten minutes: a few numbers, sampled at regular intervals.
//!
//! This module does not use a clock: the number of a sample stands for its time.

use std::collections::{BTreeMap, VecDeque};

use master::status::{Document, Service};
use serde_derive::{Deserialize, Serialize};

/// Number of samples that are kept.
pub const SAMPLES: usize = 300;
/// Maximum number of services with a history.
const SERVICES_MAX: usize = 10_000;

/// Marks of a sample, as the page expects them.
const FULL: u8 = 1;
const THROTTLED: u8 = 2;
const STRESSED: u8 = 4;
const PAUSED: u8 = 8;

/// The samples of all services. A service that is gone stays as long as it has samples.
#[derive(Debug, Default)]
pub struct History {
    /// The number of samples taken.
    taken: u64,
    services: BTreeMap<Key, Ring>,
}

/// The identity of a service across reloads: its canonical name and type.
type Key = (String, String);

/// The samples of one service, up to the latest.
#[derive(Debug)]
struct Ring {
    samples: VecDeque<Option<Sample>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    busy: u32,
    marks: u8,
}

/// The part of a history that is sent to the page, or saved for the next process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Samples {
    /// The number of samples taken, and the number of older ones that are not included.
    taken: u64,
    since: u64,
    kept: usize,
    services: Vec<ServiceSamples>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ServiceSamples {
    endpoint: String,
    #[serde(rename = "type")]
    kind: String,
    /// The latest is the last; `None` is a gap.
    busy: Vec<Option<u32>>,
    marks: Vec<Option<u8>>,
}

impl History {
    /// Takes a sample; `None` is a gap, when the master has not answered.
    pub fn take(&mut self, document: Option<&Document>) {
        self.taken += 1;
        for ring in self.services.values_mut() {
            ring.push(None);
        }
        for service in document.map_or(&[][..], |document| &document.services) {
            let key = (service.endpoint.clone(), service.kind.clone());
            if self.services.len() < SERVICES_MAX || self.services.contains_key(&key) {
                let ring = self.services.entry(key).or_default();
                ring.set_last(Sample::of(service));
            }
        }
        self.services.retain(|_, ring| !ring.is_blank());
    }

    /// Restores a saved history, and appends a gap of `gap` samples.
    pub fn resume(samples: Samples, gap: u64) -> Self {
        let mut history = Self {
            taken: samples.taken,
            services: BTreeMap::new(),
        };
        for service in samples.services.into_iter().take(SERVICES_MAX) {
            let mut ring = Ring::default();
            for (busy, marks) in service.busy.into_iter().zip(service.marks) {
                let sample = busy.zip(marks);
                ring.push(sample.map(|(busy, marks)| Sample { busy, marks }));
            }
            history
                .services
                .insert((service.endpoint, service.kind), ring);
        }
        // A gap longer than the history erases it.
        for _ in 0..gap.min(SAMPLES as u64) {
            history.take(None);
        }
        history
    }

    /// The number of samples taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The samples after the first `known`, as far as they are kept.
    pub fn since(&self, known: u64) -> Samples {
        // A larger number comes from a page that was connected to an earlier process.
        let known = if known > self.taken { 0 } else { known };
        let news = usize::try_from(self.taken - known).unwrap_or(usize::MAX);
        let services = self.services.iter().map(|((endpoint, kind), ring)| {
            let skipped = ring.samples.len().saturating_sub(news);
            let samples = || ring.samples.iter().skip(skipped).copied();
            ServiceSamples {
                endpoint: endpoint.clone(),
                kind: kind.clone(),
                busy: samples().map(|sample| Some(sample?.busy)).collect(),
                marks: samples().map(|sample| Some(sample?.marks)).collect(),
            }
        });
        Samples {
            taken: self.taken,
            since: known,
            kept: SAMPLES,
            services: services.collect(),
        }
    }
}

/// Allocates the maximum size at once.
impl Default for Ring {
    fn default() -> Self {
        Self {
            samples: VecDeque::with_capacity(SAMPLES),
        }
    }
}

impl Ring {
    fn push(&mut self, sample: Option<Sample>) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Replaces the last sample. Each new sample begins as a gap.
    fn set_last(&mut self, sample: Sample) {
        match self.samples.back_mut() {
            Some(last) => *last = Some(sample),
            None => self.push(Some(sample)),
        }
    }

    fn is_blank(&self) -> bool {
        self.samples.iter().all(Option::is_none)
    }
}

impl Sample {
    fn of(service: &Service) -> Self {
        let mark = |set: bool, mark: u8| if set { mark } else { 0 };
        Self {
            busy: service.busy,
            marks: mark(service.is_full(), FULL)
                | mark(service.throttled_until.is_some(), THROTTLED)
                | mark(service.stress_until.is_some(), STRESSED)
                | mark(service.paused, PAUSED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{calm, service};
    use serde_json::{Value, from_value, json, to_value};

    fn told(history: &History, known: u64) -> Value {
        to_value(history.since(known)).expect("JSON")
    }

    /// The numbers of busy children of the only service, as the page gets them.
    fn busy(history: &History, known: u64) -> Vec<Value> {
        told(history, known)["services"][0]["busy"]
            .as_array()
            .expect("an array")
            .clone()
    }

    fn with(busy: u32) -> Document {
        let mut document = calm();
        document.services = vec![service(0, "smtp", busy, 0, 10)];
        document
    }

    #[test]
    fn ten_minutes_are_kept() {
        let mut history = History::default();
        for n in 0..SAMPLES as u32 + 7 {
            history.take(Some(&with(n)));
        }
        let busy = busy(&history, 0);
        assert_eq!(busy.len(), SAMPLES);
        assert_eq!((busy[0].as_u64(), busy[299].as_u64()), (Some(7), Some(306)));
    }

    #[test]
    fn who_knows_the_past_is_told_the_news() {
        let mut history = History::default();
        (1..=5).for_each(|n| history.take(Some(&with(n))));
        assert_eq!(busy(&history, 3), [4, 5]);
        assert_eq!(busy(&history, 5), [0; 0]);
        assert_eq!(busy(&history, 99), [1, 2, 3, 4, 5], "of another process");
    }

    #[test]
    fn a_master_that_does_not_answer_leaves_a_gap() {
        let mut history = History::default();
        history.take(Some(&with(1)));
        history.take(None);
        history.take(Some(&with(3)));
        assert_eq!(busy(&history, 0), [json!(1), json!(null), json!(3)]);
    }

    #[test]
    fn a_service_that_is_gone_is_forgotten_when_nothing_is_left_to_show() {
        let mut history = History::default();
        history.take(Some(&with(1)));
        (1..SAMPLES).for_each(|_| history.take(None));
        assert_eq!(history.services.len(), 1);
        history.take(None);
        assert_eq!(history.services.len(), 0);
    }

    #[test]
    fn another_process_goes_on_after_a_gap() {
        let mut history = History::default();
        (1..=5).for_each(|n| history.take(Some(&with(n))));
        let mut next = History::resume(history.since(0), 2);
        next.take(Some(&with(8)));
        let known = json!([1, 2, 3, 4, 5, null, null, 8]);
        assert_eq!(busy(&next, 0), *known.as_array().expect("an array"));
        assert_eq!(
            busy(&next, 7),
            [8],
            "a reader of the other process goes on, too"
        );
        let late = History::resume(history.since(0), u64::MAX);
        assert!(late.services.is_empty());
    }

    #[test]
    fn no_more_than_ten_minutes_are_resumed() {
        let long = json!({"taken": 900, "since": 0, "kept": SAMPLES, "services": [{
            "endpoint": "e", "type": "unix", "busy": vec![7; 900], "marks": vec![0; 900],
        }]});
        let history = History::resume(from_value(long).expect("a history"), 0);
        assert_eq!(busy(&history, 0).len(), SAMPLES);
    }

    #[test]
    fn throttling_stress_and_a_limit_are_marked() {
        let mut document = with(10);
        document.services[0].throttled_until = Some(document.time + 30.0);
        document.services[0].stress_until = Some(document.time + 300.0);
        let mut history = History::default();
        history.take(Some(&document));
        document.services[0] = service(0, "smtp", 9, 0, 10);
        history.take(Some(&document));
        let told = told(&history, 0);
        assert_eq!(
            told["services"][0]["marks"],
            json!([FULL | THROTTLED | STRESSED, 0])
        );
    }

    #[test]
    fn a_service_without_a_limit_is_never_full() {
        assert!(!service(0, "smtp", 10, 0, 0).is_full());
        assert!(service(0, "smtp", 10, 0, 10).is_full());
    }

    #[test]
    fn an_only_process_may_be_busy_while_nobody_waits() {
        let mut only = service(0, "qmgr", 1, 0, 1);
        assert!(!only.is_full());
        only.backlog = Some(1);
        assert!(only.is_full());
    }

    #[test]
    fn no_table_is_so_large_that_its_history_fills_the_memory() {
        let mut document = calm();
        let many = (0..SERVICES_MAX as u32 + 3).map(|n| service(n, &format!("s{n}"), 0, 0, 1));
        document.services = many.collect();
        let mut history = History::default();
        history.take(Some(&document));
        history.take(Some(&document));
        assert_eq!(history.services.len(), SERVICES_MAX);
    }
}
