//! System calls without a safe wrapper; the only unsafe code of this program. It has one thread.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::ptr;

use nix::errno::Errno;

/// Takes a descriptor that the master has opened for this process alone. It is closed on exec.
///
/// # Errors
/// It is not open.
pub fn take(fd: RawFd) -> io::Result<File> {
    // SAFETY: the call takes any number. This process has just begun, so that no value owns a
    // descriptor but the standard ones, which are not asked for.
    unsafe {
        Errno::result(libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC))?;
        Ok(File::from_raw_fd(fd))
    }
}

/// A program with its arguments, ready to be executed without memory from the allocator.
pub struct Command {
    strings: Vec<CString>,
    /// Pointers to the strings but the first, and a null pointer.
    argv: Vec<*const libc::c_char>,
}

impl Command {
    /// The path, and then the arguments, which begin with a name. `None` if one of the two is missing.
    pub fn new(strings: Vec<CString>) -> Option<Self> {
        let arguments = strings.get(1..).filter(|arguments| !arguments.is_empty())?;
        let pointers = arguments.iter().map(|string| string.as_ptr());
        let argv = pointers.chain([ptr::null()]).collect();
        Some(Self { strings, argv })
    }

    /// Executes it with the environment of this process. Returns why that failed.
    pub fn execute(&self) -> io::Error {
        // SAFETY: `strings` has what the pointers point to, and the list ends with a null pointer.
        unsafe { libc::execv(self.strings[0].as_ptr(), self.argv.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Sets the nice value of this process.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: the call takes numbers.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    Ok(Errno::result(result).map(drop)?)
}

/// Sets the priority of input and output of this process (ioprio_set(2)).
pub fn set_io_priority(class: u16, level: u16) -> io::Result<()> {
    /// `IOPRIO_WHO_PROCESS` and `IOPRIO_CLASS_SHIFT` of linux/ioprio.h.
    const PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    let priority = libc::c_int::from((class << CLASS_SHIFT) | level);
    // SAFETY: the call takes numbers.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, priority) };
    Ok(Errno::result(result).map(drop)?)
}
