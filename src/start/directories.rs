//! The working directory, and the locks that keep other masters out.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, anyhow};

use super::directory;
use super::lock::{self, LockFile};
use crate::config::{Parameters, User};
use crate::errors::describe_error;
use crate::files::Location;
use crate::log::Log;
use crate::runtime::Names;
use crate::sys::{file, privilege, process};

/// The file that a running master holds locked, below the queue directory.
const PID_FILE: &str = "pid/master.pid";

/// Whether a master is running, for `-t`.
pub(super) fn is_locked(location: &Location, log: &mut Log) -> anyhow::Result<bool> {
    let sources = location.read_parameters()?;
    let (parameters, _) = Names::look_up_all(|names| Parameters::parse(&sources, names))?;
    let parameters = parameters?;
    let path = parameters.queue_directory.join(PID_FILE);
    if !path.try_exists().unwrap_or(true) {
        return Ok(false);
    }
    match LockFile::acquire(&path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(true),
        Err(error) => {
            // No master holds what no master could have opened; a script that believes otherwise
            // sends signals to whatever process a stale file names.
            log.warning(not_locked(&path, &error));
            Ok(false)
        }
    }
}

/// Gives up supplementary groups, makes the queue directory the working directory, and locks it and
/// the data directory against other masters, until the locks are dropped.
pub(super) fn prepare_directories(
    parameters: &Parameters,
    log: &mut Log,
) -> anyhow::Result<[LockFile; 2]> {
    if privilege::is_root() {
        privilege::drop_groups().context("cannot give up supplementary groups")?;
    }
    if parameters.stand_alone {
        make_directories(parameters)?;
    }
    let queue = &parameters.queue_directory;
    std::env::set_current_dir(queue).map_err(|error| {
        let (directory, reason) = (queue.display(), describe_error(&error));
        anyhow!(
            "queue_directory {directory}: cannot enter it: {reason}: \"postfix check\" makes it"
        )
    })?;
    Ok([
        lock_pid_file(parameters)?,
        lock_data_directory(parameters, log)?,
    ])
}

/// Makes what is missing of the directories that Postfix's own tools would make. Sockets are their
/// owner's to make, and only the owner reaches a private one.
fn make_directories(parameters: &Parameters) -> anyhow::Result<()> {
    let (queue, data) = (&parameters.queue_directory, &parameters.data_directory);
    let (own, owner) = (privilege::user(), parameters.mail_owner.1);
    let owner = (owner.uid, owner.gid);
    for (path, mode, (uid, gid)) in [
        (queue.clone(), 0o755, own),
        (queue.join("pid"), 0o755, own),
        (queue.join("public"), 0o755, owner),
        (queue.join("private"), 0o700, owner),
        (data.clone(), 0o700, owner),
    ] {
        directory::ensure(&path, mode, uid, gid).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Locks the queue directory against another master, ours or Postfix's.
fn lock_pid_file(parameters: &Parameters) -> anyhow::Result<LockFile> {
    let path = parameters.queue_directory.join(PID_FILE);
    let lock = LockFile::acquire(&path).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::ResourceBusy if parameters.stand_alone => {
                ": a master is running here already; to run another, give it a queue_directory \
                 and a data_directory of its own in master.toml"
            }
            ErrorKind::ResourceBusy => {
                ": a master is running here already; \"postfix stop\" ends it"
            }
            ErrorKind::NotFound => ": the directory pid is missing; \"postfix check\" makes it",
            _ => "",
        };
        anyhow!(not_locked(&path, &error) + advice)
    })?;
    with_pid(lock, &path)
}

/// Locks the directory that belongs to the mail owner, as the mail owner.
fn lock_data_directory(parameters: &Parameters, log: &mut Log) -> anyhow::Result<LockFile> {
    let (name, User { uid, gid }) = &parameters.mail_owner;
    let directory = parameters.data_directory.display();
    let path = parameters.data_directory.join("master.lock");
    if privilege::is_root() {
        for path in [&parameters.data_directory, &path] {
            let restored = privilege::as_user(*uid, *gid, || file::restore_access(path));
            if let Ok(Some(mode)) = restored {
                log.warning(format!(
                    "{}: its mode, {mode:03o}, kept {name} from using it: {name} has all rights now",
                    path.display()
                ));
            }
        }
    }
    let acquire = || privilege::as_user(*uid, *gid, || Ok(LockFile::acquire(&path)));
    let mut lock = acquire()?;
    if let Err(error) = &lock {
        if privilege::is_root() && (error.kind() == ErrorKind::WouldBlock || is_owners(&path)) {
            let aside = privilege::as_user(*uid, *gid, || file::rename_aside(&path))?;
            log.warning(format!(
                "{}: {name} has put it in the way of the master: it is {} now",
                not_locked(&path, error),
                aside.display()
            ));
            lock = acquire()?;
        }
    }
    let lock = lock.map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::ResourceBusy => {
                ": a master of another queue directory uses this data_directory; give each its own"
                    .into()
            }
            ErrorKind::NotFound => {
                format!(": make the data_directory with \"install -d -o {name} {directory}\"")
            }
            ErrorKind::PermissionDenied => format!(
                ": the data_directory must belong to mail_owner: \"chown {name} {directory}\""
            ),
            _ => String::new(),
        };
        anyhow!(not_locked(&path, &error) + &advice)
    })?;
    with_pid(lock, &path)
}

/// Whether what keeps root from its lock is no master's: not a file for a lock, or locked by a process
/// that is not root's.
fn is_owners(path: &Path) -> bool {
    let Ok(metadata) = path.symlink_metadata() else {
        return false;
    };
    let user = || process::real_user(lock::holder(&metadata)?);
    !metadata.is_file() || metadata.nlink() != 1 || user().is_some_and(|uid| uid != 0)
}

fn not_locked(path: &Path, error: &io::Error) -> String {
    let (path, reason) = (path.display(), describe_error(error));
    if error.raw_os_error().is_some() {
        format!("lock file {path}: cannot open it: {reason}")
    } else {
        format!("lock file {path}: {reason}")
    }
}

fn with_pid(mut lock: LockFile, path: &Path) -> anyhow::Result<LockFile> {
    lock.write_pid(std::process::id())
        .with_context(|| format!("cannot update lock file {}", path.display()))?;
    Ok(lock)
}
