//! What is configured, and where: in a Postfix installation `main.cf`; in the directory or beside
//! the table of a master that stands alone nothing, or `master.toml`; and before all the command
//! line.

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

/// What differs where there is no `main.cf`.
const STANDALONE_DEFAULTS: [(&str, &str); 2] =
    [("mail_owner", "nobody"), ("syslog_name", "master")];

/// Reads all there is. What is wrong with the files is left out, and returned: the master has said
/// it already, and goes on as well.
///
/// # Errors
/// A file is there and cannot be read.
pub(crate) fn read(options: &Options, program: &str) -> Result<(Values, Vec<Diagnostic>), Error> {
    let variable = std::env::var_os("MAIL_CONFIG");
    let place = PathBuf::from(variable.unwrap_or_else(|| CONFIG_DIRECTORY.into()));
    let (main_cf, master_toml) = match place.is_file() {
        // A table alone.
        true => (None, None),
        false => (
            source(&place.join("main.cf"))?,
            source(&place.join("master.toml"))?,
        ),
    };
    let mut values = Values::new(&place);
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
        for (name, value) in STANDALONE_DEFAULTS {
            values.default(name, value);
        }
    }
    values.complete(&hostname(), std::process::id());
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
