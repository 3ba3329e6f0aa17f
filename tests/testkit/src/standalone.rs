//! A directory with a table and programs, and a master that runs on it in the foreground.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::instance::SOON;
use crate::layout::replace;
use crate::poll::until;
use crate::process::Process;
use crate::programs::masterctl;
use crate::run::{Finished, Running, contents, run};
use crate::watch::Watch;
use crate::{canary, file, programs};

/// A user ID without a name.
const STRANGER: u32 = 47_110;

/// A stand-alone configuration.
pub struct Standalone {
    directory: TempDir,
    /// The user and group of the master; by default those of the tests.
    uid: u32,
    running: Option<Running>,
    is_watched: bool,
    watch: Watch,
    /// Held while a program is copied: threads of a test can ask for the same one.
    installing: Mutex<()>,
}

impl Standalone {
    /// Run by the user of the tests.
    pub fn new() -> Self {
        Self::of(geteuid().as_raw())
    }

    /// One run by root, if root runs the tests, and one run by another user.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::of_a_user()];
        if geteuid().is_root() {
            all.push(Self::new());
        }
        all
    }

    /// Run by a user other than root.
    pub fn of_a_user() -> Self {
        match geteuid() {
            root if root.is_root() => Self::of(STRANGER),
            user => Self::of(user.as_raw()),
        }
    }

    fn of(uid: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("alone-").tempdir();
        let standalone = Self {
            directory: directory.expect("a temporary directory"),
            uid,
            running: None,
            is_watched: true,
            watch: Watch::default(),
            installing: Mutex::new(()),
        };
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(standalone.path(), open).expect("a mode");
        if geteuid().is_root() {
            chown(standalone.path(), Some(uid), Some(uid)).expect("an owner");
        }
        // In a directory that another user can access.
        copy(&programs::master(), &standalone.binary());
        standalone
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn uid(&self) -> u32 {
        self.uid
    }

    fn binary(&self) -> PathBuf {
        self.path().join("master")
    }

    pub fn table(&self) -> PathBuf {
        self.path().join("services.cf")
    }

    /// The queue directory.
    pub fn queue(&self) -> PathBuf {
        self.path().join("run/master")
    }

    /// Writes the table.
    pub fn write_table(&mut self, text: &str) -> &mut Self {
        if canary::is_on() && self.is_watched {
            let canary = self.install(&programs::example(canary::NAME));
            let line = format!("{} unix - - - - 0 {}", canary::NAME, canary.display());
            replace(&self.table(), &format!("{text}\n{line}\n"));
        } else {
            replace(&self.table(), text);
        }
        self
    }

    /// Does not watch the master, whatever the environment says: for a test that the canary or the
    /// trace would disturb, with the reason.
    pub fn unwatched(&mut self, _reason: &str) -> &mut Self {
        self.is_watched = false;
        self
    }

    /// Writes `master.toml` beside the table.
    pub fn write_toml(&self, text: &str) -> &Self {
        replace(&self.path().join("master.toml"), text);
        self
    }

    /// Creates a shell script, and returns its path for the table.
    pub fn script(&self, name: &str, commands: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{commands}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        path
    }

    /// The master's command, with `-c` and these options.
    pub fn master(&self, options: &[&str]) -> Command {
        let mut command = self.as_user(&self.binary());
        command.arg("-c").arg(self.table()).args(options);
        command
    }

    /// A program's command, run by the user of the master.
    pub fn as_user(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path().join("home"))
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .current_dir("/");
        if geteuid().as_raw() != self.uid {
            command.uid(self.uid).gid(self.uid);
        }
        command
    }

    /// The command of a service that sends `hello` to each client, and closes the connection.
    pub fn greeter(&self) -> String {
        let program = self.install(&file("services/examples/minimal.py"));
        program.display().to_string()
    }

    /// Copies a program so that other users can run it, and returns its path for the table.
    pub fn install(&self, program: &Path) -> PathBuf {
        let copy = self
            .path()
            .join(program.file_name().expect("a file's name"));
        let _alone = self.installing.lock().expect("no panic holds it");
        if !copy.exists() {
            self::copy(program, &copy);
        }
        copy
    }

    /// The command `masterctl`, run by the user of the master.
    pub fn masterctl(&self, arguments: &[&str]) -> Command {
        let mut command = self.as_user(&self.install(&masterctl()));
        command.arg("-c").arg(self.table()).args(arguments);
        command
    }

    /// Sets directories below its own for root's sockets and locks, too, and the user that all systems
    /// have.
    fn keep_to_itself(&self) {
        let toml = self.path().join("master.toml");
        if self.uid == 0 && !toml.exists() {
            let (queue, data) = (self.queue(), self.path().join("data"));
            self.write_toml(&format!(
                "queue_directory = \"{}\"\ndata_directory = \"{}\"\nmail_owner = \"nobody\"\n",
                queue.display(),
                data.display()
            ));
        }
    }

    /// Starts the master with standard error as its log, and waits until it serves.
    #[track_caller]
    pub fn start(&mut self) -> &mut Self {
        self.keep_to_itself();
        let mut command = self.master(&["-d"]);
        self.start_as(command.process_group(0))
    }

    /// Starts a command that executes the master, and waits until it serves.
    #[track_caller]
    pub fn start_as(&mut self, command: &mut Command) -> &mut Self {
        self.run(command);
        self.wait_for_line("daemon started -- version");
        if self.is_watched {
            let socket = self.queue().join("private").join(canary::NAME);
            let said = self.running().stderr_path();
            let log = move || contents(&said);
            self.watch = Watch::begin(self.process(), socket, log);
        }
        self
    }

    /// Starts a command that executes the master, without waiting.
    pub fn run(&mut self, command: &mut Command) {
        self.running = Some(Running::start(command));
    }

    /// Runs a master that ends at once.
    #[track_caller]
    pub fn fail(&self, options: &[&str]) -> Finished {
        self.keep_to_itself();
        run(&mut self.master(options), SOON).expect_failure()
    }

    pub fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("a master that was started")
    }

    pub fn process(&mut self) -> Process {
        Process(self.running().pid())
    }

    /// The master's output.
    pub fn said(&mut self) -> String {
        self.running().stderr()
    }

    #[track_caller]
    pub fn wait_for_line(&mut self, words: &str) {
        until(SOON, format!("\"{words}\""), || {
            let ended = self.running().has_ended();
            let said = self.said();
            assert!(!ended || said.contains(words), "it ended: {said}");
            said.contains(words)
        });
    }

    /// Sends SIGHUP, and returns the lines of the reload.
    #[track_caller]
    pub fn reload(&mut self) -> String {
        let mark = self.said().len();
        self.process().signal(Signal::SIGHUP);
        until(SOON, "the end of a reload", || {
            let news = self.said().split_off(mark);
            let over = news.contains("reload done") || news.contains("reload failed");
            over.then_some(news)
        })
    }

    /// Sends a signal, and waits for the master's end.
    #[track_caller]
    pub fn stop_by(&mut self, signal: Signal) -> Finished {
        let complaints = self.watch.end();
        self.process().signal(signal);
        let running = self.running.take().expect("a master that was started");
        let finished = running.finish(SOON);
        complaints.expect_none();
        finished
    }
}

/// Puts a program where all users can run it: by a link to what was built, or else by a copy, which is
/// tens of megabytes for each test. A separate process makes the copy: a child that another test starts
/// in this moment would inherit the copy's descriptor, open for writing, and the program could not be
/// run.
fn copy(program: &Path, to: &Path) {
    if programs::is_built(program) && fs::hard_link(program, to).is_ok() {
        return;
    }
    let mut install = Command::new("install");
    run(install.args(["-m", "755"]).arg(program).arg(to), SOON).expect_success();
}

impl Drop for Standalone {
    fn drop(&mut self) {
        if self.running.is_some() {
            // A test may have stopped it.
            self.process().signal(Signal::SIGCONT);
            self.stop_by(Signal::SIGTERM);
        }
    }
}
