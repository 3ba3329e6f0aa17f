//! System calls without a safe wrapper; the only unsafe code of this program. It has one thread.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::ptr;

use master::sandbox::Capabilities;
use nix::errno::Errno;
use nix::sys::prctl;

use crate::calls::Filter;

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

/// Keeps exec from giving more privileges than this process has.
pub fn set_no_new_privileges() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

/// Keeps the permitted capabilities when the user changes, until exec.
pub fn keep_capabilities() -> io::Result<()> {
    Ok(prctl::set_keepcaps(true)?)
}

/// The number of `CAP_SYS_ADMIN`.
pub const SYS_ADMIN: usize = 21;

/// Whether a capability is effective.
pub fn is_capable(number: usize) -> io::Result<bool> {
    let [low, high] = capabilities()?;
    let effective = u64::from(low.effective) | (u64::from(high.effective) << 32);
    Ok(effective & (1 << number) != 0)
}

/// Makes all permitted capabilities effective, and these inheritable.
pub fn set_inheritable(set: Capabilities) -> io::Result<()> {
    let (header, mut data) = (HEADER, capabilities()?);
    for (words, inheritable) in data.iter_mut().zip([set.0 as u32, (set.0 >> 32) as u32]) {
        words.effective = words.permitted;
        words.inheritable = inheritable;
    }
    // SAFETY: both structures are those of version 3 of the call, and outlive it.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Ok(Errno::result(result).map(drop)?)
}

/// Passes a capability on to a program without privileges of its own.
pub fn raise_ambient(number: usize) -> io::Result<()> {
    // SAFETY: the call takes numbers.
    let result = unsafe {
        let raise = libc::PR_CAP_AMBIENT_RAISE;
        libc::prctl(libc::PR_CAP_AMBIENT, raise, number, 0, 0)
    };
    Ok(Errno::result(result).map(drop)?)
}

/// Takes the capabilities that are not in a set out of the bounding set.
pub fn bound_capabilities(set: Capabilities) -> io::Result<()> {
    for number in 0..64 {
        // SAFETY: the call takes numbers.
        let has = unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) };
        if has == 1 && !set.contains(number) {
            // SAFETY: as above.
            let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
            Errno::result(result)?;
        }
    }
    Ok(())
}

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct` of linux/capability.h: 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Version 3, with two words; of this process.
const HEADER: Header = Header {
    version: 0x2008_0522,
    pid: 0,
};

fn capabilities() -> io::Result<[Words; 2]> {
    let mut data = [Words::default(); 2];
    let mut header = HEADER;
    // SAFETY: both structures are those of version 3 of the call, and outlive it.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    Errno::result(result)?;
    Ok(data)
}

/// Has the kernel ask a filter before each system call, from now on.
pub fn apply_filter(filter: &Filter) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog {
        len: length,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the instructions have the form of the kernel's `struct sock_filter`, in which
    // `seccompiler` makes them; the call reads them only, and they outlive it.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program) };
    Ok(Errno::result(result).map(drop)?)
}
