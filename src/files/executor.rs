//! The program that starts the children of services with a sandbox. It is beside the master, so that
//! it needs no setting, and no other user can put a file in its place.

use std::env;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::sys::privilege;

/// Where the program of this name is: in the directory of this program. The path is empty if that
/// cannot be found out.
pub fn beside_this_program(name: &str) -> PathBuf {
    env::current_exe().map_or_else(|_| PathBuf::new(), |path| path.with_file_name(name))
}

/// Checks that a program can be executed, and that no other user has made it or can change it.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn check_executor(path: &Path) -> anyhow::Result<()> {
    // After an upgrade this is the file that was replaced, which says as well whose programs these are.
    let own = fs::metadata("/proc/self/exe").map(|own| own.uid());
    let check = |found: io::Result<Metadata>| {
        let found = found?;
        let mode = found.mode();
        ensure!(found.is_file(), "not a file");
        ensure!(mode & 0o111 != 0, "not executable");
        let owners = [0, privilege::user().0];
        ensure!(
            owners.contains(&found.uid()) || own.is_ok_and(|own| own == found.uid()),
            "user ID {} owns it: expected the owner of the master's own file",
            found.uid()
        );
        ensure!(
            mode & 0o022 == 0,
            "others than its owner may write to it: use \"chmod go-w\""
        );
        Ok(())
    };
    check(fs::metadata(path)).with_context(|| {
        format!(
            "{}: services with limits or a sandbox in master.toml need this program: install it in \
             the directory of the master",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn a_program_must_be_one_that_others_cannot_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let error = || format!("{:#}", check_executor(&path).unwrap_err());
        assert!(error().contains("No such file"), "{}", error());
        fs::write(&path, "").unwrap();
        for (mode, problem) in [
            (0o644, Some("not executable")),
            (0o775, Some("chmod go-w")),
            (0o757, Some("chmod go-w")),
            (0o755, None),
            (0o700, None),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match problem {
                Some(problem) => assert!(error().contains(problem), "{}", error()),
                None => check_executor(&path).unwrap(),
            }
        }
        if privilege::is_root() {
            chown(&path, Some(4711), None).unwrap();
            assert!(error().contains("user ID 4711 owns it"), "{}", error());
        }
        let directory = check_executor(directory.path()).unwrap_err();
        assert!(format!("{directory:#}").contains("not a file"));
        assert!(check_executor(Path::new("")).is_err());
    }

    #[test]
    fn it_is_beside_this_program() {
        let found = beside_this_program("x");
        assert_eq!(found.parent(), env::current_exe().unwrap().parent());
        assert!(found.ends_with("x"));
    }
}
