//! What is configured, and where: in `main.cf`, if this is a Postfix installation, and in
//! `master.toml`; and before all on the command line.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use master::config::{Diagnostic, Source, Values};

use crate::Error;
use crate::options::Options;

/// Where Postfix's configuration is unless told otherwise.
const CONFIG_DIRECTORY: &str = "/etc/postfix";
/// A configuration file that is larger is none.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Reads all there is. What is wrong with the files is left out, and returned: the master has said
/// it already, and goes on as well.
///
/// # Errors
/// A file is there and cannot be read.
pub(crate) fn read(options: &Options, program: &str) -> Result<(Values, Vec<Diagnostic>), Error> {
    let variable = std::env::var_os("MAIL_CONFIG");
    let place = PathBuf::from(variable.unwrap_or_else(|| CONFIG_DIRECTORY.into()));
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
    values.complete(main_cf.is_none(), &hostname(), std::process::id());
    Ok((values, findings))
}

fn hostname() -> String {
    let name = nix::unistd::gethostname().ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "localhost".to_owned())
}

/// A file, if it is there.
fn source(path: &Path) -> Result<Option<Source>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::system(format!("open {}", path.display()))(error)),
    };
    let mut text = Vec::new();
    file.take(FILE_MAX)
        .read_to_end(&mut text)
        .map_err(Error::system(format!("read {}", path.display())))?;
    let path = path.to_owned();
    Ok(Some(Source { path, text }))
}
