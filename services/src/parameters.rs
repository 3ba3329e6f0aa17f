//! What is configured, and where: in `main.cf`, if this is a Postfix installation, and in
//! `master.toml`; and before all on the command line.

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use master::config::{Diagnostic, Resolver, Source, Values};
use master::files::{Names, POSTFIX, read_if_there, stand_alone};

use crate::Error;
use crate::options::Options;

/// Reads all there is. What is wrong with the files is left out, and returned: the master has said
/// it already, and goes on as well.
///
/// # Errors
/// A file is there and cannot be read.
pub(crate) fn read(options: &Options, program: &str) -> Result<(Values, Vec<Diagnostic>), Error> {
    let variable = std::env::var_os("MAIL_CONFIG");
    let place = PathBuf::from(variable.unwrap_or_else(|| POSTFIX.into()));
    // Beside a table that is named itself, a main.cf means nothing.
    let (directory, main_cf) = match place.is_file() {
        true => (place.parent().unwrap_or(&place), None),
        false => (&*place, source(&place.join("main.cf"))?),
    };
    let master_toml = source(&directory.join("master.toml"))?;
    let mut values = Values::new(directory);
    let mut findings = Vec::new();
    if let Some(main_cf) = &main_cf {
        findings.extend(values.load(main_cf));
    }
    if let Some(master_toml) = &master_toml {
        findings.extend(values.load_toml(master_toml));
    }
    for (name, value) in &options.settings {
        values.set(name, value.clone());
    }
    values.set("process_name", program);
    values.set("service_name", options.name.as_deref().unwrap_or(program));
    if let Some(tag) = std::env::var_os("MAIL_LOGTAG") {
        values.default("syslog_name", tag.into_vec());
    }
    if main_cf.is_none() {
        // Whom import_environment keeps from knowing where a user's files are goes on without.
        if let Ok(stand_alone) = stand_alone(|name| std::env::var_os(name)) {
            values.default_directories(&stand_alone);
        }
    }
    values.complete(main_cf.is_none(), &Names.hostname(), std::process::id());
    Ok((values, findings))
}

/// A file, if it is there.
fn source(path: &Path) -> Result<Option<Source>, Error> {
    read_if_there(path.to_owned()).map_err(|error| Error::Other(error.into()))
}
