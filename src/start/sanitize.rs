//! What a parent process has set and leaked, which must not reach the children.

use std::os::fd::{IntoRawFd, OwnedFd};

use anyhow::Context;

use super::configuration::{named_configuration, variable};
use crate::files::PipedTable;
use crate::options::Options;
use crate::runtime::Inherited;
use crate::sys::spawn::Spawner;
use crate::sys::{inherited, process, signal};

/// What the process keeps of its descriptors.
pub(super) struct Sanitized {
    /// The service table, if it came through one.
    pub(super) table: Option<PipedTable>,
    /// None for `-t`, which has no children.
    pub(super) descriptors: Option<Descriptors>,
}

/// The descriptors with which the master begins.
pub(super) struct Descriptors {
    pub(super) spawner: Spawner,
    /// Listeners that a service manager has opened.
    pub(super) handed: Vec<OwnedFd>,
}

/// Resets what the parent process has set, closes the descriptors that it has leaked, and reserves
/// the numbers that children will have, before anything else takes them. The service manager's
/// listeners are those in `kept`, where an upgrade has failed; else what the environment says.
pub(super) fn sanitize_process(
    options: &Options,
    inherited: &Inherited,
    kept: Option<Vec<OwnedFd>>,
) -> anyhow::Result<Sanitized> {
    process::set_umask(0o077);
    signal::reset().context("cannot reset signals")?;
    signal::release().context("cannot reset signals")?;
    let table = match named_configuration(options, inherited) {
        Some(path) => PipedTable::read(&path)?,
        None => None,
    };
    if options.test_lock {
        inherited::take(&[], 0)?;
        process::open_standard_descriptors().context("open /dev/null")?;
        return Ok(Sanitized {
            table,
            descriptors: None,
        });
    }
    process::lift_file_size_limit().context("cannot raise the limits")?;
    let former = process::raise_descriptor_limit().context("cannot raise the limits")?;
    let handed = match kept {
        Some(kept) => kept.into_iter().map(IntoRawFd::into_raw_fd).collect(),
        None => inherited::handed(|name| variable(inherited, name), std::process::id()),
    };
    let handed = inherited::take(&handed, Spawner::END).context("LISTEN_FDS")?;
    process::open_standard_descriptors().context("open /dev/null")?;
    let spawner = Spawner::new(former).context(
        "cannot reserve descriptors for the children, some 270 are needed: raise \"ulimit -n\"",
    )?;
    Ok(Sanitized {
        table,
        descriptors: Some(Descriptors { spawner, handed }),
    })
}
