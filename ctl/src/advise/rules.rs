//! What follows from what is known of a service. Each rule has data that it needs, and says nothing
//! without.

use std::time::Duration;

use master::status::Service;
use serde_derive::Serialize;

use super::observed::{DAY, Observed, Rates};
use crate::simulate::{Forecast, forecast};
use crate::words::{counted, memory, time};

/// A limit is too small if the service was at it for this time, in seconds, or longer.
const FULL_MIN: f64 = 60.0;
/// A client that waits for longer has waited noticeably.
const NOTICEABLE: Duration = Duration::from_millis(100);
/// A limit is too large if it is this many times the most busy children, and above `SMALL`.
const TOO_LARGE: u32 = 4;
const SMALL: u32 = 10;
/// Fewer starts than this say nothing; there are many if each was for fewer clients than this.
const STARTS_MIN: u64 = 100;
const CLIENTS_PER_START: u64 = 10;
/// The time without which starts say nothing, in seconds.
const HOUR: f64 = 3600.0;

/// What is advised about one setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The setting, or what else to look at.
    pub setting: String,
    pub value: Option<String>,
    pub proposal: Option<String>,
    pub reason: String,
    /// What the simulation says of the proposal.
    pub simulated: Option<String>,
}

impl Advice {
    fn look(setting: &str, reason: String) -> Self {
        Self {
            setting: setting.to_owned(),
            value: None,
            proposal: None,
            reason,
            simulated: None,
        }
    }

    fn change(setting: &str, value: &str, proposal: impl ToString, reason: String) -> Self {
        Self {
            value: Some(value.to_owned()),
            proposal: Some(proposal.to_string()),
            ..Self::look(setting, reason)
        }
    }
}

/// All that is advised.
pub fn advise(observed: &Observed) -> Vec<Advice> {
    let rules = [
        limit_too_small,
        limit_too_large,
        idle_children,
        throttled,
        stalled,
        short_lives,
        memory_limit,
    ];
    rules.iter().filter_map(|rule| rule(observed)).collect()
}

/// A service with one process is one on purpose.
fn limit_too_small(observed: &Observed) -> Option<Advice> {
    let service = observed.service;
    let max = service.maximum;
    if max <= 1 {
        return None;
    }
    let reason = match observed.history {
        Some(sums) if sums.full >= FULL_MIN && sums.waiting > 0 => format!(
            "it was at its limit for {}, and up to {} at a time",
            time(sums.full),
            counted(sums.waiting as usize, "client waited", "clients waited")
        ),
        Some(_) => return None,
        None => now_full(service)?,
    };
    let (proposal, simulated) = match observed.load {
        Some(load) if service.accept == "shared" => enough(load, service),
        _ => (max.saturating_add(max.div_ceil(2)), no_rate(service)),
    };
    let reason = reason + &more_memory(observed, proposal);
    Some(Advice {
        simulated: Some(simulated),
        ..Advice::change("maxproc", &max.to_string(), proposal, reason)
    })
}

/// Without a history, only what is so now.
fn now_full(service: &Service) -> Option<String> {
    let waiting = service.backlog.filter(|waiting| *waiting > 0)?;
    if !service.is_full() {
        return None;
    }
    let (busy, max) = (service.busy, service.maximum);
    Some(format!(
        "{busy} of {max} children are busy, and {} now; it has reached its limit {}",
        counted(waiting as usize, "client waits", "clients wait"),
        counted(service.limit_reached as usize, "time", "times")
    ))
}

fn no_rate(service: &Service) -> String {
    let name = crate::names::full_name(service);
    match service.accept.as_str() {
        "shared" => format!(
            "not, for the rate of clients is not known: \"masterctl simulate --from {name}\" measures it"
        ),
        _ => "not, for it is an ordered pool".to_owned(),
    }
}

/// The smallest of some limits by which no client waits noticeably, and what happens with it.
fn enough(load: Rates, service: &Service) -> (u32, String) {
    let max = service.maximum;
    let steps = [125, 150, 200, 300, 400, 600, 800].map(|percent: u64| {
        u32::try_from(u64::from(max) * percent / 100)
            .unwrap_or(u32::MAX)
            .max(max.saturating_add(1))
    });
    let mut last = (max, String::new());
    for maxproc in steps {
        let foreseen = forecast(load.rate, load.time, maxproc, service.backlog_limit);
        let is_enough = foreseen.is_some_and(|f| f.serves_all_within(NOTICEABLE));
        last = (maxproc, outcome(load, maxproc, foreseen));
        if is_enough {
            break;
        }
    }
    last
}

fn outcome(load: Rates, maxproc: u32, foreseen: Option<Forecast>) -> String {
    let load = format!(
        "{:.1} clients a second of {:.1} s, with maxproc {maxproc}",
        load.rate,
        load.time.as_secs_f64()
    );
    match foreseen {
        None => format!("not, for {load} are too many"),
        Some(f) if f.serves_all_within(NOTICEABLE) => {
            format!("{load}: no client would have waited more than 0.1 s")
        }
        Some(f) => format!(
            "{load}: 1 of 100 would have waited {:.1} s or more, and {} would have been refused",
            f.wait_p99.as_secs_f64(),
            f.refused
        ),
    }
}

/// What a larger limit costs, if the memory of children is known.
fn more_memory(observed: &Observed, proposal: u32) -> String {
    let (Some(bytes), 1..) = (observed.memory, observed.peak) else {
        return String::new();
    };
    let more = proposal.saturating_sub(observed.service.maximum);
    let each = bytes / u64::from(observed.peak);
    format!(
        "; {more} more children need about {}",
        memory(each.saturating_mul(more.into()))
    )
}

fn limit_too_large(observed: &Observed) -> Option<Advice> {
    let (max, peak) = (observed.service.maximum, observed.peak);
    let is_too_large = max > SMALL && peak.saturating_mul(TOO_LARGE) <= max;
    if observed.seconds < DAY || !is_too_large || observed.clients < STARTS_MIN {
        return None;
    }
    let proposal = peak.saturating_mul(2).max(SMALL);
    let reason = format!(
        "at most {peak} of {max} children were busy in {}",
        time(observed.seconds)
    );
    let load = observed
        .load
        .filter(|_| observed.service.accept == "shared");
    let simulated = load.map(|load| {
        let foreseen = forecast(
            load.rate,
            load.time,
            proposal,
            observed.service.backlog_limit,
        );
        (foreseen, outcome(load, proposal, foreseen))
    });
    // The rules of the policy say otherwise.
    if let Some((Some(foreseen), _)) = &simulated {
        if !foreseen.serves_all_within(NOTICEABLE) {
            return None;
        }
    }
    Some(Advice {
        simulated: simulated.map(|(_, text)| text),
        ..Advice::change("maxproc", &max.to_string(), proposal, reason)
    })
}

/// A pool's `max_idle` that ends children which are started again, or `min_idle` that is never used.
fn idle_children(observed: &Observed) -> Option<Advice> {
    let service = observed.service;
    let is_ordered = service.accept == "ordered";
    let setting = |name: &str, usual| match service.settings.get(name) {
        Some(value) => value.parse().ok(),
        None => is_ordered.then_some(usual),
    };
    let (min_idle, max_idle): (Option<u32>, Option<u32>) =
        (setting("min_idle", 1), setting("max_idle", 2));
    if let Some(max_idle) = max_idle.filter(|max_idle| *max_idle > 0) {
        if has_many_starts(observed) && observed.peak > max_idle {
            let reason = format!(
                "{} for {}: children above max_idle are ended, and started again soon",
                counted(observed.starts as usize, "start", "starts"),
                counted(observed.clients as usize, "client", "clients")
            );
            let proposal = observed.peak;
            return Some(Advice::change(
                "max_idle",
                &max_idle.to_string(),
                proposal,
                reason,
            ));
        }
    }
    let min_idle = min_idle.filter(|min_idle| *min_idle > observed.peak.max(1))?;
    if observed.seconds < DAY {
        return None;
    }
    let reason = format!(
        "{min_idle} children wait, and at most {} were busy in {}",
        observed.peak,
        time(observed.seconds)
    );
    Some(Advice::change(
        "min_idle",
        &min_idle.to_string(),
        observed.peak.max(1),
        reason,
    ))
}

fn has_many_starts(observed: &Observed) -> bool {
    observed.seconds >= HOUR
        && observed.starts >= STARTS_MIN
        && observed.clients / observed.starts.max(1) < CLIENTS_PER_START
}

fn throttled(observed: &Observed) -> Option<Advice> {
    let seconds = observed.history.map_or(0.0, |sums| sums.throttled);
    let is_now = observed.service.throttled_until.is_some();
    if seconds <= 0.0 && !is_now {
        return None;
    }
    let throttled = match (seconds > 0.0, is_now) {
        (true, false) => format!("it was throttled for {}", time(seconds)),
        (true, true) => format!("it was throttled for {}, and is so now", time(seconds)),
        _ => "it is throttled".to_owned(),
    };
    let failures = counted(observed.failures as usize, "child has", "children have");
    let reason = format!("{throttled}; {failures} failed: the log has the reason");
    Some(Advice::look("the program", reason))
}

fn stalled(observed: &Observed) -> Option<Advice> {
    let seconds = observed.history.map_or(0.0, |sums| sums.stalled);
    if seconds < FULL_MIN && !observed.service.stalled {
        return None;
    }
    let how_long = match observed.history {
        Some(_) => format!("clients waited for {}", time(seconds)),
        None => "clients wait".to_owned(),
    };
    let reason = format!(
        "{how_long} although children count as available: it does not accept them, or does not report \
         that it is busy, see master-protocol(7)"
    );
    Some(Advice::look("the program", reason))
}

/// Children that leave after few clients, not for being idle in a pool.
fn short_lives(observed: &Observed) -> Option<Advice> {
    let service = observed.service;
    let is_pool = service.accept == "ordered" || service.settings.contains_key("max_idle");
    let rate = observed.starts as f64 / observed.seconds.max(1.0);
    if is_pool || !has_many_starts(observed) || rate < 0.1 {
        return None;
    }
    let each = observed.clients as f64 / observed.starts as f64;
    let reason = format!(
        "{:.0} starts a minute: a child serves {each:.1} clients on average before it leaves",
        rate * 60.0
    );
    Some(match service.settings.get("max_uses") {
        Some(uses) => {
            let proposal = uses
                .parse::<u32>()
                .map_or(100, |uses| uses.saturating_mul(10));
            Advice::change("max_uses", uses, proposal, reason)
        }
        None => Advice::look("the program's max_use and max_idle", reason),
    })
}

fn memory_limit(observed: &Observed) -> Option<Advice> {
    let text = observed.service.settings.get("memory_max")?;
    let limit: u64 = text.parse().ok()?;
    let most = observed.memory?;
    if most < limit / 10 * 9 {
        return None;
    }
    let reason = format!("its processes used {} of {}", memory(most), memory(limit));
    let proposal = memory(limit.saturating_add(limit / 2));
    Some(Advice::change(
        "memory_max",
        &memory(limit),
        proposal,
        reason,
    ))
}
