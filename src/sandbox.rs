//! What a child of a service may do and use, beyond what the master itself does before exec: limits,
//! user and groups, capabilities, files, system calls.
//!
//! None of this is put into effect in memory that a child shares with the master. For a service with
//! such settings the master starts [`PROGRAM`], which reads them from a descriptor, applies them to
//! itself, and executes the service's program. This module is what both know: the settings, their
//! form on the descriptor, and the form of an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_derive::{Deserialize, Serialize};

/// The name of the program, in the directory of the master.
///
/// Its first argument (`argv[0]`) is the number of the descriptor that has the settings. The next
/// descriptor takes an [`Failure`]; it is closed when the service's program runs. The second argument
/// is the path of the service's program, and the others are that program's, its name first.
pub const PROGRAM: &str = "master-exec";

/// The version of the form below. A master and a program of different versions do not work together.
const VERSION: u32 = 2;

/// The maximum size of encoded settings, in bytes.
pub const SIZE_MAX: usize = 64 * 1024;
/// The maximum size of an encoded [`Failure`]; a pipe takes it in one write.
pub const FAILURE_MAX: usize = 1024;

/// A resource of setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Memlock,
    Nofile,
    Nproc,
    Stack,
}

impl Limit {
    /// All limits with the settings that set them, in the order of their names.
    pub const ALL: [(&str, Self); 9] = [
        ("limit_as", Self::As),
        ("limit_core", Self::Core),
        ("limit_cpu", Self::Cpu),
        ("limit_data", Self::Data),
        ("limit_fsize", Self::Fsize),
        ("limit_memlock", Self::Memlock),
        ("limit_nofile", Self::Nofile),
        ("limit_nproc", Self::Nproc),
        ("limit_stack", Self::Stack),
    ];

    /// The name of the setting.
    pub fn setting(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// The soft and the hard limit; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub soft: u64,
    pub hard: u64,
}

/// The class of input and output of ioprio_set(2), with a level from 0 (first) to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoPriority {
    Realtime(u8),
    BestEffort(u8),
    Idle,
}

/// A set of capabilities, by their numbers: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Their names, in the order of their numbers (capabilities(7), linux/capability.h).
    pub const NAMES: [&str; 41] = [
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
        "checkpoint_restore",
    ];

    /// The set with a capability added, by its name with or without `CAP_`, in either case.
    pub fn with(self, name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("cap_").unwrap_or(&name);
        let number = Self::NAMES.iter().position(|known| *known == name)?;
        Some(Self(self.0 | (1 << number)))
    }

    pub fn contains(self, number: usize) -> bool {
        number < 64 && self.0 & (1 << number) != 0
    }

    /// Whether all of them are in another set.
    pub fn are_in(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().enumerate();
        let names = names.filter(|(number, _)| self.contains(*number));
        let names: Vec<_> = names.map(|(_, name)| format!("cap_{name}")).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(" "))
    }
}

/// The settings of a service; those that are `None` or empty change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<Limit, Bounds>,
    /// Those of the limits that are not set where the master has a lower one.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub ceilings: BTreeSet<Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ionice: Option<IoPriority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adjust: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Numbers of processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpu_affinity: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplementary_groups: Option<Vec<u32>>,
    pub no_new_privileges: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability_bounding_set: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambient_capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_call_filter: Option<CallFilter>,
    /// A forbidden system call ends the process, instead of failing.
    pub system_call_kill: bool,
    pub files: Files,
    /// The directory of the control group, which the process joins first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_group: Option<String>,
    pub isolate: Isolate,
}

/// What a child cannot reach of processes that it has not started itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolate {
    /// It cannot signal them.
    pub signals: bool,
    /// It cannot connect to their abstract sockets of unix(7).
    pub abstract_sockets: bool,
}

impl Isolate {
    pub fn is_any(self) -> bool {
        self.signals || self.abstract_sockets
    }
}

/// What can be opened; without paths that is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// What is beneath these can be read and executed.
    pub read_only: Vec<String>,
    pub read_write: Vec<String>,
    /// A kernel that cannot do this is an error.
    pub required: bool,
}

impl Files {
    /// Whether only some files can be opened.
    pub fn are_restricted(&self) -> bool {
        !(self.read_only.is_empty() && self.read_write.is_empty())
    }
}

/// A user, with the groups that the system's files give it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Numbers of system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallFilter {
    /// These alone are allowed, if there are any.
    pub allowed: Vec<u32>,
    /// These are forbidden.
    pub denied: Vec<u32>,
}

/// The name of a system call; its number if it has none.
pub fn call_name(number: u32) -> String {
    let call = syscalls::Sysno::new(number as usize);
    call.map_or_else(|| number.to_string(), |call| call.name().to_owned())
}

/// The highest number of a system call that has a name here.
pub fn newest_call() -> u32 {
    syscalls::Sysno::last().id().unsigned_abs()
}

/// Settings, as they are on the descriptor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block<T> {
    version: u32,
    sandbox: T,
}

impl Sandbox {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The settings by their names, with values as in `master.toml`.
    pub fn shown(&self) -> Vec<(String, String)> {
        let bound = |bound: u64| match bound {
            u64::MAX => "infinity".to_owned(),
            _ => bound.to_string(),
        };
        let limits = self.limits.iter().map(|(limit, bounds)| {
            let bounds = format!("{}:{}", bound(bounds.soft), bound(bounds.hard));
            (limit.setting().to_owned(), bounds)
        });
        let ionice = self.ionice.map(|priority| match priority {
            IoPriority::Idle => "idle".to_owned(),
            IoPriority::BestEffort(level) => format!("best-effort:{level}"),
            IoPriority::Realtime(level) => format!("realtime:{level}"),
        });
        let number = |number: Option<i32>| number.map(|number| number.to_string());
        let numbers = |numbers: &[u32]| {
            let numbers = numbers.iter().map(u32::to_string);
            numbers.collect::<Vec<_>>().join(" ")
        };
        let paths = |paths: &[String]| (!paths.is_empty()).then(|| paths.join(" "));
        let shown = |set: Option<Capabilities>| set.map(|set| set.to_string());
        let isolated = |isolate: Isolate| match (isolate.signals, isolate.abstract_sockets) {
            (false, false) => None,
            (true, false) => Some("signals".to_owned()),
            (false, true) => Some("abstract_sockets".to_owned()),
            (true, true) => Some("signals abstract_sockets".to_owned()),
        };
        let filter = self.system_call_filter.as_ref().map(|filter| {
            let (allowed, denied) = (filter.allowed.len(), filter.denied.len());
            if allowed == 0 {
                format!("{denied} denied")
            } else {
                format!("{allowed} allowed, {denied} denied")
            }
        });
        let cpus = self.cpu_affinity.iter().map(usize::to_string);
        let cpus = cpus.collect::<Vec<_>>().join(",");
        let others = [
            ("nice", number(self.nice)),
            ("ionice", ionice),
            ("oom_score_adjust", number(self.oom_score_adjust)),
            ("umask", self.umask.map(|mask| format!("{mask:04o}"))),
            ("cpu_affinity", Some(cpus).filter(|cpus| !cpus.is_empty())),
            ("user", self.user.as_ref().map(|user| user.uid.to_string())),
            ("group", self.group.map(|gid| gid.to_string())),
            (
                "supplementary_groups",
                self.supplementary_groups.as_deref().map(numbers),
            ),
            (
                "no_new_privileges",
                self.no_new_privileges.then(|| "true".to_owned()),
            ),
            (
                "capability_bounding_set",
                shown(self.capability_bounding_set),
            ),
            ("ambient_capabilities", shown(self.ambient_capabilities)),
            ("read_only_paths", paths(&self.files.read_only)),
            ("read_write_paths", paths(&self.files.read_write)),
            ("isolate", isolated(self.isolate)),
            (
                "sandbox",
                self.files.required.then(|| "required".to_owned()),
            ),
            ("system_call_filter", filter),
            (
                "system_call_error_number",
                self.system_call_kill.then(|| "kill".to_owned()),
            ),
        ];
        let others = others.into_iter();
        let others = others.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        limits.chain(others).collect()
    }

    /// The settings as they are on the descriptor. `None` if they are larger than [`SIZE_MAX`].
    pub fn encode(&self) -> Option<Vec<u8>> {
        let version = VERSION;
        let sandbox = self;
        let bytes = serde_json::to_vec(&Block { version, sandbox }).ok()?;
        (bytes.len() <= SIZE_MAX).then_some(bytes)
    }

    /// Reads what is on the descriptor.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > SIZE_MAX {
            return Err(format!("more than {SIZE_MAX} bytes of settings"));
        }
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if head.version != VERSION {
            return Err(format!(
                "settings of version {}, expected {VERSION}: restart the master after an upgrade",
                head.version
            ));
        }
        let block: Block<Self> =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Ok(block.sandbox)
    }
}

/// Why the service's program was not executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The setting that could not be applied; `None` if all were, and the program could not be
    /// executed.
    pub setting: Option<String>,
    /// The system's error, or what else was wrong.
    pub reason: String,
}

impl Failure {
    /// The failure as it is on the descriptor.
    pub fn encode(&self) -> Vec<u8> {
        // It has strings only, which can be written.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.truncate(FAILURE_MAX);
        bytes
    }

    /// Reads what is on the descriptor; `None` if it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests;
