//! Whether users other than root can change a file: by writing to it or to a directory on its way,
//! or because it or such a directory is theirs.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Symbolic links that are followed (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Write permission for the group and for others, and the sticky bit.
const WRITE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Checks that only root can change what a path names. A file that does not exist is not checked
/// further: other messages are about that.
///
/// # Errors
/// The first file or directory, from the root directory on, that others can change; why, and what to
/// do.
pub fn check(path: &Path) -> Result<(), String> {
    let mut walk = Walk {
        at: PathBuf::from("/"),
        rest: VecDeque::new(),
        links: 0,
    };
    walk.prepend(path);
    walk.check_here(Path::new("/"))?;
    while let Some(name) = walk.rest.pop_front() {
        if name == ".." {
            walk.at.pop();
            continue;
        }
        let next = walk.at.join(&name);
        let Ok(metadata) = next.symlink_metadata() else {
            return Ok(());
        };
        if metadata.is_symlink() {
            walk.follow(&next, &metadata)?;
        } else {
            walk.check_here(&next)?;
            walk.at = next;
        }
    }
    Ok(())
}

/// The way to a file.
struct Walk {
    /// A directory without links in its path.
    at: PathBuf,
    /// What comes below it.
    rest: VecDeque<OsString>,
    links: usize,
}

impl Walk {
    /// Puts a path before the rest.
    fn prepend(&mut self, path: &Path) {
        if path.is_absolute() {
            self.at = "/".into();
        }
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.rest.push_front(name.to_owned()),
                Component::ParentDir => self.rest.push_front("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn follow(&mut self, link: &Path, metadata: &Metadata) -> Result<(), String> {
        self.links += 1;
        // In a sticky directory, the owner of a link can replace it.
        let shared = fs::metadata(&self.at).is_ok_and(|at| at.mode() & WRITE_BY_OTHERS != 0);
        if shared && metadata.uid() != 0 {
            return Err(owned(link, metadata.uid()));
        }
        match link.read_link() {
            Ok(target) if self.links <= LINKS_MAX => self.prepend(&target),
            _ => self.rest.clear(),
        }
        Ok(())
    }

    fn check_here(&self, path: &Path) -> Result<(), String> {
        let Ok(metadata) = path.symlink_metadata() else {
            return Ok(());
        };
        if metadata.uid() != 0 {
            return Err(owned(path, metadata.uid()));
        }
        let mode = metadata.mode() & 0o7777;
        // There, only the owner of a file can rename or remove it.
        let is_protected = metadata.is_dir() && mode & STICKY != 0;
        if mode & WRITE_BY_OTHERS == 0 || is_protected {
            return Ok(());
        }
        let path = path.display();
        Err(format!(
            "users other than root may write to {path} (mode {mode:o}): \"chmod go-w {path}\" ends \
             that"
        ))
    }
}

fn owned(path: &Path, uid: u32) -> String {
    let path = path.display();
    format!(
        "{path} belongs to another user than root, whose ID is {uid}: \"chown root {path}\" ends that"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::privilege;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    const OTHER: u32 = 4711;

    /// A directory with a file in it, both root's; `None` for another user.
    fn directory() -> Option<(tempfile::TempDir, PathBuf)> {
        if !privilege::is_root() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        fs::create_dir(&below).unwrap();
        let file = below.join("file");
        fs::write(&file, "").unwrap();
        set_mode(&below, 0o755);
        set_mode(&file, 0o644);
        Some((directory, file))
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn set_owner(path: &Path, uid: u32) {
        lchown(path, Some(uid), None).unwrap();
    }

    #[track_caller]
    fn expect(path: &Path, problem: &str) {
        let error = check(path).expect_err("a problem");
        assert!(error.contains(problem), "{error}");
    }

    #[test]
    fn what_only_root_may_write_is_trusted() {
        let Some((directory, file)) = directory() else {
            return;
        };
        assert_eq!(check(&file), Ok(()));
        assert_eq!(check(&directory.path().join("none/x")), Ok(()));
        assert_eq!(check(Path::new("/etc/passwd")), Ok(()));
        assert_eq!(check(Path::new("/tmp")), Ok(()), "it is sticky");
    }

    #[test]
    fn a_file_that_others_may_write_is_named() {
        let Some((_directory, file)) = directory() else {
            return;
        };
        for mode in [0o666, 0o664, 0o646, 0o602] {
            set_mode(&file, mode);
            let path = file.display();
            expect(
                &file,
                &format!("{path} (mode {mode:o}): \"chmod go-w {path}\""),
            );
        }
        set_mode(&file, 0o644);
        set_owner(&file, OTHER);
        expect(&file, "belongs to another user than root, whose ID is 4711");
    }

    #[test]
    fn a_directory_that_others_may_write_is_named_unless_it_is_sticky() {
        let Some((_directory, file)) = directory() else {
            return;
        };
        let below = file.parent().unwrap();
        for mode in [0o777, 0o775] {
            set_mode(below, mode);
            expect(&file, &format!("{} (mode {mode:o})", below.display()));
        }
        set_mode(below, 0o1777);
        assert_eq!(check(&file), Ok(()));
        set_owner(below, OTHER);
        expect(&file, &format!("{} belongs", below.display()));
    }

    #[test]
    fn links_are_followed_and_their_ways_checked() {
        let Some((directory, file)) = directory() else {
            return;
        };
        let link = directory.path().join("link");
        symlink("./below/../below/file", &link).unwrap();
        assert_eq!(check(&link), Ok(()));
        let absolute = directory.path().join("absolute");
        symlink(&link, &absolute).unwrap();
        set_mode(file.parent().unwrap(), 0o777);
        expect(&absolute, "below (mode 777)");
        set_mode(file.parent().unwrap(), 0o755);
        set_owner(&link, OTHER);
        assert_eq!(check(&absolute), Ok(()), "its owner cannot change it");
        set_mode(directory.path(), 0o1777);
        expect(&absolute, "link belongs to another user");
        let endless = directory.path().join("endless");
        symlink("endless", &endless).unwrap();
        assert_eq!(check(&endless), Ok(()), "it names no file");
    }
}
