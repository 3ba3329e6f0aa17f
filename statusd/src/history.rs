//! The last ten minutes of each service: a few numbers, taken at regular intervals.
//!
//! It does not know the time: a sample's number says when it was taken.

use std::collections::{BTreeMap, VecDeque};

use master::status::{Document, Service};
use serde_json::{Value, json};

/// How many samples are kept.
pub const SAMPLES: usize = 300;
/// Services beyond the first so many have no history.
const SERVICES_MAX: usize = 10_000;

/// Marks of a sample, as the page knows them.
const FULL: u8 = 1;
const THROTTLED: u8 = 2;
const STRESSED: u8 = 4;
const PAUSED: u8 = 8;

/// Samples of all services, the gone ones included as long as there is something to show.
#[derive(Debug, Default)]
pub struct History {
    /// How many samples have been taken.
    taken: u64,
    services: BTreeMap<Key, Ring>,
}

/// What a service keeps for life: its canonical name and type.
type Key = (String, String);

/// One service's samples, up to the last one taken.
#[derive(Debug, Default)]
struct Ring {
    samples: VecDeque<Option<Sample>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    busy: u32,
    marks: u8,
}

impl History {
    /// Takes a sample; a gap when the master has not answered.
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

    /// The history that another process had, as [`since`](Self::since) told it, and a gap of so many
    /// samples after it; nothing when it is not such a history.
    pub fn resume(told: &Value, gap: u64) -> Option<Self> {
        let mut history = Self {
            taken: told["taken"].as_u64()?,
            services: BTreeMap::new(),
        };
        for service in told["services"].as_array()?.iter().take(SERVICES_MAX) {
            let text = |field: &str| service[field].as_str().map(str::to_owned);
            let ring = Ring::resume(service)?;
            history
                .services
                .insert((text("endpoint")?, text("type")?), ring);
        }
        // After more than there is room for, all is gone.
        for _ in 0..gap.min(SAMPLES as u64) {
            history.take(None);
        }
        Some(history)
    }

    /// For the page: the samples after the first `known`, of which the reader has those that are
    /// still kept.
    pub fn since(&self, known: u64) -> Value {
        // Who knows more than there is knew another process.
        let known = if known > self.taken { 0 } else { known };
        let news = usize::try_from(self.taken - known).unwrap_or(usize::MAX);
        let services = self.services.iter().map(|((endpoint, kind), ring)| {
            let skipped = ring.samples.len().saturating_sub(news);
            let of = |number: fn(Sample) -> u32| -> Vec<Option<u32>> {
                let samples = ring.samples.iter().skip(skipped);
                samples.map(|sample| sample.map(number)).collect()
            };
            json!({
                "endpoint": endpoint,
                "type": kind,
                "busy": of(|sample| sample.busy),
                "marks": of(|sample| sample.marks.into()),
            })
        });
        json!({
            "taken": self.taken,
            "since": known,
            "kept": SAMPLES,
            "services": services.collect::<Vec<_>>(),
        })
    }
}

impl Ring {
    fn resume(told: &Value) -> Option<Self> {
        let (busy, marks) = (told["busy"].as_array()?, told["marks"].as_array()?);
        let samples = busy.iter().zip(marks).take(SAMPLES).map(|(busy, marks)| {
            Some(Sample {
                busy: u32::try_from(busy.as_u64()?).ok()?,
                marks: u8::try_from(marks.as_u64()?).ok()?,
            })
        });
        Some(Self {
            samples: samples.collect(),
        })
    }

    fn push(&mut self, sample: Option<Sample>) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Fills the gap at the end; what is new begins with this.
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
            marks: mark(is_full(service), FULL)
                | mark(service.throttled_until.is_some(), THROTTLED)
                | mark(service.stress_until.is_some(), STRESSED)
                | mark(service.paused, PAUSED),
        }
    }
}

/// Whether all processes that the limit allows are in use. To be busy is what the only process of a
/// service is for: it counts when somebody waits for it.
fn is_full(service: &Service) -> bool {
    match service.maximum {
        0 => false,
        1 => service.busy >= 1 && service.backlog.is_some_and(|waiting| waiting > 0),
        limit => service.busy >= limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{calm, service};

    /// The busy children that the page is told of, of the only service.
    fn busy(history: &History, known: u64) -> Vec<Value> {
        let services = history.since(known)["services"].clone();
        services[0]["busy"].as_array().expect("an array").clone()
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
        let mut next = History::resume(&history.since(0), 2).expect("a history");
        next.take(Some(&with(8)));
        let known = json!([1, 2, 3, 4, 5, null, null, 8]);
        assert_eq!(busy(&next, 0), *known.as_array().expect("an array"));
        assert_eq!(busy(&next, 7), [8], "who knew the other one goes on, too");
        let late = History::resume(&history.since(0), u64::MAX).expect("a history");
        assert!(late.services.is_empty());
    }

    #[test]
    fn what_is_no_history_is_not_resumed() {
        for bad in [
            json!(null),
            json!({"taken": -1, "services": []}),
            json!({"taken": 1, "services": [{"endpoint": "e"}]}),
            json!({"taken": 1, "services": [{"endpoint": "e", "type": 1, "busy": [], "marks": []}]}),
        ] {
            assert!(History::resume(&bad, 0).is_none(), "{bad}");
        }
        let long = json!({"taken": 900, "services": [{
            "endpoint": "e", "type": "unix", "busy": vec![7; 900], "marks": vec![0; 900],
        }]});
        let history = History::resume(&long, 0).expect("a history");
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
        let marks = &history.since(0)["services"][0]["marks"];
        assert_eq!(marks, &json!([FULL | THROTTLED | STRESSED, 0]));
    }

    #[test]
    fn a_service_without_a_limit_is_never_full() {
        assert!(!is_full(&service(0, "smtp", 10, 0, 0)));
        assert!(is_full(&service(0, "smtp", 10, 0, 10)));
    }

    #[test]
    fn an_only_process_may_be_busy_while_nobody_waits() {
        let mut only = service(0, "qmgr", 1, 0, 1);
        assert!(!is_full(&only));
        only.backlog = Some(1);
        assert!(is_full(&only));
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
