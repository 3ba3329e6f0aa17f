//! Becomes another program for which the kernel refuses something: what no test can bring about
//! without harm to the rest of the machine.
//!
//! `refuse fork EAGAIN COMMAND...` lets it make no process; `refuse epoll ENOSPC NUMBER COMMAND...`
//! lets it watch no descriptor with this number; `refuse setsockopt ENOPROTOOPT LEVEL OPTION
//! COMMAND...` makes the kernel one that does not have this option.

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

/// A word of `struct seccomp_data`, by its offset.
type Word = u32;

/// The number of the system call.
const CALL: Word = 0;

/// The lower half of an argument, on machines with the lower half first.
const fn argument(number: u32) -> Word {
    16 + 8 * number
}

/// A filter that refuses the calls for which, in any of the rules, all words are as told.
fn refuse(error: Errno, rules: &[&[(Word, c_long)]]) -> Vec<sock_filter> {
    let mut filter = Vec::new();
    for rule in rules {
        for (at, (word, value)) in rule.iter().enumerate() {
            // To the next rule: over the rest of this one, two for each word and one to end it.
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

/// Puts the filter on this process for good.
fn install(filter: &[sock_filter]) -> Result<()> {
    let program = sock_fprog {
        len: filter.len().try_into()?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which lives as long as the call.
    Errno::result(unsafe { prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program) })?;
    Ok(())
}
