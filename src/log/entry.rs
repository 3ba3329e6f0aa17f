//! The forms of a line.

use std::fmt::{self, Display, Write as _};

use super::{About, LINE_MAX, Severity};
use crate::sys::clock::UtcTime;

/// One line, before it has a form.
pub(super) struct Entry<'a> {
    pub(super) severity: Severity,
    pub(super) tag: &'a str,
    pub(super) pid: u32,
    pub(super) about: About<'a>,
    pub(super) message: Clean<'a>,
}

/// As Postfix has it after the time: `TAG[PID]: severity: text`.
impl Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, pid, .. } = self;
        let (word, message) = (self.severity.word(), &self.message);
        write!(f, "{tag}[{pid}]: {word}{message}")
    }
}

/// A line as a JSON object.
pub(super) struct Json<'a>(pub(super) &'a Entry<'a>);

impl Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.0;
        let (time, severity) = (UtcTime::now(), entry.severity.name());
        let (tag, pid) = (Quoted(entry.tag), entry.pid);
        let message = Quoted(entry.message.0);
        write!(
            f,
            "{{\"time\":\"{time}\",\"severity\":\"{severity}\",\"tag\":{tag},\"pid\":{pid},\
             \"message\":{message}"
        )?;
        if let Some((name, kind)) = entry.about.service {
            let (name, kind) = (Quoted(name), Quoted(kind));
            write!(f, ",\"service\":{name},\"type\":{kind}")?;
        }
        if let Some(child) = entry.about.child {
            write!(f, ",\"child\":{child}")?;
        }
        f.write_str("}")
    }
}

/// A text as a string of JSON's.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in Clean(self.0).to_string().chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

/// The text up to the limit, whole characters only.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(LINE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Text without the control characters with which it could pass for another line.
pub(super) struct Clean<'a>(pub(super) &'a str);

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
