//! A control group for a master and all that it starts: the kernel counts the processor time of
//! every process in it, of those that have ended too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// It is removed when this is dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// An empty group; none where the system has none of version 2, or keeps them to itself.
    pub fn make() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("benches-{}-{number}", std::process::id());
        let group = Self(parent()?.join(name));
        fs::create_dir(&group.0).ok()?;
        group.usage().ok()?;
        Some(group)
    }

    /// Where a process that writes `0` becomes a member.
    pub fn members(&self) -> Result<File> {
        let path = self.0.join("cgroup.procs");
        let file = File::options().write(true).open(&path);
        file.with_context(|| path.display().to_string())
    }

    /// The processor time that all members have used.
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
        // The last members may be about to go.
        let end = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The group that this process is in.
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
