//! Where log lines go: syslog, Postfix's postlog socket, a file, and the terminal while there is
//! one. Nothing here waits: a line that finds its way blocked takes the next one or is counted as
//! lost, because a master that waits for its log serves nobody.
//!
//! Lines have the form of Postfix's (`msg_syslog.c`, `msg_logger.c`): a tag with the process ID, a
//! severity word unless it is for information, the text.

use std::fmt::{self, Display, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::sys::clock::Timestamp;

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

/// Where to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The system's log, under this facility of [`FACILITIES`].
    Syslog { facility: String },
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
    /// `syslog_name/master`.
    pub tag: String,
    pub target: Target,
    pub terminal: Terminal,
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
    pid: u32,
    socket: Option<UnixDatagram>,
    connected: bool,
    lost: u64,
    /// Nobody reads postlogd's socket, so that lines go straight to the file.
    direct: bool,
    /// The line that is being written; kept for its memory.
    line: String,
}

/// Longer lines are cut (Postfix, `msg_logger.c`).
const LINE_MAX: usize = 2000;

impl Log {
    /// The system's log socket.
    const DEV_LOG: &str = "/dev/log";

    /// A log that writes straight to the file, if its target has one, until somebody
    /// [reads](Log::readers) postlogd's socket.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            pid: std::process::id(),
            socket: None,
            connected: false,
            lost: 0,
            direct: true,
            line: String::new(),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Writes elsewhere from now on.
    pub fn set(&mut self, settings: Settings) {
        if self.settings != settings {
            self.settings = settings;
            self.connected = false;
        }
    }

    /// Which lines go to the terminal from now on.
    pub fn set_terminal(&mut self, terminal: Terminal) {
        self.settings.terminal = terminal;
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

    /// Writes the text, one log line for each of its own.
    pub fn write(&mut self, severity: Severity, text: impl Display) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        // A Display that fails has nothing more to say; what it said is logged.
        let _ = write!(line, "{text}");
        for one in line.lines() {
            self.write_line(severity, one);
        }
        self.line = line;
    }

    /// Whether somebody reads postlogd's socket, or will: whoever has its service.
    pub fn readers(&mut self, readers: bool) {
        self.direct = !readers;
    }

    /// Writes what only a verbose master says. Its mass would fill postlogd's queue, into which
    /// postlogd itself writes before it reads, and waits.
    pub fn detail(&mut self, text: impl Display) {
        let direct = std::mem::replace(&mut self.direct, true);
        self.info(text);
        self.direct = direct;
    }

    fn write_line(&mut self, severity: Severity, text: &str) {
        let text = Clean(cut(text));
        let word = severity.word();
        let shown = match self.settings.terminal {
            Terminal::Nothing => false,
            Terminal::Problems => severity > Severity::Info,
            Terminal::Everything => true,
        };
        if shown {
            // Without a terminal there is still the log.
            let _ = writeln!(io::stderr(), "master: {word}{text}");
        }
        let (tag, pid) = (&self.settings.tag, self.pid);
        let sent = match &self.settings.target {
            Target::Syslog { facility } => {
                let number = FACILITIES.iter().position(|f| f == facility).unwrap_or(2);
                let priority = number * 8 + usize::from(severity.level());
                let line = format!(
                    "<{priority}>{} {tag}[{pid}]: {word}{text}",
                    Timestamp::now()
                );
                self.send_syslog(&line)
            }
            Target::Postlog {
                socket,
                file,
                permissions,
                hostname,
            } => {
                let host = hostname.split('.').next().unwrap_or(hostname);
                let line = format!("{} {host} {tag}[{pid}]: {word}{text}", Timestamp::now());
                let (socket, file, permissions) = (socket.clone(), file.clone(), *permissions);
                let sent = match self.direct && file.is_some() {
                    true => Err(io::ErrorKind::NotConnected.into()),
                    false => self.send_postlog(&socket, &line),
                };
                sent.or_else(|_| append(file.as_deref(), permissions, &line))
            }
        };
        match sent {
            Ok(()) => self.confess(),
            Err(_) => self.lost += 1,
        }
    }

    /// Says how many lines were lost, once a line gets through again.
    fn confess(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            let text = format!("{lost} log lines before this one were lost: the log was full");
            self.write_line(Severity::Warning, &text);
        }
    }

    fn socket(&mut self) -> io::Result<&UnixDatagram> {
        if self.socket.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            self.socket = Some(socket);
        }
        self.socket
            .as_ref()
            .ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// Sends to the system's log, connecting anew when it was restarted since the last line.
    fn send_syslog(&mut self, line: &str) -> io::Result<()> {
        if self.connected {
            match self.socket()?.send(line.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.connected = false,
                result => return result.map(drop),
            }
        }
        self.socket()?.connect(Self::DEV_LOG)?;
        self.connected = true;
        self.socket()?.send(line.as_bytes()).map(drop)
    }

    fn send_postlog(&mut self, path: &Path, line: &str) -> io::Result<()> {
        self.socket()?.send_to(line.as_bytes(), path).map(drop)
    }
}

/// Appends a line to the log file: never through a link, never to a file with a second name.
fn append(file: Option<&Path>, permissions: u32, line: &str) -> io::Result<()> {
    let Some(path) = file else {
        return Err(io::ErrorKind::NotFound.into());
    };
    if path == Path::new("/dev/stdout") {
        return writeln!(io::stdout(), "{line}");
    }
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(permissions)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() != 1 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    file.write_all(format!("{line}\n").as_bytes())
}

/// An error's words and those of what caused it. The system's own come without the number that
/// the standard library adds.
pub fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    if let Some(number) = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error)
    {
        let end = words.find(&format!(" (os error {number})"));
        words.truncate(end.unwrap_or(words.len()));
    }
    match error.source() {
        Some(source) => format!("{words}: {}", reason(source)),
        None => words,
    }
}

/// The text up to the limit, whole characters only.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(LINE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Text without the control characters with which it could pass for another line.
struct Clean<'a>(&'a str);

impl Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(char::is_control) {
            match part.strip_suffix(char::is_control) {
                Some(text) => write!(f, "{text}?")?,
                None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postlog(dir: &Path) -> Log {
        let mut log = Log::new(Settings {
            tag: "postfix/master".into(),
            target: Target::Postlog {
                socket: dir.join("postlog"),
                file: Some(dir.join("maillog")),
                permissions: 0o600,
                hostname: "mail.example.org".into(),
            },
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
    fn a_reason_is_the_systems_words_without_its_numbers() {
        use anyhow::Context;
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        let error = Err::<(), _>(missing).context("open /x").unwrap_err();
        assert_eq!(reason(error.as_ref()), "open /x: No such file or directory");
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
}
