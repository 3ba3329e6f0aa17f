//! Reads the parameters, in ascending priority: defaults, `main.cf` (in a Postfix installation) and
//! `master.toml`, and the command line.

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use master::config::{DROP_IN_SETTINGS, Diagnostic, Source, Values};
use master::files::{Names, POSTFIX, drop_ins, read_if_there, stand_alone};

use crate::Error;
use crate::options::Options;

/// Reads all parameters. Entries with errors are skipped and returned as findings: the master has
/// logged them, and continues as well.
///
/// # Errors
/// A file exists and cannot be read.
pub(crate) fn read(options: &Options, program: &str) -> Result<(Values, Vec<Diagnostic>), Error> {
    let variable = std::env::var_os("MAIL_CONFIG");
    let place = PathBuf::from(variable.unwrap_or_else(|| POSTFIX.into()));
    let place = std::path::absolute(&place).unwrap_or(place);
    // If the configuration is the path of a table, `main.cf` is ignored.
    let (directory, main_cf) = if place.is_file() {
        (place.parent().unwrap_or(&place), None)
    } else {
        (&*place, source(&place.join("main.cf"))?)
    };
    let mut tomls = Vec::from_iter(source(&directory.join("master.toml"))?);
    if directory == place {
        let more = drop_ins(&directory.join(DROP_IN_SETTINGS), "toml");
        tomls.extend(more.map_err(|error| Error::Other(error.into()))?);
    }
    let mut values = Values::new(directory);
    let mut findings = Vec::new();
    if let Some(main_cf) = &main_cf {
        findings.extend(values.load(main_cf));
    }
    findings.extend(tomls.iter().flat_map(|toml| values.load_toml(toml)));
    for (name, value) in &options.settings {
        values.set(name, value.clone());
    }
    values.set("process_name", program);
    values.set("service_name", options.name.as_deref().unwrap_or(program));
    if let Some(tag) = std::env::var_os("MAIL_LOGTAG") {
        values.default("syslog_name", tag.into_vec());
    }
    if main_cf.is_none() {
        // If `import_environment` hides the user's directories, the defaults stay unset.
        if let Ok(stand_alone) = stand_alone(|name| std::env::var_os(name)) {
            values.default_directories(&stand_alone);
        }
    }
    values.complete(main_cf.is_none(), &Names);
    Ok((values, findings))
}

/// A file; `None` if it does not exist.
fn source(path: &Path) -> Result<Option<Source>, Error> {
    read_if_there(path.to_owned()).map_err(|error| Error::Other(error.into()))
}
