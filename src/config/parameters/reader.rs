//! Values of certain types, with Postfix's error messages (`mail_conf_str.c`, `mail_conf_int.c`,
//! `mail_conf_time.c`). Each getter reports an error and then returns `None`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use crate::config::characters::invisible;
use crate::config::expand::expand;
use crate::config::hostname::check_hostname;
use crate::config::main_cf::Dictionary;
use crate::config::numbers::{boolean, integer, seconds};
use crate::config::text::{LATE_COMMENT, late_comment, shown};
use crate::config::{Diagnostic, Diagnostics};

/// Reads parameters from a complete dictionary.
pub(super) struct Reader<'a> {
    dictionary: &'a Dictionary,
    findings: &'a mut Diagnostics,
}

impl<'a> Reader<'a> {
    pub(super) fn new(dictionary: &'a Dictionary, findings: &'a mut Diagnostics) -> Self {
        Self {
            dictionary,
            findings,
        }
    }

    pub(super) fn error(&mut self, name: &str, message: String) {
        let place = self.dictionary.place(name);
        self.findings.push(Diagnostic::error(place, message));
    }

    pub(super) fn warn(&mut self, name: &str, message: String) {
        let place = self.dictionary.place(name);
        self.findings.push(Diagnostic::warning(place, message));
    }

    /// An error in the form `parameter NAME: PROBLEM`.
    pub(super) fn reject(&mut self, name: &str, problem: String) {
        self.error(name, format!("parameter {name}: {problem}"));
    }

    /// The expanded value.
    pub(super) fn value(&mut self, name: &str) -> Option<Vec<u8>> {
        let text = self.dictionary.get(name.as_bytes())?;
        if let Some(odd) = invisible(text.bytes()) {
            let place = text.place(odd.at);
            self.findings
                .push(Diagnostic::warning(place, odd.message()));
        }
        if let Some(at) = late_comment(text.bytes()) {
            let place = text.place(at);
            self.findings.push(Diagnostic::warning(place, LATE_COMMENT));
        }
        match expand(text, self.dictionary, self.findings) {
            Ok(value) => Some(value),
            Err(error) => {
                self.findings.push(error);
                None
            }
        }
    }

    fn nonempty_value(&mut self, name: &str) -> Option<Vec<u8>> {
        let value = self.value(name)?;
        if value.is_empty() {
            let message = format!("bad string length 0 < 1: {name} =: expected a value");
            self.error(name, message);
            return None;
        }
        Some(value)
    }

    pub(super) fn string(&mut self, name: &str) -> Option<String> {
        let value = self.value(name)?;
        self.utf8(name, value)
    }

    pub(super) fn nonempty(&mut self, name: &str) -> Option<String> {
        let value = self.nonempty_value(name)?;
        self.utf8(name, value)
    }

    fn utf8(&mut self, name: &str, value: Vec<u8>) -> Option<String> {
        match String::from_utf8(value) {
            Ok(value) => Some(value),
            Err(error) => {
                let value = shown(error.as_bytes());
                self.reject(
                    name,
                    format!("bad parameter value: {value}: expected UTF-8"),
                );
                None
            }
        }
    }

    pub(super) fn path(&mut self, name: &str) -> Option<OsString> {
        self.nonempty_value(name).map(OsString::from_vec)
    }

    pub(super) fn hostname(&mut self, name: &str) -> Option<String> {
        let value = self.nonempty(name)?;
        match check_hostname(&value) {
            Ok(()) => Some(value),
            Err(why) => {
                let value = shown(value.as_bytes());
                let problem = format!("bad parameter value: {value}: {why}: expected a host name");
                self.reject(name, problem);
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        let value = self.value(name)?;
        let boolean = boolean(&value);
        if boolean.is_none() {
            let value = shown(&value);
            self.error(
                name,
                format!("bad boolean configuration: {name} = {value}: expected yes or no"),
            );
        }
        boolean
    }

    /// An integer of at least `least`.
    pub(super) fn number(&mut self, name: &str, least: i32) -> Option<i32> {
        let value = self.value(name)?;
        let Some(number) = integer(&value) else {
            let message = format!(
                "bad numerical configuration: {name} = {}: expected an integer of at most {}",
                shown(&value),
                i32::MAX
            );
            self.error(name, message);
            return None;
        };
        if number < least {
            let message = format!("invalid {name} parameter value {number} < {least}");
            self.error(name, message);
            return None;
        }
        Some(number)
    }

    /// A time of at least one second.
    pub(super) fn time(&mut self, name: &str) -> Option<Duration> {
        let value = self.value(name)?;
        let Some(seconds) = seconds(&value) else {
            let message = format!(
                "bad time value or unit: {}: expected a number and s, m, h, d or w",
                shown(&value)
            );
            self.reject(name, message);
            return None;
        };
        if seconds < 1 {
            self.error(name, format!("invalid {name}: {seconds} (min 1)"));
            return None;
        }
        Some(Duration::from_secs(seconds.unsigned_abs().into()))
    }
}
