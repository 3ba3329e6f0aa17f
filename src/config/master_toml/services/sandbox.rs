//! The settings of a service's sandbox. Names and values follow systemd.exec(5), in the spelling of
//! `master.toml`.

mod calls;
mod files;
mod presets;
mod privileges;

pub(super) use presets::apply as apply_preset;
pub(super) use privileges::gid;

use super::{Mistake, ServiceTable, Setting, System, Value, digits, size, yes};
use crate::config::numbers::seconds;
use crate::config::{Diagnostic, Diagnostics, Service};
use crate::sandbox::{Bounds, IoPriority, Limit, SIZE_MAX, Sandbox};

/// Stores a value, or tells what was expected instead.
type Set = fn(&mut Sandbox, &Setting, System<'_>) -> Result<(), Mistake>;

/// All keys but the limits.
const KEYS: [(&str, Set); 17] = [
    ("nice", |sandbox, setting, _| nice(sandbox, setting)),
    ("ionice", |sandbox, setting, _| ionice(sandbox, setting)),
    ("oom_score_adjust", |sandbox, setting, _| {
        oom_score_adjust(sandbox, setting)
    }),
    ("umask", |sandbox, setting, _| umask(sandbox, setting)),
    ("cpu_affinity", |sandbox, setting, _| {
        cpu_affinity(sandbox, setting)
    }),
    ("read_only_paths", |sandbox, setting, system| {
        files::paths(setting, &mut sandbox.files.read_only, system)
    }),
    ("read_write_paths", |sandbox, setting, system| {
        files::paths(setting, &mut sandbox.files.read_write, system)
    }),
    ("isolate", |sandbox, setting, _| {
        files::isolate(sandbox, setting)
    }),
    ("sandbox", |sandbox, setting, _| {
        sandbox.files.required = presets::words(setting)?.is_required;
        Ok(())
    }),
    ("user", privileges::user),
    ("group", privileges::group),
    ("supplementary_groups", privileges::supplementary_groups),
    ("no_new_privileges", |sandbox, setting, _| {
        Ok(yes(&setting.value, &mut sandbox.no_new_privileges)?)
    }),
    ("capability_bounding_set", |sandbox, setting, _| {
        privileges::capabilities(setting, &mut sandbox.capability_bounding_set)
    }),
    ("ambient_capabilities", |sandbox, setting, _| {
        privileges::capabilities(setting, &mut sandbox.ambient_capabilities)
    }),
    ("system_call_filter", |sandbox, setting, _| {
        calls::filter(sandbox, setting)
    }),
    ("system_call_error_number", |sandbox, setting, _| {
        calls::error_number(sandbox, setting)
    }),
];

/// The number of processors that a set of them has room for.
const CPUS: usize = 1024;

/// A setting that does not fit to others, or to the master.
pub(super) struct Misfit {
    is_error: bool,
    key: &'static str,
    message: String,
    /// It is not about one service, so it is told of the first one only.
    once: bool,
}

impl Misfit {
    fn error(key: &'static str, message: String) -> Self {
        Self {
            is_error: true,
            key,
            message,
            once: false,
        }
    }

    fn warning(key: &'static str, message: String) -> Self {
        Self {
            is_error: false,
            key,
            message,
            once: false,
        }
    }

    fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// Adds it to the findings about a table.
    pub(super) fn tell(self, table: &ServiceTable, findings: &mut Diagnostics) {
        let is_same = |finding: &Diagnostic| finding.message == self.message;
        if self.once && findings.0.iter().any(is_same) {
            return;
        }
        let has = |key: &str| table.settings.iter().any(|setting| setting.key == key);
        // A preset has set what the table does not.
        let key = if has(self.key) { self.key } else { "sandbox" };
        let place = table.place_of(key);
        findings.push(if self.is_error {
            Diagnostic::error(place, self.message)
        } else {
            Diagnostic::warning(place, self.message)
        });
    }
}

/// What is wrong with settings that are good each by itself.
pub(super) fn misfits(sandbox: &Sandbox, service: &Service, system: System<'_>) -> Vec<Misfit> {
    let mut found = privileges::misfits(sandbox, service, system);
    found.extend(files::misfits(sandbox, service, system));
    if sandbox.system_call_kill && sandbox.system_call_filter.is_none() {
        let message = "\"system_call_error_number\" needs \"system_call_filter\" beside it";
        found.push(Misfit::error(
            "system_call_error_number",
            message.to_owned(),
        ));
    }
    let own = sandbox
        .shown()
        .first()
        .and_then(|(key, _)| names().find(|name| name == key));
    if let (None, Some(key)) = (sandbox.encode(), own) {
        let message =
            format!("the limits and sandbox of a service take more than {SIZE_MAX} bytes");
        found.push(Misfit::error(key, message));
    }
    found
}

/// The names of all keys.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let limits = Limit::ALL.iter().map(|(name, _)| *name);
    limits.chain(KEYS.iter().map(|(name, _)| *name))
}

/// How a key is set, if it is one of these.
pub(super) fn find(key: &str) -> Option<Set> {
    if Limit::ALL.iter().any(|(name, _)| *name == key) {
        return Some(|sandbox, setting, _| limit(sandbox, setting));
    }
    let (_, set) = KEYS.iter().find(|(name, _)| *name == key)?;
    Some(*set)
}

fn limit(sandbox: &mut Sandbox, setting: &Setting) -> Result<(), Mistake> {
    let known = Limit::ALL.iter().find(|(name, _)| *name == setting.key);
    let Some((_, limit)) = known else {
        return Err("the name of a limit".into());
    };
    let bounds = match &setting.value {
        Value::Integer(number) => u64::try_from(*number).ok().map(|n| (n, n)),
        Value::Text(text) => match text.split_once(':') {
            Some((soft, hard)) => amount(*limit, soft).zip(amount(*limit, hard)),
            None => amount(*limit, text).map(|n| (n, n)),
        },
        _ => None,
    };
    let what = match limit {
        Limit::Nofile | Limit::Nproc => "a number",
        Limit::Cpu => "a time in seconds (or with m, h, d, w)",
        _ => "a size in bytes (or with K, M, G, T)",
    };
    let (soft, hard) = bounds.ok_or_else(|| {
        format!("{what}, two of them as \"soft:hard\", or \"infinity\"; none is below 0")
    })?;
    if soft > hard {
        return Err("a soft limit that is not above the hard limit after it".into());
    }
    sandbox.limits.insert(*limit, Bounds { soft, hard });
    sandbox.ceilings.remove(limit);
    Ok(())
}

/// One value of a limit.
fn amount(limit: Limit, text: &str) -> Option<u64> {
    if text == "infinity" {
        return Some(u64::MAX);
    }
    match limit {
        Limit::Nofile | Limit::Nproc => digits(text),
        Limit::Cpu => {
            let is_number = text.starts_with(|c: char| c.is_ascii_digit());
            let has_one_unit =
                text.trim_end_matches(['s', 'm', 'h', 'd', 'w']).len() + 1 >= text.len();
            let seconds = seconds(text.as_bytes()).filter(|_| is_number && has_one_unit);
            seconds.and_then(|seconds| u64::try_from(seconds).ok())
        }
        _ => size(text),
    }
}

fn nice(sandbox: &mut Sandbox, setting: &Setting) -> Result<(), Mistake> {
    sandbox.nice = Some(integer(&setting.value, -20, 19).ok_or("an integer from -20 to 19")?);
    Ok(())
}

fn oom_score_adjust(sandbox: &mut Sandbox, setting: &Setting) -> Result<(), Mistake> {
    let score = integer(&setting.value, -1000, 1000);
    sandbox.oom_score_adjust = Some(score.ok_or("an integer from -1000 to 1000")?);
    Ok(())
}

fn integer(value: &Value, least: i32, most: i32) -> Option<i32> {
    let Value::Integer(number) = value else {
        return None;
    };
    let number = i32::try_from(*number).ok()?;
    (least..=most).contains(&number).then_some(number)
}

fn ionice(sandbox: &mut Sandbox, setting: &Setting) -> Result<(), Mistake> {
    let priority = match &setting.value {
        Value::Text(text) => io_priority(text),
        _ => None,
    };
    sandbox.ionice = Some(priority.ok_or(
        "\"idle\", \"best-effort\" or \"realtime\", the latter two with a level from 0 (first) to 7 \
         as in \"best-effort:7\"",
    )?);
    Ok(())
}

fn io_priority(text: &str) -> Option<IoPriority> {
    /// The level that the kernel gives by itself.
    const USUAL: u8 = 4;
    if text == "idle" {
        return Some(IoPriority::Idle);
    }
    let (class, level) = match text.split_once(':') {
        None => (text, USUAL),
        Some((class, level)) => {
            let level = level.bytes().next().filter(|_| level.len() == 1)?;
            (class, level.checked_sub(b'0').filter(|level| *level <= 7)?)
        }
    };
    match class {
        "best-effort" => Some(IoPriority::BestEffort(level)),
        "realtime" => Some(IoPriority::Realtime(level)),
        _ => None,
    }
}

fn umask(sandbox: &mut Sandbox, setting: &Setting) -> Result<(), Mistake> {
    let mask = match &setting.value {
        Value::Text(text) if text.bytes().all(|b| matches!(b, b'0'..=b'7')) => {
            u32::from_str_radix(text, 8).ok()
        }
        _ => None,
    };
    let mask = mask.filter(|mask| *mask <= 0o777);
    sandbox.umask = Some(mask.ok_or("an octal number from \"0000\" to \"0777\", as a string")?);
    Ok(())
}

fn cpu_affinity(sandbox: &mut Sandbox, setting: &Setting) -> Result<(), Mistake> {
    let expected =
        || format!("numbers of processors below {CPUS}, as in \"0-3,6\" or [0, 1, 2, 3, 6]");
    let number = |number: i64| usize::try_from(number).ok().filter(|n| *n < CPUS);
    let mut cpus = match &setting.value {
        Value::Integer(one) => number(*one).map(|cpu| vec![cpu]).ok_or_else(expected)?,
        Value::Text(text) => cpu_list(text).ok_or_else(expected)?,
        Value::List(items) => {
            let cpus = items.iter().map(|(item, place)| {
                let cpu = match item {
                    Value::Integer(one) => number(*one),
                    _ => None,
                };
                cpu.ok_or_else(|| Mistake {
                    place: Some(place.clone()),
                    expected: expected().into(),
                })
            });
            cpus.collect::<Result<_, _>>()?
        }
        _ => return Err(expected().into()),
    };
    cpus.sort_unstable();
    cpus.dedup();
    if cpus.is_empty() {
        return Err(expected().into());
    }
    sandbox.cpu_affinity = cpus;
    Ok(())
}

/// Numbers and ranges, with commas or spaces between.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number: Option<usize> = is_number.then(|| text.parse().ok()).flatten();
        number.filter(|cpu| *cpu < CPUS)
    };
    let mut cpus = Vec::new();
    for item in text.split([',', ' ']).filter(|item| !item.is_empty()) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = number(first).zip(number(last)).filter(|(a, b)| a <= b)?;
        cpus.extend(first..=last);
        // Numbers that are there twice are dropped later, and must not take much memory until then.
        cpus.sort_unstable();
        cpus.dedup();
    }
    Some(cpus)
}

#[cfg(test)]
mod tests;
