//! Control groups (version 2) of services: where they are, what they may use, what they use, and how
//! all that is in them is ended.
//!
//! Below the group in which the master was started, which must be its own (systemd's `Delegate=`), is
//! one group for each master, by the name of its instance. In that is `main`, the group of the master
//! itself and of all services without a group of their own: a group that passes controllers on may
//! have no processes. Beside it is a group for each service that asks for one.
//!
//! A child joins its group by itself, in `master-exec`, when it has memory of its own. It is not born
//! there (`CLONE_INTO_CGROUP`): until exec it shares the master's memory, and when a group has used up
//! its own, the kernel kills all processes that share memory with the one that it chooses.
//!
//! Nothing here waits. Limits of a group that has processes are written by another process: a lower one
//! of memory takes pages away from them, in the time of the writer.

mod home;
mod tree;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

use self::home::Home;
use crate::errors::describe_error;
use crate::sys::{detached, process};
pub use home::find_delegated;
pub use value::Value;

/// One setting of a group: its name, the kernel's file, what is written there, and what is if it is not
/// set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Setting {
    pub name: Cow<'static, str>,
    /// As the configuration has it.
    pub shown: String,
    pub file: Cow<'static, str>,
    pub value: Value,
    pub usual: Cow<'static, str>,
}

/// What all processes of a group use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Bytes; unknown without the controller of memory.
    pub memory: Option<u64>,
    /// Processor time, that of processes which have ended included.
    pub processor: Option<Duration>,
}

/// A group is removed once its processes have ended; it is tried this often.
const RETRY: Duration = Duration::from_millis(100);
/// After this number of times it is left to the next start of the master.
const RETRIES_MAX: u32 = 600;

/// Bytes of what could not be set that are read at a time.
const FAULTS_MAX: u64 = 4096;

/// The group of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Group {
    path: PathBuf,
    settings: Vec<Setting>,
    /// A child had to be killed, and may have left processes behind.
    remnants: bool,
    /// New children are not in it any more.
    released: bool,
}

/// Limits that another process writes.
#[derive(Clone, Debug)]
struct Change {
    place: usize,
    /// What could not be set, a line each.
    faults: Arc<File>,
    /// When these are read again.
    at: Duration,
}

/// A group that is removed once it is empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Dying {
    path: PathBuf,
    at: Duration,
    tries: u32,
}

/// The groups of a master's services, by their places. The next version of the program goes on with
/// them as they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Groups {
    /// Once it was looked for.
    home: Option<Result<Home, String>>,
    #[serde(with = "pairs")]
    groups: BTreeMap<usize, Group>,
    dying: Vec<Dying>,
    /// Those that are under way at an upgrade come to their end untold.
    #[serde(skip)]
    changing: Vec<Change>,
}

impl Groups {
    /// Looks for the place of the groups when it is first needed, ends what a former master of this
    /// name has left behind, and makes the place. What is wrong, the first time.
    pub fn open(&mut self, now: Duration, instance: &Path) -> Option<String> {
        if self.home.is_some() {
            return None;
        }
        let home = Home::make(instance);
        if let Ok(home) = &home {
            for path in home.stale() {
                self.end(now, path);
            }
        }
        let fault = home.as_ref().err().cloned();
        self.home = Some(home);
        fault
    }

    /// Gives a service a group with these settings, or changes those of the group that it has. What
    /// could not be set.
    pub fn set(
        &mut self,
        now: Duration,
        place: usize,
        service: &str,
        settings: Vec<Setting>,
    ) -> Vec<String> {
        let Some(Ok(home)) = &mut self.home else {
            return Vec::new();
        };
        let mut faults = home.enable(&settings);
        if let Some(group) = self.groups.get_mut(&place) {
            group.released = false;
            let former = std::mem::replace(&mut group.settings, settings);
            let writes: Vec<_> = changes(&former, group).collect();
            if writes.is_empty() {
                return faults;
            }
            match write_all(writes) {
                Ok(faults) => self.changing.push(Change {
                    place,
                    faults: faults.into(),
                    at: now + RETRY,
                }),
                Err(error) => {
                    faults.push(format!("cannot change limits: {}", describe_error(&error)))
                }
            }
            return faults;
        }
        let path = home.path().join(tree::name(place, service));
        self.dying.retain(|dying| dying.path != path);
        let group = Group {
            path,
            settings,
            remnants: false,
            released: false,
        };
        faults.extend(group.make());
        self.groups.insert(place, group);
        faults
    }

    /// The group of a service, made again if another process has removed it.
    pub fn path(&self, place: usize) -> Option<&Path> {
        let group = self.groups.get(&place).filter(|group| !group.released)?;
        if !group.path.is_dir() {
            // A child that cannot join it says so.
            group.make();
        }
        Some(&group.path)
    }

    /// Ends all processes of a service's group.
    pub fn kill(&self, place: usize) {
        if let Some(group) = self.groups.get(&place) {
            tree::kill(&group.path);
        }
    }

    /// A child had to be killed: what is left when its service has no children is killed as well.
    pub fn has_remnants(&mut self, place: usize) {
        if let Some(group) = self.groups.get_mut(&place) {
            group.remnants = true;
        }
    }

    /// A service has no group any more. The children that it has stay in theirs until they leave.
    pub fn release(&mut self, place: usize) {
        if let Some(group) = self.groups.get_mut(&place) {
            group.released = true;
        }
    }

    /// A service has no children any more.
    pub fn childless(&mut self, now: Duration, place: usize) {
        let Some(group) = self.groups.get_mut(&place) else {
            return;
        };
        if group.released {
            self.remove(now, place);
        } else if std::mem::take(&mut group.remnants) {
            self.kill(place);
        }
    }

    /// A service is gone, or has no group any more: ends what is in its group, and removes it.
    pub fn remove(&mut self, now: Duration, place: usize) {
        if let Some(group) = self.groups.remove(&place) {
            self.end(now, group.path);
        }
    }

    fn end(&mut self, now: Duration, path: PathBuf) {
        tree::kill(&path);
        if !tree::remove(&path) {
            self.dying.push(Dying {
                path,
                at: now + RETRY,
                tries: 0,
            });
        }
    }

    /// When [`Self::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        let dying = self.dying.iter().map(|dying| dying.at);
        let changing = self.changing.iter().map(|change| change.at);
        dying.chain(changing).min()
    }

    /// Removes groups whose processes have ended since. The places of others, and what could not be set
    /// there.
    pub fn expire(&mut self, now: Duration) -> Vec<(usize, String)> {
        self.dying.retain_mut(|dying| {
            if dying.at > now {
                return true;
            }
            // Processes can have come in while it was emptied.
            tree::kill(&dying.path);
            dying.at = now + RETRY;
            dying.tries = dying.tries.saturating_add(1);
            !tree::remove(&dying.path) && dying.tries < RETRIES_MAX
        });
        let mut faults = Vec::new();
        self.changing
            .retain_mut(|change| change.at > now || change.is_under_way(now, &mut faults));
        faults
    }

    /// What a service's processes use.
    pub fn usage(&self, place: usize) -> Option<Usage> {
        let group = self.groups.get(&place)?;
        let read = |file: &str| fs::read_to_string(group.path.join(file)).ok();
        let memory = read("memory.current").and_then(|text| text.trim().parse().ok());
        let processor = read("cpu.stat").and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("usage_usec "));
            line?.parse().ok().map(Duration::from_micros)
        });
        Some(Usage { memory, processor })
    }

    /// Whether there is a place for groups, which [`Self::end_all`] removes.
    pub fn have_home(&self) -> bool {
        matches!(self.home, Some(Ok(_)))
    }

    /// Whether a process is left in any group.
    pub fn are_populated(&self) -> bool {
        self.groups
            .values()
            .any(|group| tree::is_populated(&group.path))
    }

    /// The master ends: kills what is left in all groups, and removes them. Whether all are gone; if
    /// not, it is called again a little later.
    pub fn end_all(&mut self) -> bool {
        let paths = self.groups.values().map(|group| &group.path);
        let paths = paths.chain(self.dying.iter().map(|dying| &dying.path));
        // Each of them, and not only the first.
        let gone = paths.fold(true, |gone, path| {
            tree::kill(path);
            tree::remove(path) && gone
        });
        if let (true, Some(Ok(home))) = (gone, &self.home) {
            home.leave();
        }
        gone
    }
}

impl Change {
    /// Reads what could not be set. Whether there may be more.
    fn is_under_way(&mut self, now: Duration, faults: &mut Vec<(usize, String)>) -> bool {
        let mut text = String::new();
        let read = (&*self.faults).take(FAULTS_MAX).read_to_string(&mut text);
        faults.extend(text.lines().map(|line| (self.place, line.to_owned())));
        self.at = now + RETRY;
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Group {
    /// The beginning of a line that says that a setting of the group has no effect.
    fn cannot_set(&self, setting: &Setting) -> String {
        format!("cannot set \"{}\" of {}", setting.name, self.path.display())
    }

    /// Makes the group. One that is there already, because its processes have not ended yet, gets all
    /// values anew. What could not be done.
    fn make(&self) -> Vec<String> {
        let fault = |what: String, error: io::Error| format!("{what}: {}", describe_error(&error));
        match fs::create_dir(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => tree::restore(&self.path),
            Err(error) => {
                let what = format!("cannot make the group {}", self.path.display());
                return vec![fault(what, error)];
            }
        }
        let set = |setting: &Setting| {
            let file = self.path.join(&*setting.file);
            let error = fs::write(file, setting.value.text()).err()?;
            Some(fault(self.cannot_set(setting), error))
        };
        self.settings.iter().filter_map(set).collect()
    }
}

/// A text for a file of the kernel.
#[derive(Debug)]
struct Write {
    file: PathBuf,
    text: String,
    /// How the line begins that tells of a failure; none if a failure does not matter.
    fault: Option<String>,
}

/// Writes into files, one after the other, in a copy of this process: a write can wait for what others
/// do. The copy sends a line for each failure that matters: the descriptor never blocks, and is at its
/// end when all is written.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`, `EMFILE`, `ENFILE`: there is no room for another process, or for the pipe.
fn write_all(writes: Vec<Write>) -> io::Result<File> {
    let faults = detached::start(None, |mut pipe| {
        for Write { file, text, fault } in writes {
            if let (Err(error), Some(fault)) = (fs::write(file, text), fault) {
                // It fails when the master has ended.
                let _ = writeln!(pipe, "{fault}: {}", describe_error(&error));
            }
        }
    })?;
    process::set_nonblocking(&faults)?;
    Ok(faults)
}

/// What is written where a group had `former` settings: what is usual for those that are gone, and
/// then what has changed.
fn changes<'a>(former: &'a [Setting], group: &'a Group) -> impl Iterator<Item = Write> + 'a {
    let wanted = &group.settings;
    let is_wanted = |file| wanted.iter().any(|setting| setting.file == file);
    let gone = former
        .iter()
        .filter(move |setting| !is_wanted(&*setting.file));
    let gone = gone.map(|setting| (setting, setting.usual.to_string(), None));
    let set = wanted.iter().filter(|setting| !former.contains(setting));
    let set = set.map(|setting| {
        let text = setting.value.text();
        (setting, text, Some(group.cannot_set(setting)))
    });
    gone.chain(set).map(|(setting, text, fault)| Write {
        file: group.path.join(&*setting.file),
        text,
        fault,
    })
}

/// A map whose keys are numbers, which JSON does not have.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Group;

    pub(super) fn serialize<S: Serializer>(
        groups: &BTreeMap<usize, Group>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(groups)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<usize, Group>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(file: &'static str, text: &str, usual: &'static str) -> Setting {
        Setting {
            name: "name".into(),
            shown: text.to_owned(),
            file: file.into(),
            value: Value::Text(text.to_owned()),
            usual: usual.into(),
        }
    }

    fn group(settings: impl Into<Vec<Setting>>) -> Group {
        Group {
            path: "/group".into(),
            settings: settings.into(),
            remnants: false,
            released: false,
        }
    }

    #[test]
    fn a_reload_writes_what_has_changed_and_what_is_usual_for_what_is_gone() {
        let former = [
            setting("memory.max", "1", "max"),
            setting("pids.max", "2", "max"),
            setting("cpu.weight", "3", "100"),
        ];
        let group = group([
            setting("memory.max", "1", "max"),
            setting("pids.max", "5", "max"),
            setting("cpu.idle", "1", "0"),
        ]);
        let changed: Vec<_> = changes(&former, &group).collect();
        let fault = Some("cannot set \"name\" of /group");
        let expected = [
            ("/group/cpu.weight", "100", None),
            ("/group/pids.max", "5", fault),
            ("/group/cpu.idle", "1", fault),
        ];
        let written = |write: &Write| {
            let file = write.file.display().to_string();
            (file, write.text.clone(), write.fault.clone())
        };
        assert_eq!(
            changed.iter().map(written).collect::<Vec<_>>(),
            expected.map(|(file, text, fault)| (file.into(), text.into(), fault.map(Into::into)))
        );
    }

    #[test]
    fn names_of_groups_are_safe_and_different() {
        let name = |service: &str| tree::name(3, service);
        assert_eq!(name("inet-[::1]:25"), "service-3-inet-%5b::1%5d:25");
        assert_eq!(name("unix-private/.."), "service-3-unix-private%2f..");
        let long = "x".repeat(5000);
        let other = format!("{long}y");
        assert!(name(&long).len() < 200);
        assert_ne!(name(&long), name(&other));
        let odd = "\u{e9}\n\0/%";
        assert!(name(odd).bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
    }

    #[test]
    fn the_group_is_found_below_the_mount_that_has_it() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      33 31 0:30 /other /mnt/part rw - cgroup2 cgroup2 rw\n\
                      34 31 0:30 / /sys/fs/c\\040group rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let found = home::locate("1:cpu:/a\n0::/system.slice/x.service\n", mounts);
        let path = Path::new("/sys/fs/c group/system.slice/x.service");
        assert_eq!(found.as_deref(), Some(path));
        assert_eq!(home::locate("1:cpu:/a\n", mounts), None);
        // Outside of the process's namespace.
        assert_eq!(home::locate("0::/../x\n", mounts), None);
        assert_eq!(
            home::locate("0::/other/x\n", mounts).as_deref(),
            Some(Path::new("/mnt/part/x"))
        );
    }
}
