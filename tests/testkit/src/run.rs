//! Runs commands with a time limit, and keeps their output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::poll::within;

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn success(&self) -> bool {
        self.status.success()
    }

    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(self.success(), "unexpected failure: {self:?}");
        self
    }

    #[track_caller]
    pub fn expect_failure(self) -> Self {
        assert!(!self.success(), "unexpected success: {self:?}");
        self
    }
}

/// A running command with recorded output. It is killed on drop.
pub struct Running {
    child: Child,
    name: String,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
}

impl Running {
    /// The output is written to files: with pipes, a daemon that keeps them open would block the
    /// reader. The files have names because Postfix does not log to a file without one.
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = || NamedTempFile::new().expect("a temporary file");
        let (stdout, stderr) = (file(), file());
        let writer = |file: &NamedTempFile| file.as_file().try_clone().expect("a descriptor");
        let child = command
            .stdin(Stdio::null())
            .stdout(writer(&stdout))
            .stderr(writer(&stderr))
            .spawn()
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        Self {
            child,
            name,
            stdout,
            stderr,
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Its standard output so far.
    pub fn stdout(&self) -> String {
        contents(self.stdout.path())
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        contents(self.stderr.path())
    }

    /// The file with its standard error.
    pub fn stderr_path(&self) -> PathBuf {
        self.stderr.path().to_owned()
    }

    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Finished {
        let ended = within(limit, || self.child.try_wait().expect("a child"));
        let (stdout, stderr) = (self.stdout(), self.stderr());
        match ended {
            Some(status) => Finished {
                status,
                stdout,
                stderr,
            },
            None => panic!(
                "{} has not ended after {limit:?}\nstdout: {stdout}\nstderr: {stderr}",
                self.name
            ),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The content of a file that a program writes; empty if it does not exist.
pub fn contents(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    Running::start(command).finish(limit)
}
