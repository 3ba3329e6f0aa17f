//! The paths that the children can open.

use std::path::{Path, PathBuf};

use super::{Misfit, Mistake, Setting, System, Value};
use crate::config::Service;
use crate::sandbox::{Files, Sandbox};

/// The version of Landlock (Linux 6.2) from which on all is forbidden that is not allowed here: before,
/// files can be truncated that are not to be written to.
const LANDLOCK: u32 = 3;

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
    let paths = items.iter().map(|(item, place)| {
        path(item, system).map_err(|expected| Mistake {
            place: Some(place.clone()),
            expected: expected.into(),
        })
    });
    *to = paths.collect::<Result<_, _>>()?;
    Ok(())
}

fn path(item: &Value, system: System<'_>) -> Result<String, String> {
    let Value::Text(text) = item else {
        return Err("an absolute path, as a string".to_owned());
    };
    let path = match text.strip_prefix('$') {
        None => PathBuf::from(text),
        Some(rest) => {
            let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
            let directory = system.directory(name).ok_or(
                "one of $config_directory, $daemon_directory, $data_directory and $queue_directory \
                 at the start, and no other \"$\"",
            )?;
            directory.join(below).components().collect()
        }
    };
    if !path.is_absolute() {
        return Err("an absolute path".to_owned());
    }
    if let Err(reason) = system.resolver.real_path(&path) {
        return Err(format!(
            "a path that is there: {}: {reason}",
            path.display()
        ));
    }
    let path = path.into_os_string().into_string();
    path.map_err(|_| "a path in UTF-8".to_owned())
}

pub(super) fn required(sandbox: &mut Sandbox, setting: &Setting) -> Result<(), Mistake> {
    sandbox.files.required = match &setting.value {
        Value::Text(text) if text == "required" => true,
        Value::Text(text) if text == "possible" => false,
        _ => return Err("\"possible\" or \"required\"".into()),
    };
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
    if read_only.is_empty() && read_write.is_empty() {
        let message = "\"sandbox\" needs \"read_only_paths\" or \"read_write_paths\" beside it";
        let is_alone = required.then(|| Misfit::error("sandbox", message.to_owned()));
        return is_alone.into_iter().collect();
    }
    let mut found = Vec::new();
    let version = system.resolver.landlock_version();
    if version < LANDLOCK {
        let message = format!(
            "this kernel has version {version} of Landlock (0 is none), expected {LANDLOCK} (Linux \
             6.2): the children can open more than these paths"
        );
        found.push(if *required {
            Misfit::error("sandbox", message)
        } else {
            Misfit::warning(key, message)
        });
    }
    let paths = read_only.iter().chain(read_write);
    let paths = paths.filter_map(|path| system.resolver.real_path(Path::new(path)).ok());
    let paths: Vec<_> = paths.collect();
    for needed in system.resolver.needed_files(&service.path) {
        if !paths.iter().any(|path| needed.starts_with(path)) {
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
