//! Starts a child without a master, and waits for it.

use std::ffi::CString;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sched::{CloneFlags, clone};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::execve;

use crate::system::CHILD;

/// The processor time of this thread.
pub fn cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// The cost of starting a child and waiting for its end.
pub struct Spawn {
    /// The parent's processor time.
    pub cpu: Duration,
    pub elapsed: Duration,
}

/// Starts a child that shares this process's memory and descriptors until exec, and waits for its
/// end.
pub fn spawn(times: u32) -> Result<Spawn> {
    let path = CString::new(CHILD)?;
    let arguments = [path.as_c_str(), c"exit"];
    let environment: [CString; 0] = [];
    let mut stack = [0; 16 * 1024];
    let borrowed = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK | CloneFlags::CLONE_FILES;
    let (begin, before) = (Instant::now(), cpu()?);
    for _ in 0..times {
        let run = || {
            let Err(_) = execve(&path, &arguments, &environment);
            1
        };
        // SAFETY: the child has its own stack, and CLONE_VFORK suspends this thread until the child
        // has left the shared memory.
        let pid = unsafe {
            clone(
                Box::new(run),
                &mut stack,
                borrowed,
                Some(Signal::SIGCHLD as i32),
            )?
        };
        let ended = waitpid(pid, None)?;
        ensure!(
            matches!(ended, WaitStatus::Exited(_, 0)),
            "{CHILD}: {ended:?}"
        );
    }
    Ok(Spawn {
        cpu: (cpu()? - before) / times,
        elapsed: begin.elapsed() / times,
    })
}
