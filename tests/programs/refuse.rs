//! Executes another program for which the kernel refuses certain system calls, by a seccomp filter:
//! faults that a test cannot cause otherwise without harm to the machine.
//!
//! `refuse fork EAGAIN COMMAND...` refuses to start processes; `refuse epoll ENOSPC NUMBER
//! COMMAND...` refuses to watch the descriptor with this number; `refuse setsockopt ENOPROTOOPT
//! LEVEL OPTION COMMAND...` simulates a kernel without this option.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, EPOLL_CTL_ADD, PR_SET_SECCOMP,
    SECCOMP_MODE_FILTER, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SYS_clone, SYS_clone3,
    SYS_epoll_ctl, SYS_setsockopt, c_long, prctl, sock_filter, sock_fprog,
};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("refuse WHAT ERROR ... COMMAND...");
    let (what, error) = (next()?, next()?);
    let error = match error.as_str() {
        "EAGAIN" => Errno::EAGAIN,
        "ENOPROTOOPT" => Errno::ENOPROTOOPT,
        "ENOSPC" => Errno::ENOSPC,
        _ => bail!("what is {error:?}?"),
    };
    let filter = match what.as_str() {
        "fork" => refuse(error, &[&[(CALL, SYS_clone)], &[(CALL, SYS_clone3)]]),
        "epoll" => {
            let add = (argument(1), EPOLL_CTL_ADD.into());
            let descriptor = (argument(2), next()?.parse()?);
            refuse(error, &[&[(CALL, SYS_epoll_ctl), add, descriptor]])
        }
        "setsockopt" => {
            let level = (argument(1), next()?.parse()?);
            let option = (argument(2), next()?.parse()?);
            refuse(error, &[&[(CALL, SYS_setsockopt), level, option]])
        }
        _ => bail!("what is {what:?}?"),
    };
    install(&filter)?;
    let program = next()?;
    Err(Command::new(program).args(arguments).exec().into())
}

/// The offset of a word in `struct seccomp_data`.
type Word = u32;

/// The number of the system call.
const CALL: Word = 0;

/// The lower half of an argument, on little-endian machines.
const fn argument(number: u32) -> Word {
    16 + 8 * number
}

/// A filter that refuses a call if all words of any rule match.
fn refuse(error: Errno, rules: &[&[(Word, c_long)]]) -> Vec<sock_filter> {
    let mut filter = Vec::new();
    for rule in rules {
        for (at, (word, value)) in rule.iter().enumerate() {
            // Jump to the next rule: two instructions for each word and one at the end.
            let over = 2 * (rule.len() - at - 1) + 1;
            filter.push(instruction(BPF_LD | BPF_W | BPF_ABS, *word, 0));
            filter.push(instruction(
                BPF_JMP | BPF_JEQ | BPF_K,
                *value as u32,
                over as u8,
            ));
        }
        filter.push(instruction(BPF_RET, SECCOMP_RET_ERRNO | error as u32, 0));
    }
    filter.push(instruction(BPF_RET, SECCOMP_RET_ALLOW, 0));
    filter
}

fn instruction(code: u32, k: u32, jump_if_not: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_if_not,
        k,
    }
}

/// Installs the filter for this process, permanently.
fn install(filter: &[sock_filter]) -> Result<()> {
    let program = sock_fprog {
        len: filter.len().try_into()?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which outlives the call.
    Errno::result(unsafe { prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program) })?;
    Ok(())
}
