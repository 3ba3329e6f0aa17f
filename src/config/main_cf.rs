//! `main.cf`: `name = value`; the last setting wins. This module does not interpret the values:
//! most parameters belong to other programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use super::characters::odd;
use super::lines::logical_lines;
use super::text::{Text, is_space, shown, trimmed};
use super::{Diagnostic, Diagnostics, Place, Source};

/// Parameters by name, not yet expanded.
#[derive(Debug)]
pub(super) struct Dictionary {
    main_cf: Rc<Path>,
    settings: BTreeMap<Vec<u8>, Text>,
}

impl Dictionary {
    /// An empty dictionary. Findings about missing parameters name `main_cf`.
    pub(super) fn new(main_cf: &Path) -> Self {
        Self {
            main_cf: Rc::from(main_cf),
            settings: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Text> {
        self.settings.get(name)
    }

    /// Where a value is written; for a missing one, the file as a whole.
    pub(super) fn place(&self, name: &str) -> Place {
        self.get(name.as_bytes()).map_or_else(
            || Text::new(Rc::clone(&self.main_cf)).place(0),
            |value| value.place(0),
        )
    }

    /// Sets a parameter to a value that no file contains.
    pub(super) fn define(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        let value = Text::unwritten(Rc::clone(&self.main_cf), value);
        self.settings.insert(name.into(), value);
    }

    /// Like [`Self::define`], if the parameter has no value yet.
    pub(super) fn default(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        if self.get(name.as_bytes()).is_none() {
            self.define(name, value);
        }
    }

    /// Sets a parameter and returns its earlier value.
    pub(super) fn set(&mut self, name: &[u8], value: Text) -> Option<Text> {
        self.settings.insert(name.to_vec(), value)
    }

    /// Reads a file of settings.
    pub(super) fn load(&mut self, source: &Source, findings: &mut Diagnostics) {
        for line in logical_lines(source, findings) {
            match split(&line) {
                Ok((name, value)) => self.replace(&line, name, value, findings),
                Err(error) => findings.push(error),
            }
        }
    }

    fn replace(&mut self, line: &Text, name: &[u8], value: Text, findings: &mut Diagnostics) {
        let earlier = self.get(name).map(Text::bytes);
        if let Some(earlier) = earlier.filter(|&earlier| earlier != value.bytes()) {
            let message = format!(
                "overriding earlier entry: {}={}",
                shown(name),
                shown(earlier)
            );
            findings.push(Diagnostic::warning(line.place(0), message));
        }
        self.set(name, value);
    }
}

/// The name and the value of a line, without surrounding white space.
fn split(line: &Text) -> Result<(&[u8], Text), Diagnostic> {
    let bytes = line.bytes();
    let ends_name = |&b: &u8| b == b'=' || is_space(b);
    let name_end = bytes.iter().position(ends_name).unwrap_or(bytes.len());
    if let Some(odd) = odd(&bytes[..name_end]) {
        return Err(Diagnostic::error(line.place(odd.at), odd.message()));
    }
    if name_end == 0 {
        let message = "missing attribute name: expected \"name = value\"";
        return Err(Diagnostic::error(line.place(0), message));
    }
    let blanks = bytes[name_end..].iter().take_while(|&&b| is_space(b));
    let equals = name_end + blanks.count();
    if bytes.get(equals) != Some(&b'=') {
        let message = format!(
            "missing '=' after attribute name: \"{}\": expected \"name = value\"",
            shown(bytes)
        );
        return Err(Diagnostic::error(line.place(name_end), message));
    }
    let rest = equals + 1;
    let value = trimmed(&bytes[rest..]);
    let value = line.slice(rest + value.start..rest + value.end);
    Ok((&bytes[..name_end], value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &[u8]) -> (Dictionary, Vec<String>) {
        let source = Source {
            path: "main.cf".into(),
            text: text.to_vec(),
        };
        let mut dictionary = Dictionary::new(&source.path);
        let mut findings = Diagnostics::default();
        dictionary.load(&source, &mut findings);
        let findings = findings.0.iter().map(ToString::to_string).collect();
        (dictionary, findings)
    }

    fn value(dictionary: &Dictionary, name: &str) -> Option<String> {
        let value = dictionary.get(name.as_bytes())?;
        Some(String::from_utf8_lossy(value.bytes()).into_owned())
    }

    #[test]
    fn white_space_around_name_and_value_does_not_matter() {
        let (dictionary, findings) = load(b"a=1\nb =  2 \t\r\nc= 3 = 4\nd =\n");
        assert!(findings.is_empty());
        assert_eq!(value(&dictionary, "a").as_deref(), Some("1"));
        assert_eq!(value(&dictionary, "b").as_deref(), Some("2"));
        assert_eq!(value(&dictionary, "c").as_deref(), Some("3 = 4"));
        assert_eq!(value(&dictionary, "d").as_deref(), Some(""));
        assert_eq!(value(&dictionary, "e"), None);
    }

    #[test]
    fn the_last_setting_wins_with_a_warning() {
        let (dictionary, findings) = load(b"a = 1\nb = 2\na = 3\n");
        assert_eq!(value(&dictionary, "a").as_deref(), Some("3"));
        assert_eq!(
            findings,
            ["main.cf: line 3: column 1: overriding earlier entry: a=1"]
        );
    }

    #[test]
    fn the_same_setting_again_is_no_change() {
        let (_, findings) = load(b"a = 1\na=1\n");
        assert!(findings.is_empty());
    }

    #[test]
    fn a_setting_has_a_name_and_an_equals_sign() {
        let (_, findings) = load(b"= 1\nfoo bar = 2\nfoo\n");
        assert_eq!(
            findings,
            [
                "main.cf: line 1: column 1: missing attribute name: expected \"name = value\"",
                "main.cf: line 2: column 4: missing '=' after attribute name: \"foo bar = 2\": \
                 expected \"name = value\"",
                "main.cf: line 3: column 4: missing '=' after attribute name: \"foo\": \
                 expected \"name = value\"",
            ]
        );
    }

    #[test]
    fn a_character_of_a_name_that_cannot_be_seen_is_an_error() {
        let text = "\u{feff}a = 1\nb\u{a0}= 2\n\u{feff}# c\n\u{a0}d = 3\n# \u{a0}\ne = \u{a0}4\n";
        let (dictionary, findings) = load(text.as_bytes());
        let found = |line, column, character: &str| {
            format!("main.cf: line {line}: column {column}: unexpected character {character}")
        };
        let mark = "U+FEFF (byte-order mark): expected nothing in its place";
        let space = "U+00A0 (no-break space): expected a space";
        assert_eq!(
            findings,
            [
                found(1, 1, mark),
                found(2, 2, space),
                found(3, 1, mark),
                found(4, 1, space),
            ]
        );
        assert_eq!(value(&dictionary, "e").as_deref(), Some("\u{a0}4"));
    }

    #[test]
    fn a_file_in_utf_16_is_told_as_that() {
        let (_, findings) = load(b"\xff\xfea\0=\0");
        assert_eq!(findings, ["main.cf: the file is in UTF-16: expected UTF-8"]);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_kept() {
        let (dictionary, findings) = load(b"# \xe4\na = \xe4\xf6\n");
        assert!(findings.is_empty());
        assert_eq!(
            dictionary.get(b"a").map(Text::bytes),
            Some(b"\xe4\xf6".as_ref())
        );
    }

    #[test]
    fn a_value_knows_its_place_in_a_continuation() {
        let (dictionary, _) = load(b"a =\n\n   b\n");
        let place = dictionary.place("a").position;
        assert_eq!(place.map(|p| (p.line, p.column)), Some((3, 4)));
    }
}
