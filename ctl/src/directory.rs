//! Finds the queue directory of a configuration.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use master::config::{Diagnostic, Severity, Values};
use master::files::{Location, Names};

/// A queue directory, and whether it is certain.
#[derive(Debug)]
pub struct Directory {
    pub path: PathBuf,
    /// The first error in the files: without it the directory might be a different one.
    pub doubt: Option<Diagnostic>,
}

impl Directory {
    /// The queue directory of a configuration. Other errors in its files are ignored, because the
    /// running master has read an earlier version of them.
    ///
    /// # Errors
    /// A file cannot be read, or the parameter has no value.
    pub fn of(location: &Location) -> Result<Self> {
        let sources = location.read_parameters()?;
        let (values, findings) = Values::of(&sources, &Names);
        let path = values.path("queue_directory").map_err(|findings| {
            anyhow!(
                "the configuration does not say where the master is: {findings}: correct it, or \
                 name the queue directory with --queue"
            )
        })?;
        let is_error = |finding: &Diagnostic| finding.severity == Severity::Error;
        Ok(Self {
            path,
            doubt: findings.into_iter().find(is_error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_queue_directory_is_found_though_the_files_are_wrong() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            fs::write(directory.path().join(name), text).expect("a file");
        };
        write(
            "main.cf",
            "queue_directory = /queue/$mail_name\nmail_name = x\nwrong\n",
        );
        write("master.cf", "all of it is wrong\n");
        let location = Location::find(directory.path(), |_| None).expect("files");
        let queue = Directory::of(&location).expect("a parameter");
        assert_eq!(queue.path, Path::new("/queue/x"));
        let doubt = queue.doubt.expect("a line that cannot be read").to_string();
        assert!(doubt.contains("main.cf: line 3: "), "{doubt}");
    }

    #[test]
    fn services_that_stand_alone_have_a_queue_directory_of_their_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let table = directory.path().join("services.cf");
        fs::write(&table, "").expect("a file");
        let session = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/1".into());
        let location = Location::find(&table, session).expect("a table");
        let queue = Directory::of(&location).expect("a default");
        assert!(queue.path.ends_with("master"), "{queue:?}");
        fs::write(
            directory.path().join("master.toml"),
            "queue_directory = \"/q\"\n",
        )
        .expect("a file");
        let queue = Directory::of(&location).expect("a parameter");
        assert_eq!(queue.path, Path::new("/q"));
        assert_eq!(queue.doubt, None);
    }
}
