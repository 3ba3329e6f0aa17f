//! The files that can be opened, and the processes that can be reached: a ruleset of Landlock. It is made before the user changes, so that
//! paths may be in directories that only root can read.

use std::fmt::Display;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use master::sandbox::{Failure, Isolate, Sandbox};

/// What `sandbox = "required"` requires: with the second version files can be truncated that are not
/// to be written to.
const VERSION: ABI = ABI::V3;

/// Makes the ruleset.
pub fn prepare(sandbox: &Sandbox) -> Result<RulesetCreated, Failure> {
    let (files, isolate) = (&sandbox.files, sandbox.isolate);
    let all = AccessFs::from_all(VERSION);
    let level = if files.required {
        CompatLevel::HardRequirement
    } else {
        CompatLevel::BestEffort
    };
    let mut ruleset = Ruleset::default().set_compatibility(level);
    let failed = |error| failure("sandbox", error);
    if files.are_restricted() {
        ruleset = ruleset.handle_access(all).map_err(failed)?;
    }
    if isolate.is_any() {
        let scopes = scopes(isolate);
        ruleset = ruleset
            .scope(scopes)
            .map_err(|error| failure("isolate", error))?;
    }
    let mut ruleset = ruleset.create().map_err(failed)?;
    for (setting, paths, access) in [
        (
            "read_only_paths",
            &files.read_only,
            AccessFs::from_read(VERSION),
        ),
        ("read_write_paths", &files.read_write, all),
    ] {
        for path in paths {
            let path = Path::new(path);
            ruleset = allow(ruleset, path, access)
                .map_err(|error| failure(setting, format!("{}: {error}", path.display())))?;
        }
    }
    Ok(ruleset)
}

fn scopes(isolate: Isolate) -> BitFlags<Scope> {
    let mut scopes = BitFlags::empty();
    if isolate.signals {
        scopes |= Scope::Signal;
    }
    if isolate.abstract_sockets {
        scopes |= Scope::AbstractUnixSocket;
    }
    scopes
}

/// Allows what is beneath a directory, or a file that is none.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let opened = PathFd::new(path).map_err(|error| error.to_string())?;
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(VERSION)
    };
    let added = ruleset.add_rule(PathBeneath::new(opened, access));
    added.map_err(|error| error.to_string())
}

/// Applies the ruleset. A kernel without Landlock does nothing, unless it is required.
pub fn apply(ruleset: RulesetCreated) -> Result<(), Failure> {
    let applied: Result<_, RulesetError> = ruleset.no_new_privs(false).restrict_self();
    applied.map(drop).map_err(|error| failure("sandbox", error))
}

fn failure(setting: &str, reason: impl Display) -> Failure {
    Failure {
        setting: Some(setting.to_owned()),
        reason: reason.to_string(),
    }
}
