//! Information about processes from proc(5).

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;

use master::config::User;
use master::options::Options;
use nix::unistd::{SysconfVar, sysconf};

/// The resource usage of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Processor time, in seconds.
    pub processor: f64,
}

/// The usage of a process; `None` if it has ended or access is denied.
pub fn usage(pid: i32) -> Option<Usage> {
    let fields = stat(pid)?;
    let number = |nth: usize| fields.get(nth - FIRST)?.parse::<u64>().ok();
    let constant = |name| sysconf(name).ok().flatten().filter(|n| *n > 0);
    let ticks = constant(SysconfVar::CLK_TCK)? as f64;
    let page = constant(SysconfVar::PAGE_SIZE)? as u64;
    Some(Usage {
        memory: number(RSS)? * page,
        processor: (number(UTIME)? + number(STIME)?) as f64 / ticks,
    })
}

/// The start time of a process in clock ticks since the boot. It distinguishes the process from a
/// later one with the same ID. `None` if the process has ended.
pub fn began(pid: i32) -> Option<u64> {
    let fields = stat(pid)?;
    let ended = matches!(fields.first()?.as_str(), "Z" | "X");
    let began = fields.get(START_TIME - FIRST)?.parse().ok()?;
    (!ended).then_some(began)
}

/// Whether a process was stopped by a signal.
pub fn is_stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "T"))
}

/// The user and group that a process acts for; `None` if it has ended.
pub fn user(pid: i32) -> Option<User> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let effective = |key: &str| {
        let ids = status.lines().find_map(|line| line.strip_prefix(key))?;
        ids.split_whitespace().nth(1)?.parse().ok()
    };
    let (uid, gid) = (effective("Uid:")?, effective("Gid:")?);
    Some(User { uid, gid })
}

/// Whether a master was started with `-d`.
pub fn is_attached_master(pid: i32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty());
    let words = words
        .skip(1)
        .map(|word| OsString::from_vec(word.to_owned()));
    Options::parse(words, |_| false).is_ok_and(|options| options.attached)
}

/// Fields are numbered as in proc(5): the first after the name is number 3.
const FIRST: usize = 3;
const UTIME: usize = 14;
const STIME: usize = 15;
const START_TIME: usize = 22;
const RSS: usize = 24;

fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain parentheses.
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let own = std::process::id() as i32;
        let usage = usage(own).expect("this process");
        assert!(usage.memory > 1 << 16, "{usage:?}");
        assert!(began(own).is_some());
        assert_eq!(began(0), None);
    }
}
