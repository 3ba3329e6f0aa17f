//! The settings of a service's control group. Names and values follow systemd.resource-control(5), in
//! the spelling of `master.toml`.

use super::{Value, digits, size};
use crate::groups::{self, Setting};

/// All keys but [`GROUP`], with the kernel's file.
const KEYS: [(&str, &str, Read); 6] = [
    ("memory_max", "memory.max", memory),
    ("memory_high", "memory.high", memory),
    ("tasks_max", "pids.max", tasks),
    ("cpu_weight", "cpu.weight", cpu_weight),
    ("cpu_max", "cpu.max", cpu_max),
    ("io_weight", "io.weight", io_weight),
];

/// Has a service have a group without other settings.
const GROUP: &str = "control_group";

/// The value in the kernel's form, or what was expected.
type Read = fn(&Value) -> Result<groups::Value, &'static str>;

/// The most that one hundred percent and the like can be: a hundred thousand processors.
const PERCENT_MAX: u64 = 10_000_000;
/// The part of a hundredth percent of a processor that is a period of 100 ms, in microseconds.
const QUOTA: u64 = 10;

/// The names of all keys.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(name, ..)| *name).chain([GROUP])
}

/// Stores a value, if the key is one of these.
pub(super) fn set(
    group: &mut Option<Vec<Setting>>,
    key: &str,
    value: &Value,
) -> Option<Result<(), &'static str>> {
    if key == GROUP {
        return Some(match value {
            Value::Bool(true) => {
                group.get_or_insert_default();
                Ok(())
            }
            Value::Bool(false) => Ok(()),
            _ => Err("true or false"),
        });
    }
    let (name, file, read) = *KEYS.iter().find(|(name, ..)| *name == key)?;
    Some(read(value).map(|read| {
        let shown = shown(value);
        // A group whose processes run only when no others do has another file.
        let is_idle = name == "cpu_weight" && shown == "idle";
        let file = if is_idle { "cpu.idle" } else { file };
        let setting = Setting::new(name, shown, file, read);
        group.get_or_insert_default().push(setting);
    }))
}

/// A value as it was written.
fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        _ => String::new(),
    }
}

fn text(text: impl ToString) -> groups::Value {
    groups::Value::Text(text.to_string())
}

/// Hundredths of a percent, more than none: `50%`, `12.5%`.
fn percent(value: &Value) -> Option<u64> {
    let Value::Text(text) = value else {
        return None;
    };
    let number = text.strip_suffix('%')?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let part = match (part.len(), digits(part)?) {
        (1, tenths) => tenths * 10,
        (2, hundredths) => hundredths,
        _ => return None,
    };
    let parts = digits(whole)?.checked_mul(100)?.checked_add(part)?;
    (1..=PERCENT_MAX).contains(&parts).then_some(parts)
}

/// A part of what the machine has.
fn share(value: &Value) -> Option<u32> {
    let parts = percent(value).filter(|parts| *parts <= 10_000);
    parts.and_then(|parts| u32::try_from(parts).ok())
}

fn number(value: &Value, least: u64, most: u64) -> Option<u64> {
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => digits(text),
        _ => None,
    };
    number.filter(|number| (least..=most).contains(number))
}

fn is_infinity(value: &Value) -> bool {
    *value == Value::Text("infinity".to_owned())
}

fn memory(value: &Value) -> Result<groups::Value, &'static str> {
    if is_infinity(value) {
        return Ok(text("max"));
    }
    let bytes = match value {
        Value::Text(text) => size(text),
        other => number(other, 1, u64::MAX),
    };
    let bytes = bytes.filter(|bytes| *bytes > 0).map(text);
    let part = || share(value).map(groups::Value::OfMemory);
    bytes.or_else(part).ok_or(
        "a size in bytes, at least 1 (or with K, M, G, T), a part of the machine's memory as \
         \"50%\", or \"infinity\"",
    )
}

fn tasks(value: &Value) -> Result<groups::Value, &'static str> {
    if is_infinity(value) {
        return Ok(text("max"));
    }
    let number = number(value, 1, i32::MAX as u64).map(text);
    let part = || share(value).map(groups::Value::OfProcesses);
    number.or_else(part).ok_or(
        "a number of processes and threads, at least 1, a part of what the machine can have as \
         \"10%\", or \"infinity\"",
    )
}

fn cpu_weight(value: &Value) -> Result<groups::Value, &'static str> {
    if *value == Value::Text("idle".to_owned()) {
        return Ok(text(1));
    }
    let weight = number(value, 1, 10_000).map(text);
    weight.ok_or("a weight from 1 to 10000 (100 is usual), or \"idle\"")
}

fn cpu_max(value: &Value) -> Result<groups::Value, &'static str> {
    if is_infinity(value) {
        return Ok(text("max"));
    }
    let parts = percent(value).filter(|parts| *parts >= 100);
    let quota = parts.map(|parts| text(parts * QUOTA));
    quota.ok_or(
        "a part of one processor, at least 1%, as \"50%\" (\"200%\" is two processors), or \
         \"infinity\"",
    )
}

fn io_weight(value: &Value) -> Result<groups::Value, &'static str> {
    let weight = number(value, 1, 10_000);
    let weight = weight.map(|weight| text(format!("default {weight}")));
    weight.ok_or("a weight from 1 to 10000 (100 is usual)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, value: Value) -> Result<(String, groups::Value), &'static str> {
        let mut group = None;
        set(&mut group, key, &value).expect("a known key")?;
        let setting = group.expect("a group").remove(0);
        Ok((setting.file.into_owned(), setting.value))
    }

    fn of(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn values_are_those_of_systemd() {
        for (key, value, file, expected) in [
            ("memory_max", of("1G"), "memory.max", text(1 << 30)),
            ("memory_max", Value::Integer(4096), "memory.max", text(4096)),
            ("memory_high", of("infinity"), "memory.high", text("max")),
            (
                "memory_high",
                of("12.5%"),
                "memory.high",
                groups::Value::OfMemory(1250),
            ),
            ("tasks_max", Value::Integer(7), "pids.max", text(7)),
            (
                "tasks_max",
                of("10%"),
                "pids.max",
                groups::Value::OfProcesses(1000),
            ),
            ("cpu_weight", Value::Integer(50), "cpu.weight", text(50)),
            ("cpu_weight", of("idle"), "cpu.idle", text(1)),
            ("cpu_max", of("150%"), "cpu.max", text(150_000)),
            ("cpu_max", of("infinity"), "cpu.max", text("max")),
            (
                "io_weight",
                Value::Integer(10),
                "io.weight",
                text("default 10"),
            ),
        ] {
            assert_eq!(read(key, value), Ok((file.to_owned(), expected)), "{key}");
        }
    }

    #[test]
    fn other_values_are_refused() {
        for (key, values) in [
            (
                "memory_max",
                vec![of("0"), of("-1"), of("1X"), of("101%"), of("0%"), of("%")],
            ),
            (
                "memory_high",
                vec![Value::Integer(0), Value::Bool(true), of("")],
            ),
            (
                "tasks_max",
                vec![of("0"), of("1.555%"), of("1e9"), of("99999999999")],
            ),
            ("cpu_weight", vec![of("0"), of("10001"), of("Idle")]),
            (
                "cpu_max",
                vec![of("50"), of("0.5%"), of("-5%"), of("100001%"), of("5%%")],
            ),
            ("io_weight", vec![of("0"), of("default 5")]),
            ("control_group", vec![of("true"), Value::Integer(1)]),
        ] {
            for value in values {
                assert!(read(key, value.clone()).is_err(), "{key} = {value:?}");
            }
        }
        assert!(set(&mut None, "memory_min", &of("1G")).is_none());
    }
}
