//! Reads the files of a configuration, computes the defaults of an installation without `main.cf`,
//! and resolves names: the input of [`Config::parse`](crate::config::Config::parse). All files must
//! be regular files. A FIFO or a device is an error, so that the master never waits for one.

mod drop_in;
mod elf;
mod executor;
mod names;
mod needed;
mod pipe;
mod socket_path;
pub mod trust;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use serde_derive::{Deserialize, Serialize};

pub use self::drop_in::drop_ins;
pub use self::executor::{beside_this_program, check_executor};
pub use self::names::Names;
pub use self::pipe::PipedTable;
pub use self::socket_path::SocketPath;
use crate::config::{Base, DROP_IN_SETTINGS, Severity, Source, Sources, StandAlone, User, Values};
use crate::sys::{file, privilege};

/// The default directory of Postfix's configuration.
pub const POSTFIX: &str = "/etc/postfix";

/// Maximum size of a configuration file, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// The queue directory and the data directory of root's services without Postfix.
const ROOTS_DIRECTORIES: [&str; 2] = ["/run/master", "/var/lib/master"];

/// The location of a configuration. Paths are absolute, because the working directory changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Location {
    path: PathBuf,
    directory: PathBuf,
    table: Table,
    /// `None` for a Postfix installation. This does not change when `main.cf` is removed later.
    stand_alone: Option<StandAlone>,
    if_others_may_write: Option<Severity>,
}

/// The source of the service table.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Table {
    File(PathBuf),
    /// A pipe: its text, until it is [released](Location::release_pipe).
    Pipe(Option<Vec<u8>>),
}

impl Location {
    /// Finds the configuration at a path: a directory with a `main.cf` is a Postfix installation; a
    /// directory with only a `master.cf`, or the path of a table, is a stand-alone installation.
    /// `variable` reads the environment, which determines the directories of an unprivileged user.
    ///
    /// # Errors
    /// There is no configuration, or no directory for the user's files.
    pub fn find(path: &Path, variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let shown = path.display();
        ensure!(
            !path.as_os_str().is_empty(),
            "the name of the configuration is empty: name the configuration directory, or a service \
             table, with -c"
        );
        let path = std::path::absolute(path).with_context(|| format!("configuration {shown}"))?;
        let is_there = |file: &Path| file.symlink_metadata().is_ok();
        if path.is_dir() {
            let table = path.join("master.cf");
            let main_cf = path.join("main.cf");
            ensure!(
                is_there(&main_cf) || is_there(&table),
                "neither {} nor {} exists: name the directory that has them, or a service table, \
                 with -c",
                main_cf.display(),
                table.display(),
            );
            let stand_alone = if is_there(&main_cf) {
                None
            } else {
                Some(stand_alone(variable)?)
            };
            return Ok(Self {
                directory: path.clone(),
                path,
                table: Table::File(table),
                if_others_may_write: if_others_may_write(stand_alone.is_some()),
                stand_alone,
            });
        }
        let directory = path.parent().filter(|_| is_there(&path)).ok_or_else(|| {
            anyhow!(
                "{}: no such file or directory: name the configuration directory, or a service \
                 table, with -c",
                path.display()
            )
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            table: Table::File(path.clone()),
            path,
            stand_alone: Some(stand_alone(variable)?),
            if_others_may_write: if_others_may_write(true),
        })
    }

    /// The location of a service table that was read from a pipe. It is stand-alone and has no
    /// `master.toml`. Its configuration directory is the queue directory, which contains no
    /// settings.
    ///
    /// # Errors
    /// There is no directory for the user's files.
    pub fn of_pipe(
        pipe: PipedTable,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> anyhow::Result<Self> {
        let stand_alone = stand_alone(variable)?;
        Ok(Self {
            path: pipe.path,
            directory: stand_alone.queue_directory.clone(),
            table: Table::Pipe(Some(pipe.text)),
            stand_alone: Some(stand_alone),
            if_others_may_write: if_others_may_write(true),
        })
    }

    /// The path on the command line: the directory, or the table.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The service table.
    pub fn table(&self) -> &Path {
        match &self.table {
            Table::File(path) => path,
            Table::Pipe(_) => &self.path,
        }
    }

    /// The value of `MAIL_CONFIG`, by which children find their configuration: the path on the
    /// command line. For a pipe it is the configuration directory, because children do not have the
    /// pipe.
    pub fn for_children(&self) -> &Path {
        match self.table {
            Table::File(_) => &self.path,
            Table::Pipe(_) => &self.directory,
        }
    }

    /// Files that users other than root may change are no error, but a warning.
    pub fn warn_if_others_may_write(&mut self) {
        self.if_others_may_write = self.if_others_may_write.map(|_| Severity::Warning);
    }

    /// Files that users other than root may change are as good as any.
    pub fn ignore_if_others_may_write(&mut self) {
        self.if_others_may_write = None;
    }

    /// Frees the text of a table that was a pipe. After this, [`Self::read`] fails.
    pub fn release_pipe(&mut self) {
        if let Table::Pipe(text) = &mut self.table {
            *text = None;
        }
    }

    /// The `main.cf` in the directory of a table whose path was given. It is not read.
    pub fn ignored_main_cf(&self) -> Option<PathBuf> {
        let main_cf = self.directory.join("main.cf");
        let is_beside = matches!(self.table, Table::File(_)) && self.is_stand_alone();
        let is_ignored = is_beside && main_cf.symlink_metadata().is_ok();
        is_ignored.then_some(main_cf)
    }

    /// Whether the installation is not a Postfix installation.
    pub fn is_stand_alone(&self) -> bool {
        self.stand_alone.is_some()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// The file that could not be read, and why.
    pub fn read(&self) -> anyhow::Result<Sources> {
        let mut sources = self.read_parameters()?;
        sources.master_cf = match &self.table {
            Table::File(path) => read(path.clone())?,
            Table::Pipe(text) => Source {
                path: self.path.clone(),
                text: text.clone().ok_or_else(|| self.gone())?,
            },
        };
        let (values, _) = Values::of(&sources, &Names);
        // A bad value is an error of the configuration, which names its place.
        if let Ok(Some(directory)) = values.table_directory() {
            sources.more_tables = drop_ins(&directory, "cf")?;
        }
        Ok(sources)
    }

    fn gone(&self) -> anyhow::Error {
        anyhow!(
            "{}: the service table was a pipe, which can be read only once: to change it, stop the \
             master, and start it with the name of a file",
            self.path.display()
        )
    }

    /// Reads the files with parameters. The service table is left empty.
    ///
    /// # Errors
    /// The file that could not be read, and why.
    pub fn read_parameters(&self) -> anyhow::Result<Sources> {
        let base = match &self.stand_alone {
            Some(stand_alone) => Base::StandAlone(stand_alone.clone()),
            None => Base::Postfix(read(self.directory.join("main.cf"))?),
        };
        let master_toml = match self.table {
            Table::File(_) => read_if_there(self.directory.join("master.toml"))?,
            Table::Pipe(_) => None,
        };
        let has_drop_ins = self.path == self.directory;
        let more_toml = if has_drop_ins {
            drop_ins(&self.directory.join(DROP_IN_SETTINGS), "toml")?
        } else {
            Vec::new()
        };
        Ok(Sources {
            directory: self.directory.clone(),
            base,
            master_cf: Source {
                path: self.table().to_owned(),
                text: Vec::new(),
            },
            more_tables: Vec::new(),
            master_toml,
            if_others_may_write: self.if_others_may_write,
            more_toml,
            has_drop_ins,
        })
    }
}

/// Only root's configuration must be root's alone. Postfix's tools warn of it themselves.
fn if_others_may_write(stand_alone: bool) -> Option<Severity> {
    let severity = if stand_alone {
        Severity::Error
    } else {
        Severity::Warning
    };
    privilege::is_root().then_some(severity)
}

/// Reads a file that may be missing. A dangling symbolic link is an error.
///
/// # Errors
/// The file exists and cannot be read, is not a regular file, or is larger than 16 MiB.
pub fn read_if_there(path: PathBuf) -> anyhow::Result<Option<Source>> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        _ => read(path).map(Some),
    }
}

fn read(path: PathBuf) -> anyhow::Result<Source> {
    let file = open_regular(&path).with_context(|| format!("open {}", path.display()))?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut text = Vec::with_capacity(size.min(FILE_MAX) as usize + 1);
    file.take(FILE_MAX + 1)
        .read_to_end(&mut text)
        .with_context(|| format!("read {}", path.display()))?;
    ensure!(
        text.len() as u64 <= FILE_MAX,
        "{}: larger than {FILE_MAX} bytes: expected a configuration file",
        path.display()
    );
    Ok(Source { path, text })
}

/// Opens a regular file, or a link to one, for reading. The call does not block.
///
/// # Errors
/// The system's error, or [`ErrorKind::InvalidInput`] with an explanation if it is not a regular
/// file, such as a FIFO.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_as_regular(path, &fs::metadata(path)?, 0)
}

/// Opens a regular file for reading, as [`open_regular`] does, and no link.
///
/// # Errors
/// As [`open_regular`]; also for a symbolic link.
pub fn open_unlinked(path: &Path) -> io::Result<File> {
    open_as_regular(path, &path.symlink_metadata()?, libc::O_NOFOLLOW)
}

fn open_as_regular(path: &Path, metadata: &Metadata, flags: i32) -> io::Result<File> {
    // Opening a device can have effects of its own, so that it is not even opened; what is opened
    // may be another file than what was looked at.
    file::expect_regular(metadata)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | flags)
        .open(path)?;
    file::expect_regular(&file.metadata()?)?;
    Ok(file)
}

/// The defaults for the user that runs this program. The bundled services are in the same directory
/// as the program. `variable` reads the environment.
///
/// # Errors
/// There is no directory for the user's files.
pub fn stand_alone(variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<StandAlone> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let daemon_directory = program.parent().unwrap_or(Path::new("/")).to_owned();
    let [queue_directory, data_directory] = if privilege::is_root() {
        ROOTS_DIRECTORIES.map(PathBuf::from)
    } else {
        users_directories(variable)?
    };
    let user = (!privilege::is_root()).then(|| {
        let (uid, gid) = privilege::user();
        User { uid, gid }
    });
    Ok(StandAlone {
        daemon_directory,
        queue_directory,
        data_directory,
        user,
    })
}

/// The queue directory and the data directory of an unprivileged user: the directories that the
/// service manager provides (systemd.exec(5)), or those of the user's session (XDG Base Directory
/// Specification, which requires that relative paths are ignored).
fn users_directories(variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<[PathBuf; 2]> {
    let path = |name: &str| {
        let path = variable(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let state = path("XDG_STATE_HOME").or_else(|| Some(path("HOME")?.join(".local/state")));
    let given = |name: &str| {
        let list = variable(name)?;
        let mut paths = list.as_bytes().split(|&b| b == b':');
        let first = paths.next().map(OsStr::from_bytes);
        first.map(PathBuf::from).filter(|path| path.is_absolute())
    };
    let own = |path: PathBuf| path.join("master");
    let runtime = given("RUNTIME_DIRECTORY").or_else(|| path("XDG_RUNTIME_DIR").map(own));
    let data = given("STATE_DIRECTORY").or_else(|| state.map(own));
    let (queue, data) = match (runtime, data) {
        (Some(runtime), Some(data)) => (runtime, data),
        (Some(runtime), None) => (runtime.clone(), runtime),
        (None, Some(data)) => (data.join("run"), data),
        (None, None) => anyhow::bail!(
            "no place for sockets and locks: set XDG_RUNTIME_DIR, XDG_STATE_HOME or HOME to a \
             directory of yours"
        ),
    };
    Ok([queue, data])
}

#[cfg(test)]
mod tests {

    use super::*;

    fn directories(variables: &[(&str, &str)]) -> anyhow::Result<[PathBuf; 2]> {
        users_directories(|name| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some(value.into())
        })
    }

    fn found(variables: &[(&str, &str)]) -> [String; 2] {
        let found = directories(variables).unwrap();
        found.map(|path| path.to_string_lossy().into_owned())
    }

    #[test]
    fn an_empty_name_names_no_configuration() {
        let error = Location::find(Path::new(""), |_| None).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the name of the configuration is empty: name")
        );
    }

    #[test]
    fn a_users_files_are_where_xdg_has_them() {
        let all = [
            ("XDG_RUNTIME_DIR", "/run/user/1"),
            ("XDG_STATE_HOME", "/home/a/state"),
            ("HOME", "/home/a"),
        ];
        assert_eq!(found(&all), ["/run/user/1/master", "/home/a/state/master"]);
        assert_eq!(
            found(&all[1..]),
            ["/home/a/state/master/run", "/home/a/state/master"]
        );
        assert_eq!(
            found(&all[2..]),
            [
                "/home/a/.local/state/master/run",
                "/home/a/.local/state/master"
            ]
        );
        assert_eq!(
            found(&all[..1]),
            ["/run/user/1/master", "/run/user/1/master"]
        );
    }

    #[test]
    fn a_service_manager_makes_room() {
        let variables = [
            ("RUNTIME_DIRECTORY", "/run/services:/run/more"),
            ("STATE_DIRECTORY", "/var/lib/services"),
            ("XDG_RUNTIME_DIR", "/run/user/1"),
            ("HOME", "/"),
        ];
        assert_eq!(found(&variables), ["/run/services", "/var/lib/services"]);
        let not_utf_8 = OsStr::from_bytes(b"/run/\xff:/run/more");
        let directories = users_directories(|_| Some(not_utf_8.to_owned())).unwrap();
        assert_eq!(directories[0].as_os_str().as_bytes(), b"/run/\xff");
    }

    #[test]
    fn a_user_without_a_place_for_files_is_told() {
        let error = directories(&[("HOME", "relative")]).unwrap_err();
        assert!(error.to_string().contains("XDG_RUNTIME_DIR"), "{error}");
    }

    #[test]
    fn a_directory_with_main_cf_is_postfix_and_stays_it() {
        let directory = tempfile::tempdir().unwrap();
        let main_cf = directory.path().join("main.cf");
        std::fs::write(&main_cf, "").unwrap();
        let location = Location::find(directory.path(), |_| None).unwrap();
        assert!(!location.is_stand_alone());
        std::fs::remove_file(&main_cf).unwrap();
        let error = location.read().unwrap_err();
        assert_eq!(error.to_string(), format!("open {}", main_cf.display()));
    }

    #[test]
    fn a_table_stands_alone() {
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/a"));
        let directory = tempfile::tempdir().unwrap();
        for (table, named) in [("master.cf", ""), ("services", "services")] {
            std::fs::write(directory.path().join(table), "# table").unwrap();
            let location = Location::find(&directory.path().join(named), home).unwrap();
            assert!(location.is_stand_alone());
            let sources = location.read().unwrap();
            assert_eq!(sources.master_cf.text, b"# table");
            assert_eq!(sources.directory, directory.path());
        }
    }

    #[test]
    fn where_nothing_is_configured_says_what_was_expected() {
        let directory = tempfile::tempdir().unwrap();
        let error = |path: &Path| Location::find(path, |_| None).unwrap_err().to_string();
        let empty = error(directory.path());
        assert!(empty.contains("main.cf") && empty.contains("-c"), "{empty}");
        let missing = error(&directory.path().join("none"));
        assert!(missing.contains("no such file"), "{missing}");
    }
}
