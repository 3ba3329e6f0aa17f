//! The place of a master's groups: where it is, and whether it is the master's.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use serde_derive::{Deserialize, Serialize};

use super::{Setting, tree};
use crate::errors::describe_error;

/// The group of the master, and of services without one of their own.
const MAIN: &str = "main";
/// The file with the controllers that groups below have.
const CONTROLLERS: &str = "cgroup.subtree_control";
/// What to do without delegation.
const ADVICE: &str =
    "under systemd, set \"Delegate=yes\" and \"ProtectControlGroups=no\" in the unit";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Home {
    /// The group in which the master was started.
    delegated: PathBuf,
    path: PathBuf,
    /// Controllers that the groups of services have, or cannot have.
    known: BTreeSet<String>,
}

/// The group that a process, or this one, was started in, if groups can be made below it.
///
/// # Errors
/// Why there are none, and what to do.
pub fn find_delegated(process: &str) -> Result<PathBuf, String> {
    let fault = |what: String| format!("{what}: {ADVICE}");
    let read = |file: &str| {
        let path = format!("/proc/{process}/{file}");
        let error = |error| fault(format!("{path}: {}", describe_error(&error)));
        fs::read_to_string(&path).map_err(error)
    };
    let found = locate(&read("cgroup")?, &read("mountinfo")?);
    let path =
        found.ok_or_else(|| fault("control groups of version 2 are not mounted".to_owned()))?;
    let is_ours = access(&path, AccessFlags::W_OK | AccessFlags::X_OK);
    let is_ours = is_ours.and_then(|()| access(&path.join("cgroup.procs"), AccessFlags::W_OK));
    is_ours.map_err(|error| {
        let reason = describe_error(&io::Error::from(error));
        fault(format!("{} is not delegated: {reason}", path.display()))
    })?;
    Ok(path)
}

/// A process's group, from its `cgroup` and `mountinfo` in proc(5).
pub(super) fn locate(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(3);
        let (root, point) = (unescape(words.next()?), unescape(words.next()?));
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        // What is mounted can be a part of the tree, which need not have this group.
        let below = Path::new(group).strip_prefix(root).ok()?;
        (!below.components().any(|part| part.as_os_str() == ".."))
            .then(|| Path::new(&point).join(below))
    })
}

/// Spaces and the like are written as octal numbers.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let number = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match number {
            Some(byte) => {
                plain.push(byte.into());
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

impl Home {
    /// Makes the place, and moves this process into it.
    pub(super) fn make(instance: &Path) -> Result<Self, String> {
        let mut delegated = find_delegated("self")?;
        let name = tree::instance(instance);
        // This program was executed again by a master.
        if delegated.ends_with(Path::new(&name).join(MAIN)) {
            delegated.pop();
            delegated.pop();
        }
        let path = delegated.join(name);
        let make = |path: &Path| match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let reason = describe_error(&error);
                Err(format!(
                    "{} cannot be made: {reason}: {ADVICE}",
                    path.display()
                ))
            }
            _ => Ok(()),
        };
        make(&path)?;
        if !path.join(tree::KILL).exists() {
            let _ = fs::remove_dir(&path);
            return Err("control groups need Linux 5.14".to_owned());
        }
        let home = Self {
            known: BTreeSet::new(),
            path,
            delegated,
        };
        // The root may have processes and groups, and no process can come back to it without right.
        if home.delegated.join("cgroup.type").exists() {
            let main = home.path.join(MAIN);
            make(&main)?;
            fs::write(main.join("cgroup.procs"), "0").map_err(|error| {
                let reason = describe_error(&error);
                format!("{} cannot be joined: {reason}: {ADVICE}", main.display())
            })?;
        }
        Ok(home)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Groups that a former master has left behind.
    pub(super) fn stale(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != MAIN
        });
        groups.map(|entry| entry.path()).collect()
    }

    /// Has the groups of services have the controllers that settings need. What cannot be had, each
    /// once.
    pub(super) fn enable(&mut self, settings: &[Setting]) -> Vec<String> {
        let mut faults = Vec::new();
        for setting in settings {
            let controller = setting.file.split('.').next().unwrap_or_default();
            if !self.known.insert(controller.to_owned()) {
                continue;
            }
            let enable = |path: &Path| {
                let fault = |error: io::Error| {
                    let reason = describe_error(&error);
                    format!(
                        "\"{}\" has no effect: the controller \"{controller}\" cannot be used in \
                         {}: {reason}",
                        setting.name,
                        path.display()
                    )
                };
                let file = path.join(CONTROLLERS);
                fs::write(file, format!("+{controller}")).map_err(fault)
            };
            let enabled = enable(&self.delegated).and_then(|()| enable(&self.path));
            faults.extend(enabled.err());
        }
        faults
    }

    /// Leaves nothing behind, as far as this process can: it is in one of these groups itself.
    pub(super) fn leave(&self) {
        // Processes can be there once no controllers are passed on. Whatever fails, what is left has
        // no processes but this one, and is used by the next master.
        for controller in &self.known {
            for path in [&self.path, &self.delegated] {
                let _ = fs::write(path.join(CONTROLLERS), format!("-{controller}"));
            }
        }
        let main = self.path.join(MAIN);
        let _ = fs::write(self.delegated.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(main);
        let _ = fs::remove_dir(&self.path);
    }
}
