//! A private Postfix: its own configuration, queue, data and daemon directory below a temporary
//! directory. In the daemon directory, `master` is the tested binary; everything else is the
//! distribution's.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::poll::{until, within};
use crate::ports::Port;
use crate::run::{Finished, Running, contents, run};
use crate::watch::Watch;
use crate::{canary, layout, original, programs, under_test};

/// Timeout for any event on a busy machine. A successful test does not wait for it.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Instance {
    directory: TempDir,
    port: Port,
    /// Lines of main.cf, in order.
    parameters: Vec<(String, String)>,
    /// Lines of master.cf, in order.
    services: Vec<String>,
    /// Variables for the master's environment.
    environment: Vec<(String, String)>,
    /// A master that was started in the foreground.
    foreground: Option<Running>,
    /// Whether the installed master is Postfix's own.
    is_original: AtomicBool,
    /// Whether the master is ours and the test allows that it is watched.
    is_watched: AtomicBool,
    watch: Watch,
}

/// The line of the service that writes the log.
const POSTLOGD: &str = "postlog unix-dgram n - n - 1 postlogd";

impl Instance {
    /// An instance with the distribution's daemons and only one service, `postlog`, which writes
    /// the log.
    pub fn new() -> Self {
        let mut instance = Self::without_daemons();
        // Before there is a link to another master, which must not be overwritten.
        layout::copy_daemons(&instance);
        instance.use_master(&under_test());
        instance.service(POSTLOGD);
        instance
    }

    /// An instance without daemons except the tested master, which then writes the log itself.
    pub fn bare() -> Self {
        Self::bare_with(&under_test())
    }

    /// The same with another master.
    pub fn bare_with(master: &Path) -> Self {
        let instance = Self::without_daemons();
        instance.use_master(master);
        instance
    }

    /// An instance without daemons except the tested master, and postlogd, which writes the log also
    /// for children without root's rights.
    pub fn with_postlogd() -> Self {
        let mut instance = Self::bare();
        instance.add_postlogd();
        instance
    }

    /// Installs postlogd, and adds its service.
    pub fn add_postlogd(&mut self) {
        self.install(
            &Path::new(crate::POSTFIX_DAEMONS).join("postlogd"),
            "postlogd",
        );
        self.service(POSTLOGD);
    }

    fn without_daemons() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("master-")
            .tempdir()
            .expect("a temporary directory");
        let mut instance = Self {
            directory,
            port: Port::reserve(),
            parameters: Vec::new(),
            services: Vec::new(),
            environment: Vec::new(),
            foreground: None,
            is_original: AtomicBool::new(false),
            is_watched: AtomicBool::new(true),
            watch: Watch::default(),
        };
        layout::make_directories(&instance);
        for (name, value) in layout::parameters(instance.path()) {
            instance.set(name, value);
        }
        instance
    }

    /// An instance that receives mail on [`Instance::port`] and delivers it to
    /// [`Instance::mailbox`].
    pub fn mail() -> Self {
        let mut instance = Self::new();
        for line in layout::MAIL_SERVICES.lines() {
            let line = line.replace("PORT", &instance.port.to_string());
            instance.service(&line);
        }
        instance
    }

    // ---- configuration

    /// Sets a parameter of main.cf. Takes effect with the next start or reload.
    pub fn set(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.parameters.retain(|(known, _)| known != name);
        self.parameters.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a line of master.cf, or replaces the one with the same name and type.
    pub fn service(&mut self, line: &str) -> &mut Self {
        let same = |known: &String| {
            known
                .split_whitespace()
                .take(2)
                .eq(line.split_whitespace().take(2))
        };
        match self.services.iter_mut().find(|known| same(known)) {
            Some(known) => line.clone_into(known),
            None => self.services.push(line.to_owned()),
        }
        self
    }

    /// Removes the line of master.cf with this name and type.
    #[track_caller]
    pub fn without(&mut self, name: &str, kind: &str) -> &mut Self {
        let before = self.services.len();
        self.services
            .retain(|line| !line.split_whitespace().take(2).eq([name, kind]));
        assert_eq!(self.services.len() + 1, before, "one {name}/{kind}");
        self
    }

    /// Sets a variable for the master's environment.
    pub fn environment(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Installs a master into the daemon directory.
    pub fn use_master(&self, binary: &Path) {
        let is_original = binary.canonicalize().ok() == original().canonicalize().ok();
        self.is_original.store(is_original, Relaxed);
        if is_original {
            self.is_watched.store(false, Relaxed);
        } else if canary::is_on() {
            self.install(&programs::example(canary::NAME), canary::NAME);
        }
        self.install(binary, "master");
    }

    /// Does not watch the master, whatever the environment says: for a test that the canary or the
    /// trace would disturb, with the reason.
    pub fn unwatched(&mut self, _reason: &str) -> &mut Self {
        self.is_watched.store(false, Relaxed);
        self
    }

    /// Keeps the canary away while the guard is held, so that the master has no descriptors or
    /// children of it.
    #[track_caller]
    pub fn pause_canary(&self) -> Option<MutexGuard<'_, ()>> {
        self.watch.pause()
    }

    fn is_watched(&self) -> bool {
        self.is_watched.load(Relaxed)
    }

    /// Starts to watch a serving master.
    #[track_caller]
    fn begin_watch(&mut self) {
        let master = self.own_master().filter(|_| self.is_watched());
        if let Some(master) = master {
            let socket = self.socket("private", canary::NAME);
            let log = self.path().join("log/maillog");
            let log = move || contents(&log);
            self.watch = Watch::begin(master, socket, log);
        }
    }

    /// Installs a program into the daemon directory.
    pub fn install(&self, program: &Path, name: &str) {
        let target = self.daemons().join(name);
        let _ = fs::remove_file(&target);
        if fs::hard_link(program, &target).is_err() {
            let mut copy = Command::new("cp");
            copy.arg("-aL").arg(program).arg(&target);
            run(&mut copy, SOON).expect_success();
        }
    }

    /// Installs a shell script into the daemon directory.
    pub fn install_script(&self, name: &str, commands: &str) {
        let draft = self.path().join(format!("{name}.sh"));
        fs::write(&draft, format!("#!/bin/sh\n{commands}\n")).expect("a script");
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).expect("a mode");
        // A script that is open for writing cannot be run, either.
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(draft).arg(self.daemons().join(name));
        run(&mut copy, SOON).expect_success();
    }

    /// Writes main.cf and master.cf.
    pub fn write_configuration(&self) {
        self.write_main_cf();
        self.write_master_cf();
    }

    pub fn write_main_cf(&self) {
        let mut text = String::new();
        for (name, value) in &self.parameters {
            let _ = writeln!(text, "{name} = {value}");
        }
        layout::replace(&self.main_cf(), &text);
    }

    pub fn write_master_cf(&self) {
        let mut text = String::new();
        for line in &self.services {
            let _ = writeln!(text, "{line}");
        }
        if canary::is_on() && self.is_watched() {
            let _ = writeln!(text, "{}", canary::line());
        }
        layout::replace(&self.master_cf(), &text);
    }

    // ---- paths

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn configuration(&self) -> PathBuf {
        self.path().join("etc")
    }

    pub fn main_cf(&self) -> PathBuf {
        self.configuration().join("main.cf")
    }

    pub fn master_cf(&self) -> PathBuf {
        self.configuration().join("master.cf")
    }

    pub fn queue(&self) -> PathBuf {
        self.path().join("queue")
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub fn daemons(&self) -> PathBuf {
        self.path().join("sbin")
    }

    pub fn mailbox(&self) -> PathBuf {
        self.path().join("mail/box/new")
    }

    /// The port of the mail server.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The address of the mail server.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    // ---- commands

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/");
        command
    }

    /// The master's command, with `-c` and these options.
    pub fn master(&self, options: &[&str]) -> Command {
        let mut command = self.command(self.daemons().join("master"));
        command.arg("-c").arg(self.configuration()).args(options);
        command
    }

    /// The master's command in the foreground, executed through another program.
    pub fn under(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command(program);
        command
            .args(arguments)
            .arg(self.daemons().join("master"))
            .arg("-c")
            .arg(self.configuration());
        command
    }

    /// The command postfix(1), with `-c` and these arguments.
    pub fn postfix(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("postfix");
        command.arg("-c").arg(self.configuration()).args(arguments);
        command
    }

    /// The command sendmail(1), with `-C` and these arguments.
    pub fn sendmail(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("sendmail");
        command.arg("-C").arg(self.configuration()).args(arguments);
        command
    }

    /// smtp-source(1), which sends test mail to the instance's port.
    pub fn smtp_source(&self, messages: u32, connections: u32) -> Command {
        let mut command = self.command("smtp-source");
        command
            .args(["-f", "from@example.test", "-t", "to@example.test"])
            .args(["-m", &messages.to_string(), "-s", &connections.to_string()])
            .arg(self.address());
        command
    }

    // ---- start and stop

    /// Starts the master and waits until it serves.
    #[track_caller]
    pub fn start(&mut self) -> &mut Self {
        self.write_configuration();
        run(&mut self.master(&["-w"]), SOON).expect_success();
        self.begin_watch();
        self
    }

    /// Starts the master in the foreground, with options.
    #[track_caller]
    pub fn start_in_foreground(&mut self, options: &[&str]) -> &mut Self {
        let mut command = self.master(options);
        if options.contains(&"-d") || options.contains(&"-D") {
            // With it, the master stays in its process group and kills the group when it is
            // stopped. Otherwise it must not be a group leader, because it starts a session.
            command.process_group(0);
        }
        self.run_in_foreground(&mut command)
    }

    /// Starts a command that executes the master, without waiting: its log is elsewhere.
    pub fn run_unseen(&mut self, command: &mut Command) -> &mut Self {
        self.foreground = Some(Running::start(command));
        self
    }

    /// Starts a command that executes or contains the master, and waits until it serves.
    #[track_caller]
    pub fn run_in_foreground(&mut self, command: &mut Command) -> &mut Self {
        self.write_configuration();
        let mark = self.log().len();
        self.foreground = Some(Running::start(command));
        until(SOON, "the master to serve", || {
            let ended = self.foreground().has_ended();
            let news = self.log().split_off(mark);
            let serves = news.contains("daemon started -- version");
            assert!(serves || !ended, "it ended: {:?}", self.finish());
            serves
        });
        self.begin_watch();
        self
    }

    /// The master that was started in the foreground.
    pub fn foreground(&mut self) -> &mut Running {
        self.foreground
            .as_mut()
            .expect("a master in the foreground")
    }

    /// Waits for the end of the master that was started in the foreground.
    #[track_caller]
    pub fn finish(&mut self) -> Finished {
        self.foreground
            .take()
            .expect("a master in the foreground")
            .finish(SOON)
    }

    /// Writes the configuration and reloads the master.
    #[track_caller]
    pub fn reload(&mut self) -> &mut Self {
        self.write_configuration();
        let mark = self.log().len();
        self.hang_up();
        self.wait_for_reload_after(mark);
        self
    }

    /// Waits for the end of a reload that began when the log had this length.
    #[track_caller]
    pub fn wait_for_reload_after(&self, mark: usize) {
        // This is logged at the beginning or at the end. In both cases the original is idle when the
        // reload is done. Ours can be idle before, while another process looks at files and names.
        self.wait_for_log_after(mark, "reload -- version");
        if !self.is_original.load(Relaxed) {
            until(SOON, "the result of the reload", || {
                let over = |log: &str| log.contains("reload done") || log.contains("reload failed");
                self.log().get(mark..).is_some_and(over)
            });
        }
        let master = self.master_process();
        until(SOON, "the reload to be over", || {
            assert!(master.runs(), "the master died of a reload");
            master.is_idle() && master.copies().is_empty() && master.is_idle()
        });
    }

    /// The same for a master that is never idle: the reload is over with its last log line.
    #[track_caller]
    pub fn reload_while_busy(&mut self) -> &mut Self {
        self.write_configuration();
        let mark = self.log().len();
        self.hang_up();
        let line = if self.is_original.load(Relaxed) {
            "reload -- version"
        } else {
            "reload done"
        };
        self.wait_for_log_after(mark, line);
        self
    }

    /// Sends SIGHUP, without waiting.
    #[track_caller]
    pub fn hang_up(&self) {
        self.master_process().signal(Signal::SIGHUP);
    }

    /// Stops the master and waits until it and its children have ended.
    #[track_caller]
    pub fn stop(&mut self) -> &mut Self {
        let complaints = self.watch.end();
        let master = self.master_process();
        master.signal(Signal::SIGTERM);
        if self.foreground.is_some() {
            self.finish();
        }
        until(SOON, "the master's end", || !master.runs());
        until(SOON, "the children's end", || self.processes().is_empty());
        complaints.expect_none();
        self
    }

    /// Stops a master that this test has started itself.
    #[track_caller]
    pub fn stop_and_wait_for(&self, master: Running) -> Finished {
        self.master_process().signal(Signal::SIGTERM);
        master.finish(SOON)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let complaints = self.watch.end();
        self.kill_all();
        complaints.expect_none();
    }
}

impl Instance {
    fn kill_all(&mut self) {
        // The master may start children while they are being killed, so repeat until none is left.
        let gone = within(SOON, || {
            let processes = self.processes();
            for process in &processes {
                process.signal(Signal::SIGKILL);
            }
            processes.is_empty()
        });
        drop(self.foreground.take());
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("---- end of the instance's log\n{}\n----", tail.join("\n"));
        } else {
            assert!(gone.is_some(), "processes that cannot be killed");
        }
    }
}
