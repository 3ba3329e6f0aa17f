//! Directories to which no other user may write.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::{Context, ensure};

use crate::sys::privilege::{self, Capability};

/// Creates a directory that belongs to a user, and the missing ones above it. One that exists must be
/// safe: it belongs to that user, to root or to the user of this process, and no other user may write
/// to it. Only root can create it for another user.
///
/// # Errors
/// It is not safe, and why; or the system's.
pub(super) fn ensure(path: &Path, mode: u32, uid: u32, gid: u32) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
                let (uid, gid) = privilege::user();
                ensure(parent, mode, uid, gid)?;
            }
            match make(path, mode, uid, gid) {
                // With ".." in it, a parent that was missing is made together with it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    check(path, &fs::symlink_metadata(path)?, uid)
                }
                made => made.context("cannot make this directory"),
            }
        }
        found => check(path, &found.context("cannot make this directory")?, uid),
    }
}

fn check(path: &Path, metadata: &Metadata, uid: u32) -> anyhow::Result<()> {
    ensure!(
        metadata.is_dir(),
        "expected a directory, not a file or a link"
    );
    let owner = metadata.uid();
    ensure!(
        owner == 0 || owner == uid || owner == privilege::user().0,
        "it belongs to another user, whose ID is {owner}: \"chown {uid} {path}\" ends that",
        path = path.display()
    );
    let mode = metadata.mode() & 0o7777;
    ensure!(
        mode & 0o022 == 0,
        "others may write to it (mode {mode:o}): \"chmod go-w {}\" ends that",
        path.display()
    );
    Ok(())
}

fn make(path: &Path, mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    let directory: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)?;
    // Independent of the mask. It is the owner's to do: afterwards it would need CAP_FOWNER.
    directory.set_permissions(Permissions::from_mode(mode))?;
    if privilege::is_root() && (uid, gid) != privilege::user() {
        fchown(&directory, Some(uid), Some(gid)).map_err(|error| {
            // The next start would find one that is not its owner's.
            let _ = fs::remove_dir(path);
            if Capability::Chown.is_there() {
                return error;
            }
            io::Error::other(
                "root lacks CAP_CHOWN, which is needed to give it to its owner: make it beforehand, \
                 or give the capability",
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ensure_own(path: &Path) -> anyhow::Result<()> {
        let (uid, gid) = privilege::user();
        ensure(path, 0o755, uid, gid)
    }

    #[test]
    fn a_missing_directory_is_created_with_those_above_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        ensure_own(&path).unwrap();
        ensure_own(&path).expect("what it has made is good enough");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn a_directory_to_which_others_may_write_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        ensure_own(&path).unwrap();
        for mode in [0o775, 0o757, 0o1777] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = ensure_own(&path).unwrap_err();
            let path = path.display();
            let words =
                format!("others may write to it (mode {mode:o}): \"chmod go-w {path}\" ends");
            assert!(error.to_string().contains(&words), "{error}");
        }
    }

    #[test]
    fn files_and_links_are_no_directories() {
        let root = tempfile::tempdir().unwrap();
        let (file, link) = (root.path().join("file"), root.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        for path in [file, link] {
            let error = ensure_own(&path).unwrap_err();
            assert!(error.to_string().contains("a file or a link"), "{error}");
        }
    }

    #[test]
    fn root_creates_a_users_directory_and_refuses_another_users() {
        if !privilege::is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        ensure(&path, 0o700, 4711, 4712).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (4711, 4712));
        ensure(&path, 0o700, 4711, 4712).expect("the user's own");
        let error = ensure_own(&path).unwrap_err();
        let words = format!("ID is 4711: \"chown 0 {}\" ends that", path.display());
        assert!(error.to_string().contains(&words), "{error}");
    }
}
