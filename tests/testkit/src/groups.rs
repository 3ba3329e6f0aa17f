//! Control groups of a master's services, as the kernel shows them.

use std::fs;
use std::path::{Path, PathBuf};

use master::groups::find_delegated;

use crate::instance::SOON;
use crate::poll::until;
use crate::process::Process;
use crate::{needs_root, skip};

/// A shell script of a child that takes no notice of signals, and leaves processes behind: with a
/// session of their own, and without a parent. See [`group_of_child`].
pub const FORKING: &str = "trap '' TERM INT HUP\n\
    (setsid sh -c 'trap \"\" TERM; while :; do sleep 999; done' &)\n\
    (setsid sleep 999 &)\necho $$ > $0.pid\nexec sleep 999";

/// Where the groups of masters are made.
pub fn delegated() -> PathBuf {
    needs_root("a control group is delegated to root");
    find_delegated("self").unwrap_or_else(|fault| skip(&fault))
}

/// The group of a child, from the text of its `/proc/PID/cgroup`.
#[track_caller]
pub fn group_of(cgroup: &str) -> PathBuf {
    let line = cgroup.lines().find_map(|line| line.strip_prefix("0::/"));
    // The tests' own group is the root of what they see, or above `delegated`.
    let name = line.and_then(|line| line.find("master-").map(|at| &line[at..]));
    let name = name.unwrap_or_else(|| panic!("a group in {cgroup:?}"));
    delegated().join(name)
}

pub fn processes(group: &Path) -> Vec<Process> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let pids = text.lines().filter_map(|pid| pid.parse().ok());
    pids.map(Process).collect()
}

/// The group of the child that has written its process ID into `SCRIPT.pid`, and what is in it: at
/// least `count` processes.
#[track_caller]
pub fn group_of_child(script: &Path, count: usize) -> (PathBuf, Vec<Process>) {
    let said = PathBuf::from(format!("{}.pid", script.display()));
    let child = until(SOON, "a child", || {
        let text = fs::read_to_string(&said).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    });
    let group = group_of(&Process(child).cgroup());
    until(SOON, format_args!("{count} processes"), || {
        processes(&group).len() >= count
    });
    let all = processes(&group);
    (group, all)
}

/// Waits until the processes have ended and the group is removed.
#[track_caller]
pub fn nothing_is_left(group: &Path, processes: &[Process]) {
    until(SOON, format_args!("{processes:?} end"), || {
        !processes.iter().any(|process| process.runs())
    });
    until(SOON, format_args!("{} is removed", group.display()), || {
        !group.exists()
    });
}
