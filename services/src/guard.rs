//! A process that outlives this one by a moment, to end what this one has started: a process that was
//! killed cannot do so itself.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, chdir, pipe2, setpgid};

use crate::sys;

/// The way to the guard. When it is closed, by the end of this process at the latest, the guard kills
/// the process group that it was told last.
#[derive(Debug)]
pub struct Guard(File);

impl Guard {
    /// Starts the guard, which keeps the rights that this process has now.
    ///
    /// # Errors
    /// The system's.
    pub fn start() -> io::Result<Self> {
        let (theirs, ours) = pipe2(OFlag::O_CLOEXEC)?;
        sys::fork(theirs, guard)?;
        Ok(Self(ours.into()))
    }

    /// Names the process group to kill; none for none any more. A guard that is gone is not missed
    /// before its time.
    pub fn tell(&mut self, group: Option<Pid>) {
        let group = group.map_or(0, Pid::as_raw);
        let _ = self.0.write_all(&group.to_ne_bytes());
    }
}

/// What the guard does, with no other descriptor than this one: system calls, without memory of its
/// own.
fn guard(pipe: OwnedFd) {
    // A signal to the group of the process that it guards is none for it.
    let _ = SigSet::all().thread_block();
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let _ = chdir("/");
    let mut pipe = File::from(pipe);
    let mut group = 0;
    let mut bytes = [0; 4];
    while pipe.read_exact(&mut bytes).is_ok() {
        group = i32::from_ne_bytes(bytes);
    }
    if group > 0 {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}
