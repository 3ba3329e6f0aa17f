//! A program whose file has a write lease, fcntl(2), that is not released.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::libc::{F_GETLEASE, F_SETLEASE, F_WRLCK, SIGURG, fcntl};

use crate::exec::Hang;

/// Of linux/fcntl.h; the crate libc does not have it.
const F_SETSIG: i32 = 10;

/// The lease ends when the file is closed; the kernel breaks it after
/// `/proc/sys/fs/lease-break-time`, 45 seconds.
pub struct Lease {
    program: PathBuf,
    file: File,
}

impl Lease {
    pub fn take(program: &Path) -> Self {
        let file = File::options().write(true).open(program);
        let file = file.expect("a program");
        // SAFETY: neither has a pointer. The signal is one that does nothing by default.
        let taken = unsafe {
            fcntl(file.as_raw_fd(), F_SETSIG, SIGURG);
            fcntl(file.as_raw_fd(), F_SETLEASE, F_WRLCK)
        };
        assert_eq!(taken, 0, "a lease: {}", io::Error::last_os_error());
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
        // SAFETY: it has no pointer. Once a process waits, the kernel tells what it waits for.
        unsafe { fcntl(self.file.as_raw_fd(), F_GETLEASE) != F_WRLCK }
    }
}
