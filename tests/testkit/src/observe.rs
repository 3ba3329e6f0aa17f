//! What can be seen of a private Postfix: its processes, its log, its queue and its mail.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::canary;
use crate::instance::{Instance, SOON};
use crate::poll::{until, within};
use crate::process::Process;

impl Instance {
    // ---- its processes

    /// The id that the master wrote into its lock file.
    #[track_caller]
    pub fn master_pid(&self) -> i32 {
        let path = self.queue().join("pid/master.pid");
        let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path:?}: {why}"));
        text.trim().parse().expect("a process id")
    }

    /// The master that runs.
    ///
    /// # Panics
    /// When none does. The number in the lock file alone proves nothing: a dead master's may be
    /// somebody else's by now, and a container's is one of another world.
    #[track_caller]
    pub fn master_process(&self) -> Process {
        let process = Process(self.master_pid());
        let executable = process.executable();
        let ours = executable.starts_with(self.path());
        assert!(ours, "no master runs: {process:?} is {executable:?}");
        process
    }

    /// The master that runs, if the lock file tells which it is.
    pub fn own_master(&self) -> Option<Process> {
        let text = fs::read_to_string(self.queue().join("pid/master.pid")).ok()?;
        let process = Process(text.trim().parse().ok()?);
        process
            .executable()
            .starts_with(self.path())
            .then_some(process)
    }

    /// The master's children, without those of the canary.
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
