//! The logger: makes a line of a text, and counts the lines that are lost.

use std::fmt::{Display, Write as _};
use std::os::fd::RawFd;
use std::sync::Mutex;

use super::entry::{Clean, Entry, cut};
use super::output::Output;
use super::{About, Settings, Severity, Target, Terminal, terminal};
use crate::errors::describe_error;

/// The most lines that [`Log::keep_lines`] keeps.
const KEPT_MAX: usize = 100;

/// Writes lines to where its [`Settings`] say.
#[derive(Debug)]
pub struct Log {
    settings: Settings,
    output: Output,
    pid: u32,
    lost: u64,
    /// Why the last of them was.
    reason: String,
    /// No process reads postlogd's socket, so that lines go straight to the file.
    direct: bool,
    /// Lines that are also wanted elsewhere.
    kept: Option<Vec<String>>,
    /// The text that is being written; kept for its memory.
    text: String,
}

impl Log {
    /// A log that writes straight to the file, if its target has one, until postlogd is
    /// [available](Log::set_postlogd_available).
    pub fn new(settings: Settings) -> Self {
        terminal::detect_colours();
        let output = Output::open(&settings.target);
        Self::with_output(settings, output)
    }

    /// This process is a copy of the one that has made the log: lines have its own process ID.
    pub fn forked(&mut self) {
        self.pid = std::process::id();
    }

    fn with_output(settings: Settings, output: Output) -> Self {
        Self {
            settings,
            output,
            pid: std::process::id(),
            lost: 0,
            reason: String::new(),
            direct: true,
            kept: None,
            text: String::new(),
        }
    }

    /// Has a panic, which would be a defect of this program, leave a line here, whatever state the
    /// program is in. The line goes past postlogd, and its descriptors are open in advance.
    pub fn catch_panics(&self) {
        // Without descriptors to be had, the former hook stays.
        let Ok(output) = self.output.try_clone() else {
            return;
        };
        let log = Mutex::new(Self::with_output(self.settings.clone(), output));
        std::panic::set_hook(Box::new(move |panic| {
            if let Ok(mut log) = log.lock() {
                log.write(Severity::Panic, panic);
            }
        }));
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Writes elsewhere from now on, or to the same file's successor if it was renamed meanwhile.
    pub fn set(&mut self, settings: Settings) {
        let output = Output::open(&settings.target);
        let old = std::mem::replace(&mut self.output, output);
        if settings.target == self.settings.target {
            self.output.keep_open(old);
        }
        self.settings = settings;
    }

    /// Keeps no descriptor of a file that this process could not open with the rights it has now.
    pub fn give_up_file(&mut self) {
        if matches!(self.settings.target, Target::Postlog { .. }) {
            self.output = Output::open(&self.settings.target);
        }
    }

    /// Which lines go to the terminal from now on.
    pub fn set_terminal(&mut self, terminal: Terminal) {
        self.settings.terminal = terminal;
    }

    /// Whether a process reads postlogd's socket, or will be started when a line arrives there.
    pub fn set_postlogd_available(&mut self, available: bool) {
        self.direct = !available;
    }

    /// Writes lines past postlogd that it has not read: it cannot be started.
    pub fn rescue_unread(&mut self) {
        for line in self.output.take_unread() {
            if let Err(error) = self.output.write_again(&line) {
                self.lost += 1;
                self.reason = describe_error(&error);
            }
        }
    }

    /// Looks up now what could not be found from within a chroot: the system's log and the time
    /// zone.
    pub fn connect(&mut self) {
        self.output.connect();
    }

    /// A descriptor to which a signal handler may write.
    pub fn emergency_fd(&self) -> RawFd {
        self.output.emergency_fd()
    }

    /// From now on keeps the lines that are not for information, without their tag, until they are
    /// [taken](Log::take_kept); at most 100.
    pub fn keep_lines(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// The lines that were kept.
    pub fn take_kept(&mut self) -> Vec<String> {
        self.kept.take().unwrap_or_default()
    }

    pub fn info(&mut self, text: impl Display) {
        self.write(Severity::Info, text);
    }

    pub fn warning(&mut self, text: impl Display) {
        self.write(Severity::Warning, text);
    }

    pub fn error(&mut self, text: impl Display) {
        self.write(Severity::Error, text);
    }

    /// Writes a line of a verbose master, past postlogd: these lines would fill postlogd's queue,
    /// into which postlogd itself writes before it reads, and waits.
    pub fn detail(&mut self, about: About<'_>, text: impl Display) {
        let direct = std::mem::replace(&mut self.direct, true);
        self.write_about(Severity::Info, about, text);
        self.direct = direct;
    }

    /// Shows a line of another program on the terminal, if there is one, as that program wrote it,
    /// and logs nothing.
    pub fn show(&self, line: &str) {
        terminal::show_plain(&Clean(line), self.settings.terminal);
    }

    pub fn write(&mut self, severity: Severity, text: impl Display) {
        self.write_about(severity, About::default(), text);
    }

    /// Writes the text, one log line for each of its own.
    pub fn write_about(&mut self, severity: Severity, about: About<'_>, text: impl Display) {
        let mut buffer = std::mem::take(&mut self.text);
        buffer.clear();
        // A Display that fails has nothing more to say; what it said is logged.
        let _ = write!(buffer, "{text}");
        for line in buffer.lines() {
            self.write_line(severity, about, line);
        }
        self.text = buffer;
    }

    fn write_line(&mut self, severity: Severity, about: About<'_>, line: &str) {
        let entry = Entry {
            severity,
            tag: &self.settings.tag,
            pid: self.pid,
            about,
            message: Clean(cut(line)),
        };
        terminal::show(&entry, self.settings.terminal, self.settings.format);
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.len() < KEPT_MAX) {
            if severity > Severity::Info {
                kept.push(format!("{}{}", severity.word(), entry.message));
            }
        }
        match self.output.send(&entry, self.settings.format, self.direct) {
            Ok(()) => self.report_lost(),
            Err(error) => {
                if self.settings.terminal == Terminal::Lost {
                    terminal::show(&entry, Terminal::Everything, self.settings.format);
                }
                self.lost += 1;
                self.reason = describe_error(&error);
            }
        }
    }

    /// Says how many lines were lost, once a line gets through again.
    fn report_lost(&mut self) {
        if self.lost == 0 {
            return;
        }
        let text = format!(
            "{} log lines before this one could not be written",
            self.lost
        );
        let entry = Entry {
            severity: Severity::Warning,
            tag: &self.settings.tag,
            pid: self.pid,
            about: About::default(),
            message: Clean(&text),
        };
        let sent = self.output.send(&entry, self.settings.format, self.direct);
        if sent.is_ok() {
            self.lost = 0;
        }
    }

    /// Goes on from the log of a former program, which had lost `lost` lines.
    pub fn resume_lost(&mut self, lost: u64, reason: String) {
        self.lost = lost;
        self.reason = reason;
    }

    /// How many lines were lost since the last one that got through, and why.
    pub fn lost(&self) -> Option<(u64, &str)> {
        (self.lost > 0).then_some((self.lost, &self.reason))
    }
}
