//! A program whose exec needs a permission, fanotify(7), from a listener that does not answer.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::exec::Hang;

/// When the descriptor is closed, the kernel permits everything.
pub struct Unanswered {
    program: PathBuf,
    group: OwnedFd,
}

impl Unanswered {
    /// Makes each exec of this file wait, and of no other file.
    pub fn watch(program: &Path) -> Self {
        let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        // SAFETY: the call has no pointers; the descriptor is new, so nothing else owns it.
        let group = unsafe {
            let group = libc::fanotify_init(flags, libc::O_RDONLY as u32);
            assert!(group >= 0, "fanotify_init: {}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(group)
        };
        let path = CString::new(program.as_os_str().as_bytes()).expect("a path");
        // SAFETY: the path is a string that outlives the call.
        let marked = unsafe {
            libc::fanotify_mark(
                group.as_raw_fd(),
                libc::FAN_MARK_ADD,
                libc::FAN_OPEN_EXEC_PERM,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        };
        assert_eq!(marked, 0, "fanotify_mark: {}", io::Error::last_os_error());
        Self {
            program: program.to_owned(),
            group,
        }
    }
}

impl Hang for Unanswered {
    fn program(&self) -> &Path {
        &self.program
    }

    fn holds(&self) -> bool {
        let mut ready = [PollFd::new(self.group.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::ZERO).expect("a descriptor") == 1
    }
}
