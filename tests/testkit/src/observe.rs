//! Observations of a private Postfix: its processes, its log, its queue and its mail.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::canary;
use crate::instance::{Instance, SOON};
use crate::poll::{until, within};
use crate::process::Process;

impl Instance {
    // ---- processes

    /// The process ID in the master's lock file.
    #[track_caller]
    pub fn master_pid(&self) -> i32 {
        let path = self.queue().join("pid/master.pid");
        let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path:?}: {why}"));
        text.trim().parse().expect("a process id")
    }

    /// The running master.
    ///
    /// # Panics
    /// When none runs. The number in the lock file is not sufficient: after a master's death
    /// another process may have it, and in a container it is from another PID namespace.
    #[track_caller]
    pub fn master_process(&self) -> Process {
        let process = Process(self.master_pid());
        let executable = process.executable();
        let ours = executable.starts_with(self.path());
        assert!(ours, "no master runs: {process:?} is {executable:?}");
        process
    }

    /// The running master, if the lock file identifies it.
    pub fn own_master(&self) -> Option<Process> {
        let text = fs::read_to_string(self.queue().join("pid/master.pid")).ok()?;
        let process = Process(text.trim().parse().ok()?);
        process
            .executable()
            .starts_with(self.path())
            .then_some(process)
    }

    /// The master's children, without the canary's.
    pub fn children(&self) -> Vec<Process> {
        let mut children = self.master_process().children();
        if canary::is_on() {
            children.retain(|child| {
                child
                    .cmdline()
                    .first()
                    .is_none_or(|name| name != canary::NAME)
            });
        }
        children
    }

    /// The master's children that run a command.
    pub fn children_named(&self, command: &str) -> Vec<Process> {
        let mut children = self.children();
        children.retain(|child| child.cmdline().first().is_some_and(|name| name == command));
        children
    }

    /// All processes with this instance's queue directory or configuration, except for tests.
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

    // ---- log

    pub fn log(&self) -> String {
        let bytes = fs::read(self.path().join("log/maillog")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The lines of the log that contain a text.
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    /// Waits for a line that contains a text, and returns the first one.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_log_after(0, text)
    }

    /// Waits for a line that contains a text, after this length of the log.
    #[track_caller]
    pub fn wait_for_log_after(&self, mark: usize, text: &str) -> String {
        until(SOON, format_args!("{text:?} in the log"), || {
            let log = self.log();
            let news = log.get(mark..)?;
            // A line is complete when its newline is there.
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

    /// Waits until this number of messages have been delivered.
    #[track_caller]
    pub fn wait_for_delivery(&self, messages: usize, limit: Duration) {
        within(limit, || self.delivered() >= messages);
        assert_eq!(self.delivered(), messages, "messages delivered");
    }

    /// The socket of a service in the file system.
    pub fn socket(&self, class: &str, name: &str) -> PathBuf {
        self.queue().join(class).join(name)
    }

    /// The names in a directory of the queue.
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
