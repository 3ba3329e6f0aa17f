//! `[service."name/type"]`: settings for which the service table has no columns.
//!
//! The tables are kept until the service table is known. Then each table changes its service. One
//! whose line was commented out may keep its table, with a warning. Contradictory settings are corrected in the same way as spamd does.

mod endpoints;
mod group;
mod sandbox;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{nearest, or_nearest};
use crate::config::disabled::Disabled;
use crate::config::inet::Network;
use crate::config::numbers::{integer, seconds};
use crate::config::{
    Accept, Base, ChildLimits, Diagnostic, Diagnostics, Extra, Kind, Parameters, Place, Pool, Ramp,
    Resolver, Service, StartLimit,
};
use crate::groups;
use crate::sandbox::Sandbox;

/// A TOML value, reduced to the types that a service's table uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Bool(bool),
    /// The values of an array, with their positions.
    List(Vec<(Value, Place)>),
    Other,
}

/// One setting in a service's table.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) value: Value,
    pub(super) value_place: Place,
    /// An error about a character of the value that is not what it seems to be.
    pub(super) odd: Option<Diagnostic>,
}

/// The table of one service.
#[derive(Debug)]
pub(in crate::config) struct ServiceTable {
    /// The service table's first two columns: `name/type`.
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) settings: Vec<Setting>,
}

/// Stores a value in the draft, or returns what was expected instead.
type Set = fn(&mut Draft, &Value) -> Result<(), &'static str>;

/// What is wrong with a value.
#[derive(Debug)]
struct Mistake {
    /// Where in the value; `None` for all of it.
    place: Option<Place>,
    expected: Cow<'static, str>,
}

impl<T: Into<Cow<'static, str>>> From<T> for Mistake {
    fn from(expected: T) -> Self {
        Self {
            place: None,
            expected: expected.into(),
        }
    }
}

/// All keys of a service's table but those of [`group`] and [`sandbox`].
const KEYS: [(&str, Set); 19] = [
    ("accept", |draft, value| {
        word(value, &mut draft.accept, &ACCEPT)
    }),
    ("min_children", |draft, value| {
        number(value, &mut draft.min_children)
    }),
    ("min_idle", |draft, value| {
        number(value, &mut draft.min_idle)
    }),
    ("max_idle", |draft, value| {
        number(value, &mut draft.max_idle)
    }),
    ("spawn_ramp", |draft, value| {
        word(value, &mut draft.spawn_ramp, &RAMP)
    }),
    ("reply_timeout", |draft, value| {
        time(value, &mut draft.reply_timeout)
    }),
    ("ping_interval", |draft, value| {
        time(value, &mut draft.ping_interval)
    }),
    ("preload", |draft, value| yes(value, &mut draft.preload)),
    ("preload_max_age", |draft, value| {
        time(value, &mut draft.preload_max_age)
    }),
    ("preload_max_uses", |draft, value| {
        count(value, &mut draft.preload_max_uses)
    }),
    ("throttle_time", |draft, value| {
        range(value, &mut draft.throttle_time)
    }),
    ("crash_percent", |draft, value| {
        percent(value, &mut draft.limits.crash_percent)
    }),
    ("stop_timeout", |draft, value| {
        time(value, &mut draft.limits.stop_timeout)
    }),
    ("request_timeout", |draft, value| {
        time(value, &mut draft.limits.request_timeout)
    }),
    ("start_limit", |draft, value| {
        starts(value, &mut draft.limits.start_limit)
    }),
    ("capture_output", |draft, value| {
        yes(value, &mut draft.limits.capture_output)
    }),
    ("max_uses", |draft, value| {
        uses(value, &mut draft.limits.max_uses)
    }),
    ("max_age", |draft, value| {
        time(value, &mut draft.limits.max_age)
    }),
    ("memory_recycle", |draft, value| {
        memory(value, &mut draft.limits.memory_recycle)
    }),
];

/// How long `postfix stop` waits for the master.
const POSTFIX_STOP: Duration = Duration::from_secs(5);

/// Keys that are valid only for ordered pools, where the master decides which child accepts.
const ORDERED_ONLY: [&str; 4] = ["min_children", "max_idle", "reply_timeout", "ping_interval"];

/// Keys that are valid only for preloaded services.
const PRELOADED_ONLY: [&str; 2] = ["preload_max_age", "preload_max_uses"];

const ACCEPT: Words<Accept> = Words {
    words: &[("shared", Accept::Shared), ("ordered", Accept::Ordered)],
    expected: "\"shared\" or \"ordered\"",
};

const RAMP: Words<Ramp> = Words {
    words: &[("single", Ramp::Single), ("double", Ramp::Double)],
    expected: "\"single\" or \"double\"",
};

/// The words that a key accepts.
struct Words<T: 'static> {
    words: &'static [(&'static str, T)],
    expected: &'static str,
}

fn word<T: Copy>(value: &Value, to: &mut Option<T>, words: &Words<T>) -> Result<(), &'static str> {
    let Value::Text(text) = value else {
        return Err(words.expected);
    };
    let known = words.words.iter().find(|(word, _)| word == text);
    *to = Some(known.ok_or(words.expected)?.1);
    Ok(())
}

fn number(value: &Value, to: &mut Option<u32>) -> Result<(), &'static str> {
    let number = match value {
        // A process ID fits into an `i32`, so a larger number is a mistake.
        Value::Integer(number) => i32::try_from(*number)
            .ok()
            .and_then(|n| u32::try_from(n).ok()),
        _ => None,
    };
    *to = Some(number.ok_or("a number of processes from 0 to 2147483647, as an integer")?);
    Ok(())
}

fn count(value: &Value, to: &mut Option<u32>) -> Result<(), &'static str> {
    let mut count = None;
    let _ = number(value, &mut count);
    *to = Some(
        count
            .filter(|n| *n > 0)
            .ok_or("a number of at least 1, as an integer")?,
    );
    Ok(())
}

fn time(value: &Value, to: &mut Option<Duration>) -> Result<(), &'static str> {
    let number = match value {
        Value::Integer(number) => i32::try_from(*number).ok(),
        Value::Text(text) => seconds(text.as_bytes()),
        Value::Bool(_) | Value::List(_) | Value::Other => None,
    };
    let time = number.and_then(at_least_one_second);
    *to = Some(time.ok_or("a time of at least one second: an integer, or a string as \"5m\"")?);
    Ok(())
}

fn at_least_one_second(seconds: i32) -> Option<Duration> {
    let seconds = u64::try_from(seconds).ok().filter(|n| *n > 0);
    seconds.map(Duration::from_secs)
}

/// One time, or two: `FIRST..MOST`.
fn range(value: &Value, to: &mut Option<Throttle>) -> Result<(), &'static str> {
    let ends = match value {
        Value::Text(text) => text.split_once(".."),
        _ => None,
    };
    let Some((first, most)) = ends else {
        let mut first = None;
        time(value, &mut first)?;
        *to = first.map(|first| Throttle { first, most: None });
        return Ok(());
    };
    let end = |text: &str| seconds(text.as_bytes()).and_then(at_least_one_second);
    let ends = end(first).zip(end(most)).filter(|(a, b)| a <= b);
    let (first, most) =
        ends.ok_or("a time of at least one second, or two, the longer one last, as \"1s..60s\"")?;
    let most = Some(most);
    *to = Some(Throttle { first, most });
    Ok(())
}

fn percent(value: &Value, to: &mut Option<u32>) -> Result<(), &'static str> {
    let number = match value {
        Value::Integer(number) => u32::try_from(*number).ok(),
        _ => None,
    };
    let number = number.filter(|n| (1..=100).contains(n));
    *to = Some(number.ok_or("a number from 1 to 100")?);
    Ok(())
}

fn uses(value: &Value, to: &mut Option<u32>) -> Result<(), &'static str> {
    let number = match value {
        Value::Integer(number) => u32::try_from(*number).ok(),
        _ => None,
    };
    *to = Some(
        number
            .filter(|n| *n > 0)
            .ok_or("a number of clients, at least 1")?,
    );
    Ok(())
}

fn memory(value: &Value, to: &mut Option<u64>) -> Result<(), &'static str> {
    let size = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => size(text),
        _ => None,
    };
    let size = size.filter(|bytes| *bytes > 0);
    *to = Some(size.ok_or("a size in bytes, at least 1, or a string as \"200M\" (K, M, G, T)")?);
    Ok(())
}

/// A number of bytes, with or without a unit.
fn size(text: &str) -> Option<u64> {
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let unit = units.iter().find(|(unit, _)| text.ends_with(*unit));
    let shift = unit.map_or(0, |(_, shift)| *shift);
    digits(&text[..text.len() - usize::from(unit.is_some())])?.checked_mul(1 << shift)
}

/// A number without a sign.
fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// `STARTS/PERIOD`.
fn starts(value: &Value, to: &mut Option<StartLimit>) -> Result<(), &'static str> {
    let parts = match value {
        Value::Text(text) => text.split_once('/'),
        _ => None,
    };
    let limit = parts.and_then(|(starts, period)| {
        let starts = integer(starts.as_bytes()).filter(|n| *n > 0)?;
        let starts = u32::try_from(starts).ok()?;
        let period = seconds(period.as_bytes()).and_then(at_least_one_second)?;
        Some(StartLimit { starts, period })
    });
    *to = Some(
        limit.ok_or("a number of starts and a period of at least one second, as \"100/10s\"")?,
    );
    Ok(())
}

fn yes(value: &Value, to: &mut bool) -> Result<(), &'static str> {
    let Value::Bool(yes) = value else {
        return Err("true or false");
    };
    *to = *yes;
    Ok(())
}

/// How long a service is throttled after its first failure, and at most.
#[derive(Debug)]
struct Throttle {
    first: Duration,
    most: Option<Duration>,
}

/// The settings of a table; `None` where the table does not set them.
#[derive(Debug, Default)]
struct Draft {
    accept: Option<Accept>,
    min_children: Option<u32>,
    min_idle: Option<u32>,
    max_idle: Option<u32>,
    spawn_ramp: Option<Ramp>,
    reply_timeout: Option<Duration>,
    ping_interval: Option<Duration>,
    preload: bool,
    preload_max_age: Option<Duration>,
    preload_max_uses: Option<u32>,
    throttle_time: Option<Throttle>,
    limits: ChildLimits,
    endpoints: endpoints::Draft,
    sandbox: Sandbox,
    group: Option<Vec<groups::Setting>>,
}

impl Draft {
    fn is_ordered(&self) -> bool {
        self.accept == Some(Accept::Ordered)
    }

    fn pool(&self) -> Pool {
        let default = if self.is_ordered() {
            Pool::ordered()
        } else {
            Pool::default()
        };
        Pool {
            accept: default.accept,
            min_children: self.min_children.unwrap_or(default.min_children),
            min_idle: self.min_idle.unwrap_or(default.min_idle),
            max_idle: self.max_idle.unwrap_or(default.max_idle),
            spawn_ramp: self.spawn_ramp.unwrap_or(default.spawn_ramp),
            reply_timeout: self.reply_timeout.unwrap_or(default.reply_timeout),
            ping_interval: self.ping_interval.unwrap_or(default.ping_interval),
            preload: self.preload,
            preload_max_age: self.preload_max_age,
            preload_max_uses: self.preload_max_uses,
        }
    }
}

/// What the values of settings depend on beside the tables.
#[derive(Clone, Copy)]
pub(in crate::config) struct System<'a> {
    pub(in crate::config) resolver: &'a dyn Resolver,
    pub(in crate::config) base: &'a Base,
    /// The configuration's.
    pub(in crate::config) directory: &'a Path,
    /// `None` when they have an error.
    pub(in crate::config) parameters: Option<&'a Parameters>,
    pub(in crate::config) network: &'a Network,
}

impl System<'_> {
    /// Whether the master runs without root's rights.
    fn is_without_root(self) -> bool {
        matches!(self.base, Base::StandAlone(alone) if alone.user.is_some())
    }

    /// The directory that a parameter names.
    fn directory(self, name: &str) -> Option<PathBuf> {
        let of = |directory: fn(&Parameters) -> &PathBuf| Some(directory(self.parameters?).clone());
        match name {
            "config_directory" => Some(self.directory.to_owned()),
            "daemon_directory" => of(|parameters| &parameters.daemon_directory),
            "data_directory" => of(|parameters| &parameters.data_directory),
            "queue_directory" => of(|parameters| &parameters.queue_directory),
            _ => None,
        }
    }

    fn is_postfix(self) -> bool {
        matches!(self.base, Base::Postfix(_))
    }
}

/// Applies each table to its service.
pub(in crate::config) fn apply(
    tables: Vec<ServiceTable>,
    services: &mut [Arc<Service>],
    disabled: &Disabled,
    system: System<'_>,
    findings: &mut Diagnostics,
) {
    // A line of the service table with an error gives no service, so its table would seem unknown.
    let complete = !findings.has_errors();
    let mut also_listen = Vec::new();
    for table in &tables {
        let found = services.iter_mut().find(|service| table.is_for(service));
        match found {
            Some(service) => {
                let service = Arc::make_mut(service);
                also_listen.extend(table.apply(service, system, findings));
                let slow = table.too_slow(service).filter(|_| system.is_postfix());
                findings.0.extend(slow);
            }
            None if complete && !table.is_disabled(disabled) => {
                findings.push(table.unknown(services));
            }
            None => {}
        }
    }
    endpoints::refuse_shared(&also_listen, services, system, findings);
}

impl ServiceTable {
    fn is_for(&self, service: &Service) -> bool {
        let name = self.name.rsplit_once('/');
        name == Some((&service.name, service.kind.as_str()))
    }

    fn is_disabled(&self, disabled: &Disabled) -> bool {
        let name = self.name.rsplit_once('/');
        name.is_some_and(|(name, kind)| disabled.contains(name.as_bytes(), kind.as_bytes()))
    }

    fn unknown(&self, services: &[Arc<Service>]) -> Diagnostic {
        let known: Vec<String> = services
            .iter()
            .map(|s| format!("{}/{}", s.name, s.kind))
            .collect();
        let nearest = nearest(&self.name, known.iter().map(String::as_str));
        let expected = "expected the first two columns of a line of master.cf, as \"smtp/inet\"";
        let message = format!(
            "no service \"{}\": its settings have no effect: {}",
            self.name,
            or_nearest(nearest, expected)
        );
        Diagnostic::warning(self.place.clone(), message)
    }

    /// Returns the positions of endpoints in the table, if there are any, with the service's identity.
    fn apply(
        &self,
        service: &mut Service,
        system: System<'_>,
        findings: &mut Diagnostics,
    ) -> Option<endpoints::Written> {
        let mut draft = Draft::default();
        if let Err(error) = sandbox::apply_preset(self, service, &mut draft.sandbox, system) {
            findings.push(error);
        }
        for setting in &self.settings {
            if let Err(error) = setting.set(&mut draft, system) {
                findings.push(error);
            }
        }
        if let Some(error) = self.misplaced(&draft, service.kind) {
            findings.push(error);
        }
        let (mut pool, mut limits) = (draft.pool(), draft.limits);
        for misfit in sandbox::misfits(&draft.sandbox, service, system) {
            misfit.tell(self, findings);
        }
        let also_listen = draft.endpoints.finish(self, service, findings);
        let sandbox = (!draft.sandbox.is_empty()).then(|| Box::new(draft.sandbox));
        if let Some(Throttle { first, most }) = draft.throttle_time {
            service.throttle_time = first;
            limits.throttle_most = most;
        }
        for (key, message) in correct(&mut pool, service.max) {
            findings.push(Diagnostic::warning(self.place_of(key), message));
        }
        service.extra = Extra {
            pool,
            limits,
            also_listen: also_listen.listen,
            sandbox,
            group: draft.group.map(Vec::into_boxed_slice),
        }
        .boxed();
        also_listen.written
    }

    /// A warning for a time that `postfix stop` does not give (Postfix, `postfix-script`).
    fn too_slow(&self, service: &Service) -> Option<Diagnostic> {
        let time = service.limits().stop_timeout?;
        let message = format!(
            "\"stop_timeout\" = {} s is longer than \"postfix stop\" waits, which kills all \
             processes after 5 s: expected at most 5 s",
            time.as_secs()
        );
        (time > POSTFIX_STOP).then(|| Diagnostic::warning(self.place_of("stop_timeout"), message))
    }

    /// An error for a setting that has no meaning for the service.
    fn misplaced(&self, draft: &Draft, kind: Kind) -> Option<Diagnostic> {
        if draft.is_ordered() && matches!(kind, Kind::Fifo | Kind::UnixDgram) {
            let message = format!(
                "accept = \"ordered\" needs connections, which a {kind} service has none of: \
                 expected \"shared\""
            );
            return Some(Diagnostic::error(self.place_of("accept"), message));
        }
        let needed = |key: &str| match key {
            _ if ORDERED_ONLY.contains(&key) && !draft.is_ordered() => Some("accept = \"ordered\""),
            _ if PRELOADED_ONLY.contains(&key) && !draft.preload => Some("preload = true"),
            _ => None,
        };
        let mut settings = self.settings.iter();
        let (setting, needed) = settings.find_map(|s| Some((s, needed(&s.key)?)))?;
        let message = format!("\"{}\" needs {needed} beside it", setting.key);
        Some(Diagnostic::error(setting.key_place.clone(), message))
    }

    /// The position of a key; the table's position if the key is not set.
    fn place_of(&self, key: &str) -> Place {
        let setting = self.settings.iter().find(|setting| setting.key == key);
        setting
            .map_or(&self.place, |setting| &setting.key_place)
            .clone()
    }
}

impl Setting {
    fn set(&self, draft: &mut Draft, system: System<'_>) -> Result<(), Diagnostic> {
        if let Some(set) = sandbox::find(&self.key) {
            return set(&mut draft.sandbox, self, system).map_err(|mistake| self.error(mistake));
        }
        if let Some(set) = endpoints::find(&self.key) {
            return set(&mut draft.endpoints, self, system).map_err(|mistake| self.error(mistake));
        }
        if let Some(set) = group::set(&mut draft.group, &self.key, &self.value) {
            return set.map_err(|expected| self.error(expected.into()));
        }
        let Some((_, set)) = KEYS.iter().find(|(key, _)| *key == self.key) else {
            let own = || KEYS.iter().map(|(key, _)| *key);
            let own = || own().chain(endpoints::names()).chain(group::names());
            let known = || own().chain(sandbox::names());
            let nearest = nearest(&self.key, known());
            let expected = format!("expected one of {}", known().collect::<Vec<_>>().join(", "));
            let message = format!(
                "unknown key \"{}\": {}",
                self.key,
                or_nearest(nearest, &expected)
            );
            return Err(Diagnostic::error(self.key_place.clone(), message));
        };
        set(draft, &self.value).map_err(|expected| self.error(expected.into()))
    }

    fn error(&self, Mistake { place, expected }: Mistake) -> Diagnostic {
        let message = format!("bad value of \"{}\": expected {expected}", self.key);
        let error = || Diagnostic::error(place.unwrap_or(self.value_place.clone()), message);
        self.odd.clone().unwrap_or_else(error)
    }
}

/// Corrects contradictory settings. Returns the key and the explanation of each correction (spamd,
/// "ensure scaling parameters are logical"; spamd starts more children than its limit allows, we do
/// not).
fn correct(pool: &mut Pool, max: u32) -> Vec<(&'static str, String)> {
    let mut corrections = Vec::new();
    let mut correct = |key, value: &mut u32, to: u32, why: &str| {
        corrections.push((key, format!("\"{key}\" = {value} {why}: using {to}")));
        *value = to;
    };
    if max > 0 && pool.min_idle > max {
        let why = "is more than maxproc allows";
        correct("min_idle", &mut pool.min_idle, max - 1, why);
    }
    if !pool.is_ordered() {
        return corrections;
    }
    if pool.min_children < 1 {
        let why = "leaves no child for the first client";
        correct("min_children", &mut pool.min_children, 1, why);
    }
    if max > 0 && pool.min_children > max {
        let why = "is more than maxproc allows";
        correct("min_children", &mut pool.min_children, max, why);
    }
    if pool.max_idle < pool.min_idle {
        let why = "is less than \"min_idle\"";
        correct("max_idle", &mut pool.max_idle, pool.min_idle + 1, why);
    }
    corrections
}

#[cfg(test)]
mod tests;
