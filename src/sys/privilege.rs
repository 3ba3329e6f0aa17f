//! The user and groups that the process acts for.

use std::io;

use nix::unistd::{
    Gid, Uid, getegid, geteuid, getgid, getgroups, getuid, setegid, seteuid, setgroups, setresgid,
    setresuid,
};

/// The user and group without rights of their own: the kernel's overflow ID, which systems call
/// `nobody`.
const NOBODY: u32 = 65_534;

/// A capability of capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    Chown = 0,
    Kill = 5,
    Setgid = 6,
    Setuid = 7,
    NetBindService = 10,
}

impl Capability {
    pub fn name(self) -> &'static str {
        match self {
            Self::Chown => "CAP_CHOWN",
            Self::Kill => "CAP_KILL",
            Self::Setgid => "CAP_SETGID",
            Self::Setuid => "CAP_SETUID",
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
        }
    }

    /// Whether this process has it in effect; also where the kernel does not tell.
    pub fn is_there(self) -> bool {
        // Linux, `linux/capability.h`: version 3, this process; effective, permitted and inheritable
        // bits, the lower and then the upper ones.
        const VERSION_3: u32 = 0x2008_0522;
        let mut header = [VERSION_3, 0];
        let mut sets = [u32::MAX; 6];
        // SAFETY: the call reads the header and writes the sets, which have their sizes.
        unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
        sets[0] & (1 << self as u32) != 0
    }
}

/// Whether the process may act for other users.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The user and group that the process acts for.
pub fn user() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

/// Whether the process has privileges of the program file's owner or group (set-user-ID or
/// set-group-ID).
pub fn is_setuid() -> bool {
    getuid() != geteuid() || getgid() != getegid()
}

/// The kernel's version of Landlock, which restricts the files that a process can open; 0 is none.
pub fn landlock_version() -> u32 {
    const VERSION: libc::c_int = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call takes no structure, and says the version.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// Gives up the supplementary groups of the user who started the master: children inherit root's own
/// group only.
///
/// # Errors
/// The system's, for a process that is not root's.
pub fn drop_groups() -> io::Result<()> {
    Ok(setgroups(&[getgid()])?)
}

/// Gives up root's rights for good. A process that has no capability for it, or whose user namespace
/// has no other user, keeps what it has.
pub fn become_nobody() {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    if is_root() {
        let _ = setgroups(&[]);
        let _ = setresgid(gid, gid, gid);
        let _ = setresuid(uid, uid, uid);
    }
}

/// Runs `act` with the effective user and group of `uid` and `gid`, so that nothing that the user
/// could have put in the way (links in a directory of theirs) gets more than the user's own
/// rights. Without root's privileges `act` runs as it is.
///
/// # Errors
/// `act`'s own, or the system's when the privileges cannot be changed.
///
/// # Panics
/// When root's privileges cannot be taken up again: nothing that follows would mean what it says.
pub fn as_user<T>(uid: u32, gid: u32, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if !is_root() {
        return act();
    }
    let groups = getgroups()?;
    let result = assume(Uid::from_raw(uid), &[Gid::from_raw(gid)]).and_then(|()| act());
    seteuid(getuid())
        .and_then(|()| setegid(getgid()))
        .and_then(|()| setgroups(&groups))
        .expect("root can become root again");
    result
}

fn assume(uid: Uid, groups: &[Gid; 1]) -> io::Result<()> {
    setegid(groups[0])?;
    setgroups(groups)?;
    seteuid(uid)?;
    Ok(())
}
