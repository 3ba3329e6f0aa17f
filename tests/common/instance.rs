//! A private Postfix: its own configuration, queue, data and daemon directory below one temporary
//! directory. In the daemon directory only `master` is the binary under test; everything else is
//! the distribution's.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use nix::unistd::{Group, User};
use tempfile::TempDir;

use super::poll::{until, within};
use super::ports::Port;
use super::process::Process;
use super::run::{Finished, Running, run};
use super::{POSTFIX_DAEMONS, under_test};

/// Long enough for anything on a busy machine; nothing waits for all of it when all is well.
pub const SOON: Duration = Duration::from_secs(20);

/// What a private Postfix runs when it is to deliver mail. `PORT` is the instance's own port.
const MAIL_SERVICES: &str = "\
127.0.0.1:PORT inet n - n - - smtpd
pickup     unix n - n 60    1 pickup
cleanup    unix n - n -     0 cleanup
qmgr       unix n - n 300   1 qmgr
tlsmgr     unix - - n 1000? 1 tlsmgr
rewrite    unix - - n -     - trivial-rewrite
bounce     unix - - n -     0 bounce
defer      unix - - n -     0 bounce
trace      unix - - n -     0 bounce
verify     unix - - n -     1 verify
flush      unix n - n 1000? 0 flush
proxymap   unix - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp       unix - - n -     - smtp
relay      unix - - n -     - smtp
showq      unix n - n -     - showq
error      unix - - n -     - error
retry      unix - - n -     - error
discard    unix - - n -     - discard
local      unix - n n -     - local
virtual    unix - n n -     - virtual
lmtp       unix - - n -     - lmtp
anvil      unix - - n -     1 anvil
scache     unix - - n -     1 scache
";

/// A user without privileges, who owns the mail that is delivered.
const NOBODY: u32 = 65534;

/// The queue's directories, their modes, and whether they belong to the group `postdrop`.
const QUEUE: [(&str, u32, bool); 14] = [
    ("active", 0o700, false),
    ("bounce", 0o700, false),
    ("corrupt", 0o700, false),
    ("defer", 0o700, false),
    ("deferred", 0o700, false),
    ("flush", 0o700, false),
    ("hold", 0o700, false),
    ("incoming", 0o700, false),
    ("private", 0o700, false),
    ("saved", 0o700, false),
    ("trace", 0o700, false),
    ("maildrop", 0o730, true),
    ("public", 0o710, true),
    ("pid", 0o755, false), // this one is root's
];

pub struct Instance {
    directory: TempDir,
    port: Port,
    /// Lines of main.cf, in order.
    parameters: Vec<(String, String)>,
    /// Lines of master.cf, in order.
    services: Vec<String>,
    /// Variables in the environment that it is started with.
    environment: Vec<(String, String)>,
    /// A master that was started in the foreground.
    foreground: Option<Running>,
}

impl Instance {
    /// An instance with no service but `postlog`, which writes the log.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("master-")
            .tempdir()
            .expect("a temporary directory");
        let instance = Self {
            directory,
            port: Port::reserve(),
            parameters: Vec::new(),
            services: Vec::new(),
            environment: Vec::new(),
            foreground: None,
        };
        instance.make_directories();
        instance.use_master(&under_test());
        instance.with_defaults()
    }

    /// An instance that takes mail on [`Instance::port`] and delivers it to [`Instance::mailbox`].
    pub fn mail() -> Self {
        let mut instance = Self::new();
        for line in MAIL_SERVICES.lines() {
            let line = line.replace("PORT", &instance.port.to_string());
            instance.service(&line);
        }
        instance
    }

    fn make_directories(&self) {
        mkdir(self.path(), 0o755);
        for name in ["etc", "queue", "log", "mail"] {
            mkdir(&self.path().join(name), 0o755);
        }
        let (uid, gid) = mail_owner();
        let postdrop = Group::from_name("postdrop")
            .expect("the groups")
            .expect("the group postdrop")
            .gid
            .as_raw();
        let data = self.path().join("data");
        mkdir(&data, 0o700);
        chown(&data, Some(uid), Some(gid)).expect("data, owned by postfix");
        for (name, mode, setgid) in QUEUE {
            let path = self.queue().join(name);
            mkdir(&path, mode);
            let owner = if name == "pid" { 0 } else { uid };
            let group = if setgid { postdrop } else { 0 };
            chown(&path, Some(owner), Some(group)).expect("queue, owned by postfix");
            // The owner first, the mode again: a change of owner takes bits away.
            mkdir(&path, mode);
        }
        chown(self.path().join("mail"), Some(NOBODY), Some(NOBODY)).expect("mail, of nobody");
        // Copies, because `postfix check` complains of links that leave the directory. By cp(1),
        // because a program cannot be run while it is open for writing, and another thread's child
        // may hold our descriptor for a moment.
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(POSTFIX_DAEMONS).arg(self.daemons());
        run(&mut copy, SOON).expect_success();
    }

    fn with_defaults(mut self) -> Self {
        let path = |name: &str| self.path().join(name).to_string_lossy().into_owned();
        let parameters = [
            ("compatibility_level", "3.6".to_owned()),
            ("queue_directory", path("queue")),
            ("data_directory", path("data")),
            ("daemon_directory", path("sbin")),
            ("command_directory", "/usr/sbin".to_owned()),
            ("shlib_directory", "/usr/lib/postfix".to_owned()),
            ("meta_directory", "/etc/postfix".to_owned()),
            ("mail_owner", "postfix".to_owned()),
            ("setgid_group", "postdrop".to_owned()),
            ("maillog_file", path("log/maillog")),
            ("maillog_file_prefixes", path("")),
            ("myhostname", "host.test".to_owned()),
            ("mydestination", String::new()),
            ("mynetworks", "127.0.0.0/8".to_owned()),
            ("inet_interfaces", "127.0.0.1".to_owned()),
            ("inet_protocols", "ipv4".to_owned()),
            ("smtpd_peername_lookup", "no".to_owned()),
            (
                "smtpd_relay_restrictions",
                "permit_mynetworks, reject".to_owned(),
            ),
            ("in_flow_delay", "0".to_owned()),
            ("alias_maps", String::new()),
            ("alias_database", String::new()),
            ("virtual_mailbox_domains", "example.test".to_owned()),
            ("virtual_mailbox_maps", "static:box/".to_owned()),
            ("virtual_mailbox_base", path("mail")),
            ("virtual_uid_maps", format!("static:{NOBODY}")),
            ("virtual_gid_maps", format!("static:{NOBODY}")),
        ];
        for (name, value) in parameters {
            self.set(name, value);
        }
        self.service("postlog unix-dgram n - n - 1 postlogd");
        self
    }

    // ---- what is configured

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

    /// Sets a variable in the environment that the master is started with.
    pub fn environment(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Puts a master into the daemon directory.
    pub fn use_master(&self, binary: &Path) {
        self.install(binary, "master");
    }

    /// Puts a program into the daemon directory.
    pub fn install(&self, program: &Path, name: &str) {
        let target = self.daemons().join(name);
        let _ = fs::remove_file(&target);
        if fs::hard_link(program, &target).is_err() {
            let mut copy = Command::new("cp");
            copy.arg("-aL").arg(program).arg(&target);
            run(&mut copy, SOON).expect_success();
        }
    }

    /// Puts a shell script into the daemon directory.
    pub fn install_script(&self, name: &str, commands: &str) {
        let draft = self.path().join(format!("{name}.sh"));
        fs::write(&draft, format!("#!/bin/sh\n{commands}\n")).expect("a script");
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).expect("a mode");
        // A script must not be open for writing when it is run either.
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
        replace(&self.main_cf(), &text);
    }

    pub fn write_master_cf(&self) {
        let mut text = String::new();
        for line in &self.services {
            let _ = writeln!(text, "{line}");
        }
        replace(&self.master_cf(), &text);
    }

    // ---- where things are

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

    /// The master, with options; `-c` is among them.
    pub fn master(&self, options: &[&str]) -> Command {
        let mut command = self.command(self.daemons().join("master"));
        command.arg("-c").arg(self.configuration()).args(options);
        command
    }

    /// postfix(1), with its arguments; `-c` is among them.
    pub fn postfix(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("postfix");
        command.arg("-c").arg(self.configuration()).args(arguments);
        command
    }

    /// sendmail(1), with its arguments; `-C` is among them.
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

    // ---- its life

    /// Starts the master and waits until it serves.
    #[track_caller]
    pub fn start(&mut self) -> &mut Self {
        self.write_configuration();
        let started = run(&mut self.master(&["-w"]), SOON);
        if !started.success() {
            // A daemon that cannot start may have nowhere to say why: ask it again, aloud.
            let aloud = run(&mut self.master(&["-d", "-e", "0"]), SOON);
            panic!("the master does not start: {started:?}\naloud: {aloud:?}");
        }
        self
    }

    /// Starts the master in the foreground, with options.
    #[track_caller]
    pub fn start_in_foreground(&mut self, options: &[&str]) -> &mut Self {
        let mut command = self.master(options);
        if options.contains(&"-d") || options.contains(&"-D") {
            // Then it stays in the process group that it is started in, and kills all of that
            // when it is stopped. Otherwise it must not be a leader, to begin a session.
            command.process_group(0);
        }
        self.run_in_foreground(&mut command)
    }

    /// Starts a command that becomes or holds the master, and waits until that serves.
    #[track_caller]
    pub fn run_in_foreground(&mut self, command: &mut Command) -> &mut Self {
        self.write_configuration();
        let mark = self.log().len();
        self.foreground = Some(Running::start(command));
        self.wait_for_log_after(mark, "daemon started -- version");
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

    /// Writes the configuration and has the master read it.
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
        // Said at the beginning, or the end; in either case the master rests when it is done.
        self.wait_for_log_after(mark, "reload -- version");
        let master = self.master_process();
        until(SOON, "the reload to be over", || {
            assert!(master.runs(), "the master died of a reload");
            master.is_idle()
        });
    }

    /// Tells the master to read its configuration, and waits for nothing.
    #[track_caller]
    pub fn hang_up(&self) {
        self.master_process().signal(Signal::SIGHUP);
    }

    /// Stops the master and waits until it and its children are gone.
    #[track_caller]
    pub fn stop(&mut self) -> &mut Self {
        let master = self.master_process();
        master.signal(Signal::SIGTERM);
        if self.foreground.is_some() {
            self.finish();
        }
        until(SOON, "the master's end", || !master.runs());
        until(SOON, "the children's end", || self.processes().is_empty());
        self
    }

    /// Stops a master that this test has started itself.
    #[track_caller]
    pub fn stop_and_wait_for(&self, master: Running) -> Finished {
        self.master_process().signal(Signal::SIGTERM);
        master.finish(SOON)
    }

    /// The id that the master wrote into its lock file.
    #[track_caller]
    pub fn master_pid(&self) -> i32 {
        let path = self.queue().join("pid/master.pid");
        let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path:?}: {why}"));
        text.trim().parse().expect("a process id")
    }

    /// The master.
    #[track_caller]
    pub fn master_process(&self) -> Process {
        Process(self.master_pid())
    }

    /// The master's children.
    pub fn children(&self) -> Vec<Process> {
        self.master_process().children()
    }

    /// The master's children that run a command.
    pub fn children_named(&self, command: &str) -> Vec<Process> {
        let mut children = self.children();
        children.retain(|child| child.cmdline().first().is_some_and(|name| name == command));
        children
    }

    /// All that run in this instance's queue directory or have its configuration, without tests.
    pub fn processes(&self) -> Vec<Process> {
        let ourselves = nix::unistd::getpid().as_raw();
        let configuration = self.configuration().to_string_lossy().into_owned();
        let mut all = Process::all();
        all.retain(|process| {
            process.0 != ourselves
                && (process.cwd().starts_with(self.path())
                    || process.executable().starts_with(self.path())
                    || process.environ().get("MAIL_CONFIG") == Some(&configuration))
        });
        all
    }

    // ---- its log

    pub fn log(&self) -> String {
        let bytes = fs::read(self.path().join("log/maillog")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The lines of the log that have a text.
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    /// Waits for a line with a text, and returns the first.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_log_after(0, text)
    }

    /// Waits for a line with a text, in what was logged since the log had this length.
    #[track_caller]
    pub fn wait_for_log_after(&self, mark: usize, text: &str) -> String {
        until(SOON, format_args!("{text:?} in the log"), || {
            let log = self.log();
            let news = log.get(mark..)?;
            // A line is there when its end is.
            news.split_inclusive('\n')
                .find(|line| line.ends_with('\n') && line.contains(text))
                .map(|line| line.trim_end().to_owned())
        })
    }

    // ---- mail

    /// How many messages have been delivered.
    pub fn delivered(&self) -> usize {
        fs::read_dir(self.mailbox()).map_or(0, Iterator::count)
    }

    /// The names of delivered messages' files are all different, so this counts each once.
    #[track_caller]
    pub fn wait_for_delivery(&self, messages: usize, limit: Duration) {
        within(limit, || self.delivered() >= messages);
        assert_eq!(self.delivered(), messages, "messages delivered");
    }

    /// The socket of a service that has one in the file system.
    pub fn socket(&self, class: &str, name: &str) -> PathBuf {
        self.queue().join(class).join(name)
    }

    /// What is in a directory of the queue.
    pub fn queued(&self, directory: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut pending = vec![self.queue().join(directory)];
        while let Some(path) = pending.pop() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    pending.push(entry.path());
                } else {
                    names.insert(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        names
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The master may start children while they are being killed: until there is nobody left.
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

/// The user and group of the mail system.
pub fn mail_owner() -> (u32, u32) {
    let user = User::from_name("postfix")
        .expect("the users")
        .expect("the user postfix");
    (user.uid.as_raw(), user.gid.as_raw())
}

fn mkdir(path: &Path, mode: u32) {
    if !path.exists() {
        fs::create_dir(path).unwrap_or_else(|why| panic!("{path:?}: {why}"));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// Replaces a configuration file as a careful administrator does: a daemon that starts at this
/// moment reads the old or the new one, and never half of it. The file looks older than it is,
/// because everything of Postfix that reads main.cf waits until it is more than a second old.
pub fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("new");
    fs::write(&draft, text).expect("a draft");
    let file = fs::File::options().append(true).open(&draft);
    let past = SystemTime::now() - Duration::from_secs(60);
    file.and_then(|file| file.set_modified(past))
        .expect("a time stamp");
    fs::rename(&draft, path).expect("a new file");
}
