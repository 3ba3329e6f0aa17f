//! A program whose file has a write lease, fcntl(2), that is not released.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::libc::{F_GETLEASE, F_SETLEASE, F_WRLCK, SIGURG, fcntl};

use testkit::instance::SOON;
use testkit::poll::until;

use crate::exec::Hang;

/// From linux/fcntl.h; the crate libc does not have it.
const F_SETSIG: i32 = 10;

/// Closing the file ends the lease; the kernel breaks it after `/proc/sys/fs/lease-break-time`, 45
/// seconds.
pub struct Lease {
    program: PathBuf,
    file: File,
}

impl Lease {
    pub fn take(program: &Path) -> Self {
        let file = File::options()
            .write(true)
            .open(program)
            .expect("a program");
        // SAFETY: neither call has a pointer. The signal is ignored by default.
        let take = || unsafe {
            fcntl(file.as_raw_fd(), F_SETSIG, SIGURG);
            fcntl(file.as_raw_fd(), F_SETLEASE, F_WRLCK) == 0
        };
        // A process that another test starts has the file open until its exec, which forbids it.
        until(SOON, "a lease", take);
        Self {
            program: program.to_owned(),
            file,
        }
    }
}

impl Hang for Lease {
    fn program(&self) -> &Path {
        &self.program
    }

    fn holds(&self) -> bool {
        // SAFETY: the call has no pointer. Once a process waits, the kernel returns the type that
        // it waits for.
        unsafe { fcntl(self.file.as_raw_fd(), F_GETLEASE) != F_WRLCK }
    }
}
