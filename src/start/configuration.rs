//! Which configuration is meant, and where the log goes until it is known.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::files::{Location, POSTFIX, PipedTable};
use crate::log::{Settings, Terminal};
use crate::options::Options;
use crate::runtime::Inherited;

/// A variable of the environment in which the master was started.
pub(super) fn variable(inherited: &Inherited, name: &str) -> Option<OsString> {
    inherited.get(Path::new(name).as_os_str()).cloned()
}

/// Until the configuration is known: the system's log, or what a parent Postfix program names.
pub(super) fn first_log(inherited: &Inherited, name: &str, facility: &str) -> Settings {
    let variable = |name: &str| variable(inherited, name);
    Settings::inherited(variable, name, "master", facility, Terminal::Problems)
}

/// The configuration that the command line or the environment names.
pub(super) fn named_configuration(options: &Options, inherited: &Inherited) -> Option<PathBuf> {
    let of_environment = || variable(inherited, "MAIL_CONFIG").map(PathBuf::from);
    options.configuration.clone().or_else(of_environment)
}

/// Postfix's configuration is found without being named; others are not, lest a `main.cf` that
/// is gone make another system of it.
pub(super) fn find_configuration(
    options: &Options,
    inherited: &Inherited,
    table: Option<PipedTable>,
) -> anyhow::Result<Location> {
    let variable = |name: &str| variable(inherited, name);
    if let Some(table) = table {
        return Location::of_pipe(table, variable);
    }
    let named = named_configuration(options, inherited);
    let location = Location::find(named.as_deref().unwrap_or(Path::new(POSTFIX)), variable)?;
    ensure!(
        named.is_some() || !location.is_stand_alone(),
        "{POSTFIX} has no main.cf: name the directory of main.cf and master.cf, or a \
         service table, with -c"
    );
    Ok(location)
}
