//! What is written into a group's file.

use std::fs;

use serde_derive::{Deserialize, Serialize};

/// A value, as the settings have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Value {
    /// In the kernel's form.
    Text(String),
    /// Hundredths of a percent of the machine's memory.
    OfMemory(u32),
    /// The same of the processes that the machine can have.
    OfProcesses(u32),
}

const WHOLE: u64 = 10_000;

impl Value {
    /// In the kernel's form. Where the machine does not tell what it has, there is no limit.
    pub(super) fn text(&self) -> String {
        let part = |whole: Option<u64>, part: u32| match whole {
            Some(whole) => (whole / WHOLE * u64::from(part)).to_string(),
            None => "max".to_owned(),
        };
        match self {
            Self::Text(text) => text.clone(),
            Self::OfMemory(parts) => part(memory(), *parts),
            Self::OfProcesses(parts) => part(processes(), *parts),
        }
    }
}

/// The bytes of memory that the machine has.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn processes() -> Option<u64> {
    let files = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let numbers = files.iter().filter_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        text.trim().parse().ok()
    });
    numbers.min()
}
