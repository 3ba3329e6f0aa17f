//! The forms of a line.

use std::fmt::{self, Display};
use std::io;

use serde::{Serialize, Serializer};
use serde_derive::Serialize;

use super::time::UtcTime;
use super::{About, Severity};

/// Longer texts are cut to this many bytes (Postfix, `msg_logger.c`).
const LINE_MAX: usize = 2000;

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

/// The keys of a JSON line, in their order.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(serialize_with = "as_text")]
    time: UtcTime,
    severity: &'static str,
    tag: Clean<'a>,
    pid: u32,
    message: Clean<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Clean<'a>>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Clean<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<i32>,
}

impl Entry<'_> {
    /// The line as a JSON object.
    ///
    /// # Errors
    /// The serializer's; strings and numbers give it no reason for any.
    pub(super) fn to_json(&self) -> io::Result<String> {
        let (service, kind) = self.about.service.unzip();
        let json = Json {
            time: UtcTime::now(),
            severity: self.severity.name(),
            tag: Clean(self.tag),
            pid: self.pid,
            message: self.message,
            service: service.map(Clean),
            kind: kind.map(Clean),
            child: self.about.child,
        };
        Ok(serde_json::to_string(&json)?)
    }
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The text up to the limit, whole characters only.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(LINE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Text with `?` in the place of control characters, with which it could pass for another line.
#[derive(Clone, Copy)]
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

impl Serialize for Clean<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
