//! The filters of system calls. There are several, because each has one answer only; the kernel takes
//! the strictest of their answers.

use std::collections::BTreeMap;

use master::sandbox::{CallFilter, newest_call};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

pub type Filter = BpfProgram;

/// Flags of clone(2) that make namespaces.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Makes the filters, in the order in which they are to be applied: from the last one on, seccomp(2)
/// may be forbidden. All of them kill a process of another architecture.
pub fn compile(calls: &CallFilter, kill: bool) -> Result<Vec<Filter>, String> {
    let forbidden = if kill {
        SeccompAction::KillProcess
    } else {
        SeccompAction::Errno(libc::EPERM as u32)
    };
    let mut denied = of_numbers(calls.denied.iter());
    denied.entry(libc::SYS_clone).or_insert(namespaces()?);
    // The flags of clone3(2) are in memory, where no filter sees them. The C library uses clone(2)
    // where the kernel does not have the other.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let mut filters = vec![compile_one(clone3, SeccompAction::Allow, missing)?];
    filters.push(unnamed());
    if calls.allowed.is_empty() {
        filters.push(compile_one(denied, SeccompAction::Allow, forbidden)?);
        return Ok(filters);
    }
    // The filter that is applied after this one says no to what neither has.
    denied.remove(&libc::SYS_seccomp);
    filters.push(compile_one(
        denied,
        SeccompAction::Allow,
        forbidden.clone(),
    )?);
    let is_wanted = |call: &&u32| !calls.denied.contains(call);
    let mut allowed = of_numbers(calls.allowed.iter().filter(is_wanted));
    // The first filter has an answer for it.
    allowed.insert(libc::SYS_clone3, Vec::new());
    filters.push(compile_one(allowed, forbidden, SeccompAction::Allow)?);
    Ok(filters)
}

fn of_numbers<'a>(calls: impl Iterator<Item = &'a u32>) -> BTreeMap<i64, Vec<SeccompRule>> {
    let calls = calls.map(|call| (i64::from(*call), Vec::new()));
    calls.collect()
}

/// One rule for each flag.
fn namespaces() -> Result<Vec<SeccompRule>, String> {
    let rules = NAMESPACES.map(|flag| {
        let flag = flag as u32 as u64;
        let length = SeccompCmpArgLen::Qword;
        let condition = SeccompCondition::new(0, length, SeccompCmpOp::MaskedEq(flag), flag);
        SeccompRule::new(vec![condition?])
    });
    let rules: Result<Vec<_>, _> = rules.into_iter().collect();
    rules.map_err(|error| error.to_string())
}

fn compile_one(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<Filter, String> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH);
    let filter = architecture
        .and_then(|architecture| SeccompFilter::new(calls, others, these, architecture))
        .and_then(Filter::try_from);
    filter.map_err(|error| error.to_string())
}

/// Answers what no list of calls can name. A process that makes calls of the x32 interface is killed:
/// these have the numbers of others, with a bit added. Calls that are newer than the names that this
/// program knows do not exist for it.
fn unnamed() -> Filter {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const X32: u32 = 0x4000_0000;
    let instruction = |code: u32, jt, jf, k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let of_x32 = if cfg!(target_arch = "x86_64") {
        libc::SECCOMP_RET_KILL_PROCESS
    } else {
        missing
    };
    vec![
        // The number of the call is the first word.
        instruction(LOAD, 0, 0, 0),
        instruction(IS_AT_LEAST, 0, 1, X32),
        instruction(RETURN, 0, 0, of_x32),
        instruction(IS_AT_LEAST, 0, 1, newest_call() + 1),
        instruction(RETURN, 0, 0, missing),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}
