//! One line of the table: eight columns and the arguments.

use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Location, locate};
use crate::config::characters::{invisible, odd};
use crate::config::inet::NOT_HERE;
use crate::config::numbers::digits;
use crate::config::parameters::TableSettings;
use crate::config::text::{LATE_COMMENT, Text, is_blank, shown};
use crate::config::words::{Words, unbraced};
use crate::config::{Diagnostic, Diagnostics, Kind, Resolver, Service, Wakeup};

/// Reads a line column by column and reports the errors of each column.
pub(super) struct Entry<'a, 'f> {
    line: &'a Text,
    table: &'a Arc<Path>,
    words: Words<'a>,
    findings: &'f mut Diagnostics,
    /// Whether a column was missing; then all later ones are missing, too.
    is_short: bool,
}

/// A column, as written.
#[derive(Clone, Copy)]
struct Column<'a> {
    text: &'a [u8],
    offset: usize,
}

impl Column<'_> {
    fn is_default(self) -> bool {
        self.text == b"-"
    }
}

/// The value of a column; `None` after an error, which has been reported.
type Read<T> = Option<T>;

/// A number in a column, and the text that follows it.
struct Number<'a> {
    value: u32,
    suffix: &'a [u8],
    offset: usize,
}

/// The columns between the type and the arguments.
struct Columns {
    /// The value, and the offset of the column.
    private: Read<(bool, usize)>,
    unprivileged: Read<bool>,
    chroot: Read<bool>,
    wakeup: Read<Option<Wakeup>>,
    max: Read<u32>,
    command: Read<String>,
    args: Read<Vec<OsString>>,
}

impl<'a, 'f> Entry<'a, 'f> {
    pub(super) fn new(line: &'a Text, table: &'a Arc<Path>, findings: &'f mut Diagnostics) -> Self {
        Self {
            line,
            table,
            words: Words::new(line.bytes(), is_blank),
            findings,
            is_short: false,
        }
    }

    /// The service of the line; `None` if it is disabled or has an error.
    pub(super) fn service(
        mut self,
        settings: &TableSettings,
        resolver: &dyn Resolver,
    ) -> Option<Service> {
        let name = self.column("service name")?;
        let kind = self.required("transport type")?;
        if settings.disabled.contains(name.text, kind.text) {
            return None;
        }
        let kind = self.kind(kind);
        let columns = self.columns(kind, settings);
        let text = self.utf8("service name", name)?;
        let kind = kind?;
        if let (Kind::Inet, Some((true, offset))) = (kind, columns.private) {
            self.error(offset, "inet service cannot be private: expected \"n\"");
        }
        let private = columns.private.is_none_or(|(private, _)| private);
        match locate(text, kind, private, &settings.network, resolver) {
            Ok(location) => {
                for address in &location.missing {
                    self.warn(
                        name.offset,
                        &format!("not listening on {address}: {NOT_HERE}"),
                    );
                }
                self.assemble(text, kind, columns, location, settings)
            }
            Err(problem) => {
                self.error(name.offset, &problem.to_string());
                None
            }
        }
    }

    fn error(&mut self, offset: usize, message: &str) {
        let place = self.line.place(offset);
        self.findings.push(Diagnostic::error(place, message));
    }

    fn warn(&mut self, offset: usize, message: &str) {
        let place = self.line.place(offset);
        self.findings.push(Diagnostic::warning(place, message));
    }

    fn bad_value(&mut self, name: &str, column: Column<'_>, expected: &str) {
        let value = shown(column.text);
        let message = format!("field \"{name}\": bad value: \"{value}\": expected {expected}");
        self.error(column.offset, &message);
    }

    /// The next column. Only the first missing column is reported.
    fn column(&mut self, name: &str) -> Read<Column<'a>> {
        if let Some(Range { start, end }) = self.words.word() {
            let text = &self.line.bytes()[start..end];
            if let Some(odd) = odd(text) {
                self.error(start + odd.at, &odd.message());
                // If a space was meant, the other columns are not what they seem to be.
                self.words = Words::new(b"", is_blank);
                self.is_short = true;
                return None;
            }
            return Some(Column {
                text,
                offset: start,
            });
        }
        if !self.is_short {
            self.is_short = true;
            self.error(
                self.line.bytes().len(),
                &format!("missing \"{name}\" field"),
            );
        }
        None
    }

    /// A column that has no default.
    fn required(&mut self, name: &str) -> Read<Column<'a>> {
        let column = self.column(name)?;
        if column.is_default() {
            let message = format!("field \"{name}\" has no default value");
            self.error(column.offset, &message);
            return None;
        }
        Some(column)
    }

    fn utf8(&mut self, name: &str, column: Column<'a>) -> Read<&'a str> {
        let text = std::str::from_utf8(column.text).ok();
        if text.is_none() {
            self.bad_value(name, column, "UTF-8");
        }
        text
    }

    fn kind(&mut self, column: Column<'_>) -> Read<Kind> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str().as_bytes() == column.text);
        if kind.is_none() {
            let message = format!(
                "bad transport type: {}: expected {}",
                shown(column.text),
                Kind::ALL.map(Kind::as_str).join(", ")
            );
            self.error(column.offset, &message);
        }
        kind
    }

    /// `y` or `n`, and the offset of the column.
    fn flag(&mut self, name: &str, default: bool) -> Read<(bool, usize)> {
        let column = self.column(name)?;
        let flag = match column.text {
            b"y" => true,
            b"n" => false,
            b"-" => default,
            _ => {
                self.bad_value(name, column, "\"y\", \"n\" or \"-\"");
                return None;
            }
        };
        Some((flag, column.offset))
    }

    fn chroot(&mut self, default: bool) -> Read<bool> {
        let (chroot, offset) = self.flag("chroot", default)?;
        let is_written = self.line.bytes().get(offset) != Some(&b'-');
        if chroot && !is_written {
            let message = "using backwards-compatible default setting chroot=y: write \"y\", or \
                           set compatibility_level to 1 or more in main.cf for \"n\"";
            self.warn(offset, message);
        }
        Some(chroot)
    }

    /// As with `atoi(3)`, a number ends at the first character that is not a digit. Postfix ignores
    /// the rest silently; a warning is better, because `60m` does not mean 60 minutes.
    fn number(
        &mut self,
        name: &str,
        default: u32,
        suffixes: &[&str],
        expected: &str,
    ) -> Read<Number<'a>> {
        let column = self.column(name)?;
        let offset = column.offset;
        if column.is_default() {
            return Some(Number {
                value: default,
                suffix: b"",
                offset,
            });
        }
        let is_digit = |b: &&u8| b.is_ascii_digit();
        let length = column.text.iter().take_while(is_digit).count();
        let (number, suffix) = column.text.split_at(length);
        let Some(value) = digits(number).and_then(|n| i32::try_from(n).ok()) else {
            self.bad_value(name, column, expected);
            return None;
        };
        if !suffix.is_empty() && !suffixes.iter().any(|s| s.as_bytes() == suffix) {
            let suffix = shown(suffix);
            let message = format!(
                "field \"{name}\": ignoring \"{suffix}\" after \"{value}\": expected {expected}"
            );
            self.warn(offset + length, &message);
        }
        Some(Number {
            value: value.unsigned_abs(),
            suffix,
            offset,
        })
    }

    fn wakeup(&mut self, kind: Option<Kind>) -> Read<Option<Wakeup>> {
        let expected = "seconds, at most 2147483647, perhaps with \"?\" after them, or \"-\"";
        let number = self.number("wakeup_time", 0, &["?"], expected)?;
        if number.value == 0 {
            return Some(None);
        }
        if kind == Some(Kind::UnixDgram) {
            let message = "field \"wakeup_time\": a unix-dgram service cannot be woken up: \
                           expected \"-\" or \"0\"";
            self.warn(number.offset, message);
            return Some(None);
        }
        Some(Some(Wakeup {
            every: Duration::from_secs(number.value.into()),
            conditional: number.suffix.ends_with(b"?"),
        }))
    }

    fn max(&mut self, default: u32) -> Read<u32> {
        let expected = "a number of processes, at most 2147483647, 0 for no limit, or \"-\"";
        let number = self.number("max_proc", default, &[], expected)?;
        Some(number.value)
    }

    fn command(&mut self) -> Read<String> {
        let name = "command";
        let column = self.required(name)?;
        self.utf8(name, column).map(str::to_owned)
    }

    /// The rest of the line. Braces group words and are removed.
    fn args(&mut self) -> Read<Vec<OsString>> {
        let mut args = Vec::new();
        self.warn_of_service();
        while let Some(Range { start, end }) = self.words.braced_word() {
            let word = &self.line.bytes()[start..end];
            self.warn_of_odd(word, start);
            match unbraced(word) {
                Ok(arg) => {
                    // The arguments live as long as the service, and most services have few: waste
                    // no memory.
                    args.reserve_exact(1);
                    args.push(OsString::from_vec(arg.to_vec()));
                }
                Err((problem, at)) => {
                    self.error(start + at, &problem.to_string());
                    return None;
                }
            }
        }
        Some(args)
    }

    /// A line that begins with white space by mistake gives its words to the service above.
    fn warn_of_service(&mut self) {
        let line = self.line;
        for start in line.line_starts() {
            let mut words = Words::new(&line.bytes()[start..], is_blank);
            let mut word = || words.word().map(|range| &line.bytes()[start..][range]);
            let (_, kind) = (word(), word());
            let is_kind = Kind::ALL
                .iter()
                .any(|k| Some(k.as_str().as_bytes()) == kind);
            let flags = [word(), word(), word()];
            let is_flag = |flag: &Option<&[u8]>| matches!(flag, Some(b"y" | b"n" | b"-"));
            if is_kind && flags.iter().all(is_flag) {
                let indent = line.bytes()[start..].iter().take_while(|b| is_blank(**b));
                self.warn(
                    start + indent.count(),
                    "this looks like a service, but continues the line above: expected no white \
                     space before it",
                );
            }
        }
    }

    /// Inside braces, and after its first character, an argument may be any text.
    fn warn_of_odd(&mut self, word: &[u8], start: usize) {
        if word.first() == Some(&b'{') {
            return;
        }
        if word.first() == Some(&b'#') {
            self.warn(start, LATE_COMMENT);
        }
        let first = odd(word).filter(|odd| odd.at == 0);
        if let Some(odd) = first.or_else(|| invisible(word)) {
            self.warn(start + odd.at, &odd.message());
        }
    }

    fn columns(&mut self, kind: Option<Kind>, settings: &TableSettings) -> Columns {
        let private = self.flag("private", true);
        Columns {
            private,
            unprivileged: self.flag("unprivileged", true).map(|(flag, _)| flag),
            chroot: self.chroot(settings.chroot),
            wakeup: self.wakeup(kind),
            max: self.max(settings.default_process_limit),
            command: self.command(),
            args: self.args(),
        }
    }

    fn assemble(
        &self,
        name: &str,
        kind: Kind,
        columns: Columns,
        location: Location,
        settings: &TableSettings,
    ) -> Option<Service> {
        columns.private?;
        let max = columns.max?;
        let command = columns.command?;
        Some(Service {
            name: name.to_owned(),
            kind,
            canonical: location.canonical,
            endpoint: location.endpoint,
            unprivileged: columns.unprivileged?,
            chroot: columns.chroot?,
            wakeup: columns.wakeup?,
            max,
            path: program(&command, settings),
            command,
            args: columns.args?,
            backlog: max.max(settings.default_process_limit),
            throttle_time: settings.service_throttle_time,
            extra: None,
            table: Arc::clone(self.table),
            line: self.line.place(0).position.map_or(0, |p| p.line),
        })
    }
}

/// The path of a command's program.
fn program(command: &str, settings: &TableSettings) -> PathBuf {
    if settings.absolute_commands {
        return settings.daemon_directory.join(command);
    }
    // As in Postfix, a command that begins with a slash is appended to the directory, too.
    let directory = settings.daemon_directory.as_os_str();
    let mut path = OsString::with_capacity(directory.len() + 1 + command.len());
    path.push(directory);
    path.push("/");
    path.push(command);
    PathBuf::from(path)
}
