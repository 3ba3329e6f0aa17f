//! A control group for a master and all its children: the kernel counts the processor time of all
//! its processes, including those that have ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The directory is removed on drop.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Creates an empty group; `None` if there is no cgroup v2, or no permission.
    pub fn make() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("benches-{}-{number}", std::process::id());
        let group = Self(parent()?.join(name));
        fs::create_dir(&group.0).ok()?;
        group.usage().ok()?;
        Some(group)
    }

    /// The file into which a process writes `0` to join the group.
    pub fn members(&self) -> Result<File> {
        let path = self.0.join("cgroup.procs");
        let file = File::options().write(true).open(&path);
        file.with_context(|| path.display().to_string())
    }

    /// The processor time of all members.
    pub fn usage(&self) -> Result<Duration> {
        let text = fs::read_to_string(self.0.join("cpu.stat"))?;
        let micros = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        Ok(Duration::from_micros(micros.context("no usage")?.parse()?))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The last members may just be ending.
        let end = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The group of this process.
fn parent() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then_some(path)
    })?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(Path::new(mount).join(path.trim_start_matches('/')))
}
