//! Receives syslog messages from a datagram socket and writes each as one line to a file. The
//! format guarantees that no message can forge another.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use master::config::SYSLOG_FACILITIES;
use master::log::facility_number;
use services::{About, Error, Log, Service};

/// Maximum length of a message in bytes; longer messages are cut.
const MESSAGE_MAX: usize = 8192;
/// The mode of a new file.
const FILE_MODE: u32 = 0o600;

const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];
/// The priority of messages without one: user.notice (RFC 3164, 4.3.3).
const PRIORITY: u8 = 13;
/// The largest priority: local7.debug.
const PRIORITY_MAX: u8 = 191;

const ABOUT: About = About {
    summary: "Writes syslog messages to a file.",
    arguments: "file=PATH | file=-",
    version: env!("CARGO_PKG_VERSION"),
};

fn main() -> ExitCode {
    services::run_as(&ABOUT, |mut service| {
        service.require_alone()?;
        // Each message counts as one use: with the default, a busy log would start new processes
        // all the time.
        service.set_default("max_use", "0");
        let limit = service.number("syslog_sink_size_limit", "1000000000", 1)?;
        let mut sink = Sink::open(&service, limit.into())?;
        service.datagrams(move |message| sink.take(message.bytes()))
    })
}

/// The destination of messages.
struct Sink {
    /// `None` for standard error.
    file: Option<File>,
    limit: u64,
    full: bool,
    log: Log,
}

impl Sink {
    /// Opens the file in the argument. The process is still privileged.
    fn open(service: &Service, limit: u64) -> Result<Self, Error> {
        let usage = || {
            Error::Usage("expected one argument: file=PATH, or file=- for standard error".into())
        };
        let [argument] = service.arguments() else {
            return Err(usage());
        };
        let path = argument
            .as_bytes()
            .strip_prefix(b"file=")
            .ok_or_else(usage)?;
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let file = match path.as_os_str().as_bytes() {
            b"" => return Err(usage()),
            b"-" => None,
            _ => {
                let mut options = OpenOptions::new();
                options.append(true).create(true).mode(FILE_MODE);
                // Root must not follow a symbolic link, nor block on a FIFO.
                options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
                let opened = options.open(path);
                Some(opened.map_err(Error::system(format!("open {}", path.display())))?)
            }
        };
        Ok(Self {
            file,
            limit,
            full: false,
            log: service.log(),
        })
    }

    fn take(&mut self, message: &[u8]) -> io::Result<()> {
        let line = line(message);
        let Some(file) = &mut self.file else {
            return io::stderr().write_all(line.as_bytes());
        };
        let size = file.metadata()?.len();
        let full = size + line.len() as u64 > self.limit;
        if !full {
            file.write_all(line.as_bytes())?;
        } else if !self.full {
            let limit = self.limit;
            self.log.warning(format!(
                "the file has no room below {limit} bytes (syslog_sink_size_limit): throwing \
                 messages away"
            ));
        }
        self.full = full;
        Ok(())
    }
}

/// A message as a line: the names of its facility and severity, and the text. Bytes that are not
/// text are written as `\xHH`.
fn line(message: &[u8]) -> String {
    let (priority, text) = split(message);
    let text = match text {
        [text @ .., b'\n' | 0] => text,
        text => text,
    };
    let cut = &text[..text.len().min(MESSAGE_MAX)];
    let (facility, severity) = (priority / 8, SEVERITIES[usize::from(priority % 8)]);
    let mut names = SYSLOG_FACILITIES.into_iter();
    let name = names.find(|name| facility_number(name) == Some(facility));
    let facility = name.map_or_else(|| format!("facility{facility}"), str::to_owned);
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{facility}.{severity} {}{more}\n", visible(cut))
}

/// Splits the priority in angle brackets from the text.
fn split(message: &[u8]) -> (u8, &[u8]) {
    let priority = |message: &[u8]| {
        let rest = message.strip_prefix(b"<")?;
        let end = rest.iter().take(4).position(|&b| b == b'>')?;
        let digits = &rest[..end];
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number: u8 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (number <= PRIORITY_MAX).then_some((number, end + 2))
    };
    match priority(message) {
        Some((number, length)) => (number, &message[length..]),
        None => (PRIORITY, message),
    }
}

/// Keeps UTF-8, except for control characters and the backslash.
fn visible(text: &[u8]) -> String {
    let mut line = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => line.push_str("\\\\"),
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    hex(c.encode_utf8(&mut bytes).as_bytes(), &mut line);
                }
                c => line.push(c),
            }
        }
        hex(chunk.invalid(), &mut line);
    }
    line
}

fn hex(bytes: &[u8], line: &mut String) {
    line.extend(bytes.iter().map(|byte| format!("\\x{byte:02x}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_facility_and_severity_and_one_message() {
        assert_eq!(
            line(b"<22>smtpd[1]: hello\n"),
            "mail.info smtpd[1]: hello\n"
        );
        assert_eq!(line(b"<191>x"), "local7.debug x\n");
        assert_eq!(line(b"<100>x"), "facility12.warning x\n");
        assert_eq!(line(b"hello\0"), "user.notice hello\n");
        for odd in ["<192>x", "<>x", "<12345>x", "<2x>x", "<", "<+1>x"] {
            assert!(line(odd.as_bytes()).starts_with("user.notice "), "{odd}");
        }
    }

    #[test]
    fn what_is_no_text_is_shown() {
        let shown = line("<13>a\nb\x1b[31m\\ \u{e4}\u{85}".as_bytes());
        assert_eq!(shown, "user.notice a\\x0ab\\x1b[31m\\\\ \u{e4}\\xc2\\x85\n");
        assert_eq!(line(b"\xff\xc3"), "user.notice \\xff\\xc3\n");
    }

    #[test]
    fn a_long_message_is_cut() {
        let long = vec![b'x'; MESSAGE_MAX + 1];
        let cut = line(&long);
        assert_eq!(cut.len(), "user.notice ...\n".len() + MESSAGE_MAX);
        assert!(cut.ends_with("x...\n"));
    }
}
