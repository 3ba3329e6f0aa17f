//! The paths that the children can open.

use std::path::{Path, PathBuf};

use super::{Misfit, Mistake, Setting, System, Value};
use crate::config::Service;
use crate::sandbox::{Files, Isolate, Sandbox};

/// The version of Landlock (Linux 6.2) from which on all is forbidden that is not allowed here: before,
/// files can be truncated that are not to be written to.
const LANDLOCK: u32 = 3;

/// The version (Linux 6.12) that keeps signals and abstract sockets apart.
const ISOLATES: u32 = 6;

/// The maximum number of paths of a list.
const PATHS_MAX: usize = 256;

pub(super) fn paths(
    setting: &Setting,
    to: &mut Vec<String>,
    system: System<'_>,
) -> Result<(), Mistake> {
    let Value::List(items) = &setting.value else {
        return Err(
            "a list of absolute paths, as in [\"/usr\", \"$queue_directory/public\"]".into(),
        );
    };
    if items.len() > PATHS_MAX {
        return Err(format!("at most {PATHS_MAX} paths").into());
    }
    let mut paths = Vec::new();
    for (item, place) in items {
        if matches!(item, Value::Text(text) if text == "$preset") {
            paths.append(to);
            continue;
        }
        let path = path(item, system).map_err(|expected| Mistake {
            place: Some(place.clone()),
            expected: expected.into(),
        });
        paths.extend(path?);
    }
    *to = paths;
    Ok(())
}

/// `None` for a path that may be missing, and is.
fn path(item: &Value, system: System<'_>) -> Result<Option<String>, String> {
    let Value::Text(text) = item else {
        return Err("an absolute path, as a string".to_owned());
    };
    let (may_be_missing, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, &**text),
    };
    let path = match text.strip_prefix('$') {
        None => PathBuf::from(text),
        Some(rest) => {
            let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
            let directory = system.directory(name).ok_or(
                "one of $config_directory, $daemon_directory, $data_directory and $queue_directory \
                 at the start, and no other \"$\", or \"$preset\" alone",
            )?;
            directory.join(below).components().collect()
        }
    };
    if !path.is_absolute() {
        return Err("an absolute path".to_owned());
    }
    if let Err(reason) = system.resolver.real_path(&path) {
        if may_be_missing {
            return Ok(None);
        }
        return Err(format!(
            "a path that is there: {}: {reason}",
            path.display()
        ));
    }
    let path = path.into_os_string().into_string();
    path.map(Some).map_err(|_| "a path in UTF-8".to_owned())
}

pub(super) fn isolate(sandbox: &mut Sandbox, setting: &Setting) -> Result<(), Mistake> {
    const EXPECTED: &str = "a list of \"signals\" and \"abstract_sockets\"";
    let Value::List(items) = &setting.value else {
        return Err(EXPECTED.into());
    };
    let mut isolate = Isolate::default();
    for (item, place) in items {
        match item {
            Value::Text(text) if text == "signals" => isolate.signals = true,
            Value::Text(text) if text == "abstract_sockets" => isolate.abstract_sockets = true,
            _ => {
                return Err(Mistake {
                    place: Some(place.clone()),
                    expected: EXPECTED.into(),
                });
            }
        }
    }
    sandbox.isolate = isolate;
    Ok(())
}

/// Settings that do not fit to the kernel or the service.
pub(super) fn misfits(sandbox: &Sandbox, service: &Service, system: System<'_>) -> Vec<Misfit> {
    let Files {
        read_only,
        read_write,
        required,
    } = &sandbox.files;
    let key = if read_only.is_empty() {
        "read_write_paths"
    } else {
        "read_only_paths"
    };
    let is_restricted = sandbox.files.are_restricted();
    if !is_restricted && !sandbox.isolate.is_any() {
        let message =
            "\"sandbox\" needs \"read_only_paths\", \"read_write_paths\" or \"isolate\" beside it";
        let is_alone = required.then(|| Misfit::error("sandbox", message.to_owned()));
        return is_alone.into_iter().collect();
    }
    let mut found = Vec::new();
    let version = system.resolver.landlock_version();
    for (is_wanted, key, needed, what) in [
        (
            is_restricted,
            key,
            LANDLOCK,
            "3 (Linux 6.2): the children can open more than these paths",
        ),
        (
            sandbox.isolate.is_any(),
            "isolate",
            ISOLATES,
            "6 (Linux 6.12): the children can reach processes of other services that have their user",
        ),
    ] {
        if !is_wanted || version >= needed {
            continue;
        }
        let message =
            format!("this kernel has version {version} of Landlock (0 is none), expected {what}");
        found.push(if *required {
            Misfit::error("sandbox", message)
        } else {
            Misfit::warning(key, message).once()
        });
    }
    if !is_restricted {
        return found;
    }
    let paths = read_only.iter().chain(read_write);
    let paths = paths.filter_map(|path| system.resolver.real_path(Path::new(path)).ok());
    let paths: Vec<_> = paths.collect();
    let mut told = Vec::new();
    for needed in system.resolver.needed_files(&service.path) {
        let directory = needed.parent().map(Path::to_owned);
        if !paths.iter().any(|path| needed.starts_with(path)) && !told.contains(&directory) {
            told.push(directory);
            let message = format!(
                "{} is not within these paths, and the program {} needs it: add it or its directory",
                needed.display(),
                service.path.display()
            );
            found.push(Misfit::error(key, message));
        }
    }
    found
}
