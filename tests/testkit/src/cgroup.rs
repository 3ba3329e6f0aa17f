//! A limit on the number of processes that also applies to root.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::gettid;

use crate::instance::SOON;
use crate::poll::within;
use crate::process::Process;

/// A control group that can be limited to its current number of processes.
pub struct Group(PathBuf);

impl Group {
    /// An empty group; `None` if the system has no such groups, or no permission.
    pub fn make() -> Option<Self> {
        let name = format!("master-test-{}", gettid());
        let group = Self(parent()?.join(name));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join("pids.max"), "max").ok()?;
        Some(group)
    }

    /// Adds a process, and all that it will start.
    pub fn take_in(&self, process: Process) {
        fs::write(self.0.join("cgroup.procs"), process.0.to_string()).expect("a member");
    }

    /// Limits the group to its current number of processes.
    pub fn close(&self) {
        let now = fs::read_to_string(self.0.join("pids.current")).expect("a number");
        self.limit(now.trim());
    }

    /// Removes the limit.
    pub fn open(&self) {
        self.limit("max");
    }

    fn limit(&self, limit: &str) {
        fs::write(self.0.join("pids.max"), limit).expect("a limit");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last members may just be ending.
        within(SOON, || fs::remove_dir(&self.0).is_ok());
    }
}

/// The directory for groups with a process limit, in cgroup v1 or v2.
fn parent() -> Option<PathBuf> {
    let ours = fs::read_to_string("/proc/self/cgroup").ok()?;
    let below = |root: &str, path: &str| Path::new(root).join(path.trim_start_matches('/'));
    let path = |kind: &str| ours.lines().find_map(|line| line.split_once(kind));
    if let Some((_, path)) = path(":pids:") {
        return Some(below("/sys/fs/cgroup/pids", path));
    }
    Some(below("/sys/fs/cgroup", path("0::")?.1))
}
