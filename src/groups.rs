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
//! Nothing here waits. Limits of a group that has processes are written by another process, one at a
//! time for each group: a lower one of memory takes pages away from them, in the time of the writer. For
//! the same reason a group is not used again in which a former service of its name has left processes.

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

impl Setting {
    /// A setting of this name, which is `value` in this file of the kernel.
    pub fn new(name: &'static str, shown: String, file: &'static str, value: Value) -> Self {
        let usual = tree::USUAL.iter().find(|(other, _)| *other == file);
        Self {
            name: name.into(),
            shown,
            file: file.into(),
            value,
            usual: usual.map_or("", |(_, usual)| usual).into(),
        }
    }
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

/// Groups of a service's name that may not be gone yet when it gets another one.
const NAMES_MAX: u32 = 100;

/// The group of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Group {
    path: PathBuf,
    settings: Vec<Setting>,
    /// Some of them could not be written: the next reload writes all of them.
    #[serde(default)]
    unsure: bool,
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
    /// There are other settings by now, which are written when these are: two processes at a time could
    /// overtake each other.
    again: bool,
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
            faults.extend(self.change(now, place, settings));
            return faults;
        }
        // A group of that name may have processes that do not end: it is not used again.
        let path = |number| home.path().join(tree::name(place, service, number));
        let free = (0..NAMES_MAX).find(|number| !path(*number).exists());
        let group = Group {
            path: path(free.unwrap_or(NAMES_MAX)),
            settings,
            unsure: false,
            remnants: false,
            released: false,
        };
        faults.extend(group.make());
        self.groups.insert(place, group);
        faults
    }

    /// Changes the settings of a group, in another process. Why there is none.
    fn change(&mut self, now: Duration, place: usize, settings: Vec<Setting>) -> Option<String> {
        let group = self.groups.get_mut(&place)?;
        let former = std::mem::replace(&mut group.settings, settings);
        let mut changing = self.changing.iter_mut();
        if let Some(change) = changing.find(|change| change.place == place) {
            change.again |= former != group.settings;
            // Should an upgrade come before that.
            group.unsure |= change.again;
            return None;
        }
        let unsure = std::mem::take(&mut group.unsure);
        let writes: Vec<_> = changes((!unsure).then_some(&former), group).collect();
        if writes.is_empty() {
            return None;
        }
        match write_all(writes) {
            Ok(faults) => self.changing.push(Change {
                place,
                faults: faults.into(),
                at: now + RETRY,
                again: false,
            }),
            Err(error) => {
                group.unsure = true;
                return Some(format!("cannot change limits: {}", describe_error(&error)));
            }
        }
        None
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
        for mut change in std::mem::take(&mut self.changing) {
            if change.at > now || change.is_under_way(now, &mut faults) {
                self.changing.push(change);
            } else if let Some(group) = self.groups.get(&change.place).filter(|_| change.again) {
                let settings = group.settings.clone();
                let fault = self.change(now, change.place, settings);
                faults.extend(fault.map(|fault| (change.place, fault)));
            }
        }
        for (place, _) in &faults {
            if let Some(group) = self.groups.get_mut(place) {
                group.unsure = true;
            }
        }
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

    /// Makes the group, which has no processes yet. What could not be done.
    fn make(&self) -> Vec<String> {
        let fault = |what: String, error: io::Error| format!("{what}: {}", describe_error(&error));
        if let Err(error) = fs::create_dir(&self.path) {
            let what = format!("cannot make the group {}", self.path.display());
            return vec![fault(what, error)];
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

/// What is written where a group had `former` settings, or any: what is usual for those that are gone,
/// and then what has changed.
fn changes<'a>(
    former: Option<&'a [Setting]>,
    group: &'a Group,
) -> impl Iterator<Item = Write> + 'a {
    let wanted = &group.settings;
    let had: Vec<(&str, &str)> = match former {
        Some(former) => former.iter().map(|s| (&*s.file, &*s.usual)).collect(),
        None => tree::USUAL.to_vec(),
    };
    let is_wanted = |file| wanted.iter().any(|setting| setting.file == file);
    let gone = had.into_iter().filter(move |(file, _)| !is_wanted(*file));
    let gone = gone.map(|(file, usual)| (file, usual.to_owned(), None));
    let is_new = move |setting: &&Setting| former.is_none_or(|former| !former.contains(setting));
    let set = wanted.iter().filter(is_new).map(|setting| {
        let fault = group.cannot_set(setting);
        (&*setting.file, setting.value.text(), Some(fault))
    });
    gone.chain(set).map(|(file, text, fault)| Write {
        file: group.path.join(file),
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
mod tests;
