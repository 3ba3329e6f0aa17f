//! The filter of system calls.

use std::collections::BTreeSet;

use syscalls::Sysno;

use super::{Mistake, Setting, Value};
use crate::config::Place;
use crate::sandbox::{CallFilter, Sandbox};

/// Groups of system calls, by names of systemd.exec(5) where it has the group. The first [`BASELINE`] are
/// the baseline: what no service needs, and what attacks on the kernel begin with. The manual has the
/// reasons. Calls that the architecture does not have are left out.
const GROUPS: [(&str, &[&str]); 15] = [
    (
        "@clock",
        &[
            "adjtimex",
            "clock_adjtime",
            "clock_adjtime64",
            "clock_settime",
            "clock_settime64",
            "settimeofday",
        ],
    ),
    (
        "@debug",
        &[
            "kcmp",
            "lookup_dcookie",
            "perf_event_open",
            "pidfd_getfd",
            "process_vm_readv",
            "process_vm_writev",
            "ptrace",
        ],
    ),
    ("@bpf", &["bpf", "userfaultfd"]),
    ("@keyring", &["add_key", "keyctl", "request_key"]),
    (
        "@module",
        &[
            "create_module",
            "delete_module",
            "finit_module",
            "init_module",
            "query_module",
        ],
    ),
    (
        "@mount",
        &[
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "pivot_root",
            "umount",
            "umount2",
        ],
    ),
    ("@namespaces", &["setns", "unshare"]),
    (
        "@raw-io",
        &[
            "ioperm",
            "iopl",
            "pciconfig_iobase",
            "pciconfig_read",
            "pciconfig_write",
        ],
    ),
    ("@reboot", &["kexec_file_load", "kexec_load", "reboot"]),
    ("@swap", &["swapoff", "swapon"]),
    (
        "@system",
        &[
            "acct",
            "io_uring_enter",
            "io_uring_register",
            "io_uring_setup",
            "nfsservctl",
            "open_by_handle_at",
            "sethostname",
            "setdomainname",
            "syslog",
            "uselib",
            "ustat",
            "vhangup",
            "_sysctl",
            "sysfs",
        ],
    ),
    (
        "@network-io",
        &[
            "accept",
            "accept4",
            "bind",
            "connect",
            "getpeername",
            "getsockname",
            "getsockopt",
            "listen",
            "recv",
            "recvfrom",
            "recvmmsg",
            "recvmsg",
            "send",
            "sendmmsg",
            "sendmsg",
            "sendto",
            "setsockopt",
            "shutdown",
            "socket",
            "socketpair",
        ],
    ),
    (
        "@ipc",
        &[
            "ipc",
            "memfd_create",
            "mq_getsetattr",
            "mq_notify",
            "mq_open",
            "mq_timedreceive",
            "mq_timedsend",
            "mq_unlink",
            "msgctl",
            "msgget",
            "msgrcv",
            "msgsnd",
            "semctl",
            "semget",
            "semop",
            "semtimedop",
            "shmat",
            "shmctl",
            "shmdt",
            "shmget",
        ],
    ),
    (
        "@resources",
        &[
            "ioprio_set",
            "mbind",
            "migrate_pages",
            "move_pages",
            "sched_setaffinity",
            "sched_setattr",
            "sched_setparam",
            "sched_setscheduler",
            "set_mempolicy",
            "set_mempolicy_home_node",
            "setpriority",
        ],
    ),
    (
        "@unusual",
        &[
            "execveat",
            "fanotify_init",
            "fanotify_mark",
            "memfd_secret",
            "mknod",
            "mknodat",
            "modify_ldt",
            "name_to_handle_at",
            "personality",
            "pidfd_open",
            "pidfd_send_signal",
            "process_madvise",
            "process_mrelease",
            "quotactl",
            "quotactl_fd",
            "remap_file_pages",
            "vmsplice",
        ],
    ),
];

/// How many of the groups are the baseline.
const BASELINE: usize = 11;

const EXPECTED: &str = "the name of a system call or of a group as \"@mount\", with \"~\" before it to \
                        forbid it";

pub(super) fn filter(sandbox: &mut Sandbox, setting: &Setting) -> Result<(), Mistake> {
    let (mut allowed, mut denied) = (BTreeSet::new(), BTreeSet::new());
    match &setting.value {
        Value::Text(text) if text == "baseline" => {}
        Value::List(items) if !items.is_empty() => {
            for (item, place) in items {
                add(item, place, &mut allowed, &mut denied)?;
            }
        }
        _ => return Err("\"baseline\", or a list of system calls".into()),
    }
    if !allowed.is_empty() && !allowed.contains(&(Sysno::execve.id().unsigned_abs())) {
        return Err("\"execve\" in the list, without which no program can be started".into());
    }
    let baseline = GROUPS[..BASELINE].iter().flat_map(|(_, names)| *names);
    let baseline = baseline.filter_map(|name| number(name));
    // What is named is wanted.
    denied.extend(baseline.filter(|call| !allowed.contains(call)));
    sandbox.system_call_filter = Some(CallFilter {
        allowed: allowed.into_iter().collect(),
        denied: denied.into_iter().collect(),
    });
    Ok(())
}

/// Adds what an item of the list names to one of the sets.
fn add(
    item: &Value,
    place: &Place,
    allowed: &mut BTreeSet<u32>,
    denied: &mut BTreeSet<u32>,
) -> Result<(), Mistake> {
    let mistake = |expected: &'static str| Mistake {
        place: Some(place.clone()),
        expected: expected.into(),
    };
    let Value::Text(text) = item else {
        return Err(mistake(EXPECTED));
    };
    let forbidden = text.strip_prefix('~');
    let name = forbidden.unwrap_or(text);
    let calls: Vec<u32> = match GROUPS.iter().find(|(group, _)| *group == name) {
        Some((_, names)) => names.iter().filter_map(|name| number(name)).collect(),
        None => vec![number(name).ok_or_else(|| mistake(EXPECTED))?],
    };
    if forbidden.is_none() {
        allowed.extend(calls);
    } else if calls.contains(&(Sysno::execve.id().unsigned_abs())) {
        return Err(mistake(
            "\"execve\" not forbidden, without which no program can be started",
        ));
    } else {
        denied.extend(calls);
    }
    Ok(())
}

/// The number of a system call on this architecture.
fn number(name: &str) -> Option<u32> {
    let call: Sysno = name.parse().ok()?;
    u32::try_from(call.id()).ok()
}

pub(super) fn error_number(sandbox: &mut Sandbox, setting: &Setting) -> Result<(), Mistake> {
    sandbox.system_call_kill = match &setting.value {
        Value::Text(text) if text == "kill" => true,
        Value::Text(text) if text == "EPERM" => false,
        _ => return Err("\"EPERM\" or \"kill\"".into()),
    };
    Ok(())
}
