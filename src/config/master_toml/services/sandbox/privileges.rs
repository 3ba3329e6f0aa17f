//! User, groups and capabilities.

use super::{Misfit, Mistake, Setting, System, Value};
use crate::config::Service;
use crate::sandbox::{Capabilities, Sandbox, User};

/// The maximum number of groups of a process (the kernel's `NGROUPS_MAX` is larger).
const GROUPS_MAX: usize = 1024;

pub(super) fn user(
    sandbox: &mut Sandbox,
    setting: &Setting,
    system: System<'_>,
) -> Result<(), Mistake> {
    let name = match &setting.value {
        Value::Text(name) => Some(name.clone()),
        Value::Integer(uid) => {
            let uid = u32::try_from(*uid).ok();
            uid.and_then(|uid| system.resolver.user_name(uid))
        }
        _ => None,
    };
    let found = name.and_then(|name| Some((system.resolver.user(&name)?, name)));
    let (user, name) = found.ok_or("the name or number of a user of this system")?;
    sandbox.user = Some(User {
        uid: user.uid,
        gid: user.gid,
        groups: system.resolver.groups(&name, user.gid),
    });
    Ok(())
}

pub(super) fn group(
    sandbox: &mut Sandbox,
    setting: &Setting,
    system: System<'_>,
) -> Result<(), Mistake> {
    sandbox.group = Some(gid(&setting.value, system).ok_or(GROUP)?);
    Ok(())
}

const GROUP: &str = "the name or number of a group of this system";

/// The number (2^32 - 1) is none: to the kernel it means no change.
pub(in super::super) fn gid(value: &Value, system: System<'_>) -> Option<u32> {
    match value {
        Value::Text(name) => system.resolver.group(name),
        Value::Integer(gid) => u32::try_from(*gid).ok().filter(|gid| *gid != u32::MAX),
        _ => None,
    }
}

pub(super) fn supplementary_groups(
    sandbox: &mut Sandbox,
    setting: &Setting,
    system: System<'_>,
) -> Result<(), Mistake> {
    let Value::List(items) = &setting.value else {
        return Err("a list of groups, as in [\"mail\", \"sasl\"]".into());
    };
    if items.len() > GROUPS_MAX {
        return Err(format!("at most {GROUPS_MAX} groups").into());
    }
    let groups = items.iter().map(|(item, place)| {
        gid(item, system).ok_or_else(|| Mistake {
            place: Some(place.clone()),
            expected: GROUP.into(),
        })
    });
    sandbox.supplementary_groups = Some(groups.collect::<Result<_, _>>()?);
    Ok(())
}

pub(super) fn capabilities(
    setting: &Setting,
    to: &mut Option<Capabilities>,
) -> Result<(), Mistake> {
    let Value::List(items) = &setting.value else {
        return Err("a list of capabilities, as in [\"CAP_NET_BIND_SERVICE\"], or []".into());
    };
    let mut set = Capabilities::default();
    for (item, place) in items {
        let with = match item {
            Value::Text(name) => set.with(name),
            _ => None,
        };
        set = with.ok_or_else(|| Mistake {
            place: Some(place.clone()),
            expected: "the name of a capability of capabilities(7), as \"CAP_CHOWN\"".into(),
        })?;
    }
    *to = Some(set);
    Ok(())
}

/// Settings that do not fit to the service or the master.
pub(super) fn misfits(sandbox: &Sandbox, service: &Service, system: System<'_>) -> Vec<Misfit> {
    let mut found = Vec::new();
    let mut add = |is_error, key, message: String| {
        found.push(if is_error {
            Misfit::error(key, message)
        } else {
            Misfit::warning(key, message)
        });
    };
    let of_root = [
        ("user", sandbox.user.is_some()),
        ("group", sandbox.group.is_some()),
        (
            "supplementary_groups",
            sandbox.supplementary_groups.is_some(),
        ),
    ];
    for (key, _) in of_root.into_iter().filter(|(_, is_set)| *is_set) {
        if system.is_without_root() {
            add(
                true,
                key,
                format!("\"{key}\" needs a master that root runs: leave it out"),
            );
        }
    }
    let (ambient, bounding) = (
        sandbox.ambient_capabilities,
        sandbox.capability_bounding_set,
    );
    if ambient.zip(bounding).is_some_and(|(a, b)| !a.are_in(b)) {
        let message = "\"ambient_capabilities\" has one that \"capability_bounding_set\" does not \
                       have: add it there";
        add(true, "ambient_capabilities", message.to_owned());
    }
    if sandbox.user.as_ref().is_none_or(|user| user.uid == 0) {
        return found;
    }
    if service.chroot {
        let message = "\"user\" leaves the children no right to change their root directory: set the \
                       column chroot of the service to n";
        add(true, "user", message.to_owned());
    }
    if system.is_postfix() && !service.command.starts_with('/') {
        let message = "\"user\" is not for Postfix's own programs, which begin as root and change \
                       their user themselves: leave it out";
        add(false, "user", message.to_owned());
    }
    found
}
