//! Directories of further configuration files, which packages and people add without changing the
//! file that is there already.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, ensure};

use super::{FILE_MAX, read};
use crate::config::Source;

/// Maximum number of files of one directory.
const FILES_MAX: usize = 1000;
/// Maximum number of all names in it: reading very many would keep the master from its services.
const NAMES_MAX: usize = 10_000;

/// The files of a directory whose names end in `.` and `ending`, in the order of their names, byte
/// by byte. Hidden files are left out, and editors' backups end otherwise. A directory that does not
/// exist has no files; a dangling symbolic link is an error.
///
/// # Errors
/// The directory or a file in it cannot be read, a file is not a regular file, or they are too many
/// or too large.
pub fn drop_ins(directory: &Path, ending: &str) -> anyhow::Result<Vec<Source>> {
    let shown = directory.display();
    if matches!(directory.symlink_metadata(), Err(error) if error.kind() == ErrorKind::NotFound) {
        return Ok(Vec::new());
    }
    let reading = || format!("read directory {shown}");
    let mut names = Vec::new();
    for (n, entry) in fs::read_dir(directory).with_context(reading)?.enumerate() {
        ensure!(
            n < NAMES_MAX,
            "{shown}: more than {NAMES_MAX} files: expected a directory for files *.{ending} only"
        );
        let name = entry.with_context(reading)?.file_name();
        if is_meant(&name, ending) {
            names.push(name);
        }
        ensure!(
            names.len() <= FILES_MAX,
            "{shown}: more than {FILES_MAX} files *.{ending}: expected fewer"
        );
    }
    names.sort();
    let mut size = 0;
    let mut sources = Vec::with_capacity(names.len());
    for name in names {
        let source = read(directory.join(name))?;
        size += source.text.len() as u64;
        ensure!(
            size <= FILE_MAX,
            "{shown}: its files *.{ending} have more than {FILE_MAX} bytes: expected less"
        );
        sources.push(source);
    }
    Ok(sources)
}

fn is_meant(name: &OsStr, ending: &str) -> bool {
    let stem = name.as_bytes().strip_suffix(ending.as_bytes());
    !name.as_bytes().starts_with(b".") && stem.is_some_and(|stem| stem.ends_with(b"."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let sources = drop_ins(directory, "cf").unwrap();
        let name = |source: &Source| source.path.file_name().unwrap().to_string_lossy().into();
        sources.iter().map(name).collect()
    }

    #[test]
    fn files_are_read_in_the_order_of_their_names_and_backups_are_not() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "b.cf",
            "a.cf",
            "10.cf",
            "9.cf",
            "B.cf",
            "a.cf~",
            "#a.cf#",
            ".#a.cf",
            ".a.cf.swp",
            ".cf",
            "a.cf.bak",
            "a.cf.dpkg-old",
            "a.CF",
            "cf",
            "acf",
            "a.toml",
            "README",
        ] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        assert_eq!(
            names(directory.path()),
            ["10.cf", "9.cf", "B.cf", "a.cf", "b.cf"]
        );
    }

    #[test]
    fn a_directory_that_does_not_exist_has_no_files_and_one_that_cannot_be_read_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("master.cf.d");
        assert!(names(&directory).is_empty());
        let error = || format!("{:#}", drop_ins(&directory, "cf").unwrap_err());
        let expected = |reason: &str| format!("read directory {}: {reason}", directory.display());
        symlink("nowhere", &directory).unwrap();
        assert_eq!(error(), expected("No such file or directory (os error 2)"));
        fs::remove_file(&directory).unwrap();
        fs::write(&directory, "").unwrap();
        assert_eq!(error(), expected("Not a directory (os error 20)"));
    }

    #[test]
    fn what_is_no_file_in_it_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.cf");
        let error = || format!("{:#}", drop_ins(root.path(), "cf").unwrap_err());
        fs::create_dir(&path).unwrap();
        let opening = format!("open {}: ", path.display());
        assert!(error().starts_with(&opening), "{}", error());
        fs::remove_dir(&path).unwrap();
        symlink("nowhere", &path).unwrap();
        assert!(error().starts_with(&opening), "{}", error());
        fs::remove_file(&path).unwrap();
        symlink("/dev/null", &path).unwrap();
        assert!(error().starts_with(&opening), "{}", error());
    }

    #[test]
    fn neither_their_number_nor_their_size_is_without_a_limit() {
        let root = tempfile::tempdir().unwrap();
        let error = || drop_ins(root.path(), "cf").unwrap_err().to_string();
        for n in 0..=FILES_MAX {
            fs::write(root.path().join(format!("{n}.cf")), "").unwrap();
        }
        assert!(error().contains("more than 1000 files *.cf"), "{}", error());
        fs::remove_file(root.path().join("0.cf")).unwrap();
        assert_eq!(names(root.path()).len(), FILES_MAX);
        for n in 1..=2 {
            let file = fs::File::create(root.path().join(format!("{n}.cf"))).unwrap();
            file.set_len(FILE_MAX / 2 + 1).unwrap();
        }
        assert!(error().contains("more than 16777216 bytes"), "{}", error());
    }
}
