//! Where log lines go: syslog, Postfix's postlog socket, a file, and the terminal while there is
//! one. Nothing here waits: a line that finds its way blocked takes the next one or is counted as
//! lost, because a master that waits for its log serves nobody.
//!
//! Lines have the form of Postfix's (`msg_syslog.c`, `msg_logger.c`): a tag with the process ID, a
//! severity word unless it is for information, the text.

mod entry;
mod output;

use std::env;
use std::ffi::OsString;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::{AsFd, RawFd};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use self::entry::{Clean, Entry, Json, cut};
use self::output::Output;
use crate::sys::poll::can_write;

/// How grave a line is; Postfix's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Warning,
    Error,
    Fatal,
    Panic,
}

impl Severity {
    /// The word before the text, if any.
    fn word(self) -> &'static str {
        match self {
            Self::Info => "",
            Self::Warning => "warning: ",
            Self::Error => "error: ",
            Self::Fatal => "fatal: ",
            Self::Panic => "panic: ",
        }
    }

    /// The escape sequence that has a terminal show the word in yellow, or in bold red.
    fn colour(self) -> Option<&'static str> {
        match self {
            Self::Info => None,
            Self::Warning => Some("\x1b[33m"),
            Self::Error | Self::Fatal | Self::Panic => Some("\x1b[1;31m"),
        }
    }

    /// As machines read it.
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
            Self::Panic => "panic",
        }
    }

    /// The number of syslog(3).
    fn level(self) -> u8 {
        match self {
            Self::Info => 6,
            Self::Warning => 4,
            Self::Error => 3,
            Self::Fatal | Self::Panic => 2,
        }
    }
}

/// The facilities of syslog(3) by name; the index is the number.
pub const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// Where the journal takes lines with fields.
pub const JOURNAL: &str = "/run/systemd/journal/socket";

/// Where to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The system's log, under this facility of [`FACILITIES`].
    Syslog { facility: String },
    /// systemd's journal, by its socket; the system's log when nobody listens there.
    Journal { socket: PathBuf, facility: String },
    /// Postfix's postlogd, by its socket; the file itself when nobody reads there.
    Postlog {
        socket: PathBuf,
        /// None before the configuration is known.
        file: Option<PathBuf>,
        /// The file's mode, should it have to be made.
        permissions: u32,
        hostname: String,
    },
}

/// What a log is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `syslog_name/master`; what follows the last slash is the program.
    pub tag: String,
    pub target: Target,
    pub format: Format,
    pub terminal: Terminal,
}

impl Settings {
    /// Until the configuration is known: the log of whoever has started this program, as Postfix's
    /// programs tell each other (`maillog_client.c`), or else syslog under this facility. Without
    /// `MAIL_LOGTAG` the tag begins with `name`.
    pub fn inherited(
        variable: impl Fn(&str) -> Option<OsString>,
        name: &str,
        program: &str,
        facility: &str,
        terminal: Terminal,
    ) -> Self {
        let text = |name: &str| {
            let value = variable(name)?.to_string_lossy().into_owned();
            Some(value).filter(|value| !value.is_empty())
        };
        let target = match text("POSTLOG_SERVICE") {
            Some(socket) => Target::Postlog {
                socket: socket.into(),
                file: None,
                permissions: 0o600,
                hostname: text("POSTLOG_HOSTNAME").unwrap_or_else(|| "amnesiac".into()),
            },
            None => Target::Syslog {
                facility: facility.into(),
            },
        };
        let tag = text("MAIL_LOGTAG").unwrap_or_else(|| name.into());
        Self {
            tag: format!("{tag}/{program}"),
            target,
            format: Format::Text,
            terminal,
        }
    }
}

/// The form of lines in a file and on the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What a line is about, for who searches for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About<'a> {
    /// The service table's first two columns.
    pub service: Option<(&'a str, &'a str)>,
    pub child: Option<i32>,
}

/// Which lines also go to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// None: there is no terminal any more.
    Nothing,
    /// Those that somebody should look into: start-up says nothing when all is well.
    Problems,
    Everything,
}

/// Somewhere to write lines.
#[derive(Debug)]
pub struct Log {
    settings: Settings,
    output: Output,
    pid: u32,
    lost: u64,
    /// Nobody reads postlogd's socket, so that lines go straight to the file.
    direct: bool,
    /// Lines that are also wanted elsewhere.
    kept: Option<Vec<String>>,
    /// The text that is being written; kept for its memory.
    text: String,
}

/// So many lines are kept for who wants them.
const KEPT_MAX: usize = 100;
/// Longer lines are cut (Postfix, `msg_logger.c`).
const LINE_MAX: usize = 2000;

impl Log {
    /// A log that writes straight to the file, if its target has one, until somebody
    /// [reads](Log::readers) postlogd's socket.
    pub fn new(settings: Settings) -> Self {
        LazyLock::force(&COLOURS);
        Self {
            output: Output::open(&settings.target),
            settings,
            pid: std::process::id(),
            lost: 0,
            direct: true,
            kept: None,
            text: String::new(),
        }
    }

    /// Another log to the same places, past postlogd, for who cannot open anything any more.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            settings: self.settings.clone(),
            output: self.output.try_clone()?,
            pid: self.pid,
            lost: 0,
            direct: true,
            kept: None,
            text: String::new(),
        })
    }

    /// Has a panic, which would be a defect of this program, leave a line here, whatever state the
    /// program is in.
    pub fn catch_panics(&self) {
        let Ok(log) = self.try_clone() else {
            return;
        };
        let log = Mutex::new(log);
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

    /// Which lines go to the terminal from now on.
    pub fn set_terminal(&mut self, terminal: Terminal) {
        self.settings.terminal = terminal;
    }

    /// Whether somebody reads postlogd's socket, or will: whoever has its service.
    pub fn readers(&mut self, readers: bool) {
        self.direct = !readers;
    }

    /// Looks up now what could not be found from within a chroot: the system's log and the time
    /// zone.
    pub fn connect(&mut self) {
        self.output.connect();
    }

    /// A descriptor to which a signal handler may write.
    pub fn last_resort(&self) -> RawFd {
        self.output.last_resort()
    }

    /// From now on keeps the lines that somebody should look into, without their tag, until they
    /// are [taken](Log::take_kept); the first hundred.
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

    /// Writes what only a verbose master says. Its mass would fill postlogd's queue, into which
    /// postlogd itself writes before it reads, and waits.
    pub fn detail(&mut self, about: About<'_>, text: impl Display) {
        let direct = std::mem::replace(&mut self.direct, true);
        self.write_about(Severity::Info, about, text);
        self.direct = direct;
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
        self.show(&entry);
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.len() < KEPT_MAX) {
            if severity > Severity::Info {
                kept.push(format!("{}{}", severity.word(), entry.message));
            }
        }
        match self.output.send(&entry, self.settings.format, self.direct) {
            Ok(()) => self.confess(),
            Err(_) => self.lost += 1,
        }
    }

    /// Writes a line to the terminal. Without one there is still the log.
    fn show(&self, entry: &Entry<'_>) {
        let Entry {
            severity,
            message: ref line,
            ..
        } = *entry;
        let shown = match self.settings.terminal {
            Terminal::Nothing => false,
            Terminal::Problems => severity > Severity::Info,
            Terminal::Everything => true,
        };
        if shown && can_write(io::stderr().as_fd()) {
            let word = severity.word();
            let program = self.settings.tag.rsplit('/').next().unwrap_or_default();
            let colour = COLOURS.then(|| severity.colour()).flatten();
            let _ = match colour {
                _ if self.settings.format == Format::Json => {
                    writeln!(io::stderr(), "{}", Json(entry))
                }
                Some(colour) => writeln!(io::stderr(), "{program}: {colour}{word}\x1b[0m{line}"),
                None => writeln!(io::stderr(), "{program}: {word}{line}"),
            };
        }
    }

    /// Says how many lines were lost, once a line gets through again.
    fn confess(&mut self) {
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
}

/// Whether standard error is a terminal that shows colours, and whose user has not asked for none
/// (<https://no-color.org>). The first log finds out, before the environment is cut down to what
/// children may have.
static COLOURS: LazyLock<bool> = LazyLock::new(|| {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stderr().is_terminal() && !is_set("NO_COLOR") && !dumb
});

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    fn postlog(dir: &Path) -> Log {
        let mut log = Log::new(Settings {
            tag: "postfix/master".into(),
            target: Target::Postlog {
                socket: dir.join("postlog"),
                file: Some(dir.join("maillog")),
                permissions: 0o600,
                hostname: "mail.example.org".into(),
            },
            format: Format::Text,
            terminal: Terminal::Nothing,
        });
        log.readers(true);
        log
    }

    /// Everything after the time stamp.
    fn without_time(line: &str) -> &str {
        &line["Nov 21 09:05:00 ".len()..]
    }

    #[test]
    fn a_line_reaches_postlogd_while_it_reads_and_the_file_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let mut log = postlog(dir.path());
        log.warning("nobody reads");
        let file = std::fs::read_to_string(dir.path().join("maillog")).unwrap();
        let expected = format!("mail postfix/master[{pid}]: warning: nobody reads\n");
        assert_eq!(without_time(&file), expected);

        let reader = UnixDatagram::bind(dir.path().join("postlog")).unwrap();
        log.info("somebody reads");
        let mut line = [0; 200];
        let length = reader.recv(&mut line).unwrap();
        let line = std::str::from_utf8(&line[..length]).unwrap();
        let expected = format!("mail postfix/master[{pid}]: somebody reads");
        assert_eq!(without_time(line), expected);
    }

    #[test]
    fn a_reader_that_does_not_read_does_not_stop_the_master() {
        let dir = tempfile::tempdir().unwrap();
        let _reader = UnixDatagram::bind(dir.path().join("postlog")).unwrap();
        let mut log = postlog(dir.path());
        for n in 0..2000 {
            log.info(n);
        }
        let file = std::fs::read_to_string(dir.path().join("maillog")).unwrap();
        assert!(file.ends_with(": 1999\n"), "the overflow is in the file");
    }

    #[test]
    fn control_characters_cannot_fake_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = postlog(dir.path());
        log.info("one\rtwo\x1b[31m");
        log.info("three\nfour");
        let file = std::fs::read_to_string(dir.path().join("maillog")).unwrap();
        let texts: Vec<_> = file
            .lines()
            .map(|l| l.split("]: ").last().unwrap())
            .collect();
        assert_eq!(texts, ["one?two?[31m", "three", "four"]);
    }

    const ABOUT: About<'_> = About {
        service: Some(("a\"b", "unix")),
        child: Some(4711),
    };

    #[test]
    fn a_line_can_be_an_object_with_fields() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = postlog(dir.path());
        log.set(Settings {
            format: Format::Json,
            ..log.settings().clone()
        });
        log.write_about(Severity::Warning, ABOUT, "a \"b\" \\ \x1b\nsecond");
        log.info("\u{2028}");
        let file = std::fs::read_to_string(dir.path().join("maillog")).unwrap();
        let pid = std::process::id();
        let rest = |line: &str| line["{\"time\":\"2026-11-21T09:05:00.123Z\",".len()..].to_owned();
        let lines: Vec<_> = file.lines().map(rest).collect();
        let begin = |severity| {
            format!("\"severity\":\"{severity}\",\"tag\":\"postfix/master\",\"pid\":{pid},")
        };
        let about = ",\"service\":\"a\\\"b\",\"type\":\"unix\",\"child\":4711}";
        assert_eq!(
            lines,
            [
                begin("warning") + "\"message\":\"a \\\"b\\\" \\\\ ?\"" + about,
                begin("warning") + "\"message\":\"second\"" + about,
                begin("info") + "\"message\":\"\u{2028}\"}",
            ]
        );
    }

    #[test]
    fn the_journal_gets_fields() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let journal = UnixDatagram::bind(&socket).unwrap();
        journal.set_nonblocking(true).unwrap();
        let mut log = postlog(dir.path());
        log.set(Settings {
            target: Target::Journal {
                socket,
                facility: "mail".into(),
            },
            ..log.settings().clone()
        });
        let fields = || {
            let mut text = [0; 500];
            let length = journal.recv(&mut text).unwrap();
            String::from_utf8(text[..length].to_vec()).unwrap()
        };
        let pid = std::process::id();
        log.write_about(Severity::Warning, ABOUT, "one\x07two");
        assert_eq!(
            fields(),
            format!(
                "PRIORITY=4\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=postfix/master\n\
                 SYSLOG_PID={pid}\nMESSAGE=warning: one?two\nMASTER_SERVICE=a\"b/unix\n\
                 MASTER_CHILD=4711\n"
            )
        );
        log.info("three");
        assert!(fields().ends_with("\nMESSAGE=three\n"));
    }

    #[test]
    fn the_log_file_is_not_reached_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join("maillog")).unwrap();
        let mut log = postlog(dir.path());
        log.info("nowhere to go");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "");
        assert_eq!(log.lost, 1);
    }

    #[test]
    fn a_renamed_file_is_followed_until_it_is_set_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (file, renamed) = (dir.path().join("maillog"), dir.path().join("maillog.1"));
        let mut log = postlog(dir.path());
        std::fs::rename(&file, &renamed).unwrap();
        log.info("before");
        log.set(log.settings().clone());
        log.info("after");
        assert!(
            std::fs::read_to_string(&renamed)
                .unwrap()
                .ends_with(": before\n")
        );
        assert!(
            std::fs::read_to_string(&file)
                .unwrap()
                .ends_with(": after\n")
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (file, renamed) = (dir.path().join("maillog"), dir.path().join("maillog.1"));
        let mut log = postlog(dir.path());
        std::fs::rename(&file, &renamed).unwrap();
        std::fs::create_dir(&file).unwrap();
        log.set(log.settings().clone());
        log.info("still here");
        assert!(
            std::fs::read_to_string(&renamed)
                .unwrap()
                .ends_with(": still here\n")
        );
    }

    #[test]
    fn a_new_file_has_the_mode_that_is_wanted_whatever_the_mask() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("maillog");
        let settings = |permissions| Settings {
            tag: "postfix/master".into(),
            target: Target::Postlog {
                socket: dir.path().join("postlog"),
                file: Some(file.clone()),
                permissions,
                hostname: "mail".into(),
            },
            format: Format::Text,
            terminal: Terminal::Nothing,
        };
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        Log::new(settings(0o666)).info("new");
        assert_eq!(mode(), 0o666);
        Log::new(settings(0o600)).info("old");
        assert_eq!(mode(), 0o666, "a file that is there keeps its mode");
    }
}
