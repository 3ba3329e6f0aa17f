//! User, groups and capabilities. What takes something away comes last.

use std::io;

use master::sandbox::{Capabilities, Failure, Sandbox};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::apply::named;
use crate::sys;

pub fn apply(sandbox: &Sandbox) -> Result<(), Failure> {
    if let Some(set) = sandbox.capability_bounding_set {
        named("capability_bounding_set", sys::bound_capabilities(set))?;
    }
    set_groups(sandbox)?;
    let ambient = sandbox.ambient_capabilities.unwrap_or_default();
    if let Some(user) = &sandbox.user {
        named("user", set_user(user.uid))?;
    }
    if sandbox.user.is_some() || sandbox.ambient_capabilities.is_some() {
        named("ambient_capabilities", pass_on(ambient))?;
    }
    Ok(())
}

/// The groups of the user, or none but the group; and those that are named beside them.
fn set_groups(sandbox: &Sandbox) -> Result<(), Failure> {
    let user = sandbox.user.as_ref();
    let gid = sandbox.group.or(user.map(|user| user.gid));
    let more = sandbox.supplementary_groups.as_ref();
    if gid.is_none() && more.is_none() {
        return Ok(());
    }
    let own = user.map_or(gid.as_slice(), |user| &user.groups);
    let groups = own.iter().chain(more.into_iter().flatten());
    let groups: Vec<_> = groups.map(|gid| Gid::from_raw(*gid)).collect();
    named(
        "supplementary_groups",
        setgroups(&groups).map_err(Into::into),
    )?;
    if let Some(gid) = gid.map(Gid::from_raw) {
        named("group", setresgid(gid, gid, gid).map_err(Into::into))?;
    }
    Ok(())
}

/// The capabilities stay until exec: the filter of system calls needs one.
fn set_user(uid: u32) -> io::Result<()> {
    let uid = Uid::from_raw(uid);
    sys::keep_capabilities()?;
    Ok(setresuid(uid, uid, uid)?)
}

/// Has the service's program keep these capabilities, if its user is not root, and no other.
fn pass_on(set: Capabilities) -> io::Result<()> {
    sys::set_inheritable(set)?;
    (0..64)
        .filter(|number| set.contains(*number))
        .try_for_each(sys::raise_ambient)
}
