//! `master.toml`: parameters under `main.cf`'s names, for installations without a `main.cf` and for
//! parameters that `main.cf` does not have, and one table for each service, for settings that
//! `master.cf` does not have. Setting a parameter in both files is an error.

mod services;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::characters::{is_utf16, odd};
use super::main_cf::Dictionary;
use super::parameters;
use super::text::Text;
use super::{Diagnostic, Diagnostics, Place, Position, Source};
use services::{Setting, Value};

pub(super) use services::{ServiceTable, System, apply};

/// Maximum number of syntax errors reported: after a first error, the parser finds many more.
const SYNTAX_ERRORS_MAX: usize = 10;

/// The key that contains the services' tables.
const SERVICE: &str = "service";

/// Adds the parameters of several files to `dictionary`, as [`merge`] does, and returns one table for
/// each service: files may add to each other's tables, but not set what another one sets.
pub(super) fn merge_all<'a>(
    sources: impl Iterator<Item = &'a Source>,
    dictionary: &mut Dictionary,
    findings: &mut Diagnostics,
) -> Vec<ServiceTable> {
    let mut joined: BTreeMap<String, ServiceTable> = BTreeMap::new();
    for source in sources {
        for table in merge(source, dictionary, findings) {
            match joined.get_mut(&table.name) {
                Some(first) => first.settings.extend(table.settings),
                None => drop(joined.insert(table.name.clone(), table)),
            }
        }
    }
    for table in joined.values() {
        let mut places = HashMap::new();
        for setting in &table.settings {
            if let Some(earlier) = places.insert(&*setting.key, &setting.key_place) {
                let message = twice(&setting.key, earlier);
                findings.push(Diagnostic::error(setting.key_place.clone(), message));
            }
        }
    }
    joined.into_values().collect()
}

/// Adds the file's parameters to `dictionary`, which has `main.cf`'s, and returns the services'
/// tables.
pub(super) fn merge(
    source: &Source,
    dictionary: &mut Dictionary,
    findings: &mut Diagnostics,
) -> Vec<ServiceTable> {
    match std::str::from_utf8(&source.text) {
        Ok(text) => File::new(&source.path, text).merge(dictionary, findings),
        Err(error) => {
            let good = String::from_utf8_lossy(&source.text[..error.valid_up_to()]);
            let place = File::new(&source.path, &good).place(good.len());
            let message = if is_utf16(&source.text) {
                "the file is in UTF-16: expected UTF-8"
            } else {
                "expected UTF-8"
            };
            findings.push(Diagnostic::error(place, message));
            Vec::new()
        }
    }
}

/// The tables beneath a key of a text that this program brings along, by their names.
fn tables_beneath(key: &str, text: &str) -> Vec<ServiceTable> {
    let (table, _) = DeTable::parse_recoverable(text);
    let beneath = table.get_ref().get(key);
    let tables = beneath.map(|value| File::new(Path::new("presets"), text).service_tables(value));
    tables.and_then(Result::ok).unwrap_or_default()
}

struct File<'a> {
    path: Rc<Path>,
    text: &'a str,
    /// The offset of each line's first byte.
    lines: Vec<usize>,
}

impl<'a> File<'a> {
    fn new(path: &Path, text: &'a str) -> Self {
        // A byte-order mark is allowed here, and counts in no column.
        let begin = if text.starts_with('\u{feff}') { 3 } else { 0 };
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            path: Rc::from(path),
            text,
            lines: std::iter::once(begin).chain(ends).collect(),
        }
    }

    fn merge(&self, dictionary: &mut Dictionary, findings: &mut Diagnostics) -> Vec<ServiceTable> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors.iter().take(SYNTAX_ERRORS_MAX) {
            findings.push(self.syntax_error(error));
        }
        if !errors.is_empty() {
            return Vec::new();
        }
        let mut services = Vec::new();
        for (key, value) in table.get_ref() {
            let read = match key.get_ref().as_ref() {
                SERVICE => self.service_tables(value).map(|found| services = found),
                _ => self.set(key, value, dictionary),
            };
            if let Err(error) = read {
                findings.push(error);
            }
        }
        services
    }

    fn service_tables(
        &self,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<ServiceTable>, Diagnostic> {
        let tables = self.table(value)?.iter().map(|(name, value)| {
            let settings = self.table(value)?.iter();
            if let Some(error) = self.odd_in(name.span()) {
                return Err(error);
            }
            Ok(ServiceTable {
                name: name.get_ref().to_string(),
                place: self.place(name.span().start),
                settings: settings.map(|(k, v)| self.setting(k, v)).collect(),
            })
        });
        tables.collect()
    }

    fn table<'t>(&self, value: &'t Spanned<DeValue<'a>>) -> Result<&'t DeTable<'a>, Diagnostic> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => {
                let place = self.place(value.span().start);
                let message = "expected the table of a service: [service.\"name/type\"]";
                Err(Diagnostic::error(place, message))
            }
        }
    }

    fn setting(&self, key: &Spanned<Cow<'_, str>>, value: &Spanned<DeValue<'_>>) -> Setting {
        Setting {
            key: key.get_ref().to_string(),
            key_place: self.place(key.span().start),
            value: self.setting_value(value),
            value_place: self.place(value.span().start),
            odd: self.odd_in(value.span()),
        }
    }

    fn setting_value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(integer) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix());
                number.map_or(Value::Other, Value::Integer)
            }
            DeValue::Boolean(yes) => Value::Bool(*yes),
            DeValue::Array(items) => {
                // The parser limits how deep arrays can be.
                let item = |item| (self.setting_value(item), self.place(item.span().start));
                Value::List(items.iter().map(item).collect())
            }
            _ => Value::Other,
        }
    }

    fn syntax_error(&self, error: &Error) -> Diagnostic {
        let start = error.span().map_or(0, |span| span.start);
        // The parser does not say which character it has met, and not always where.
        let mut line = self.line(start);
        let comment = self.text[line.clone()].find('#');
        line.end = comment.map_or(line.end, |at| line.start + at);
        let error = || match self.unquoted(start, line.clone()) {
            Some((at, value)) => Diagnostic::error(
                self.place(at),
                format!(
                    "bad value {value}: expected an integer without zeros before it, or a string: \
                     \"{value}\""
                ),
            ),
            None => Diagnostic::error(self.place(start), error.message()),
        };
        self.odd_in(line.clone()).unwrap_or_else(error)
    }

    /// The value of the line and where it begins, if there is an error in it and it is one such as
    /// `0027`, `100:200` or `30s`: the parser takes its begin for a number or a time of day.
    fn unquoted(&self, error: usize, line: Range<usize>) -> Option<(usize, &'a str)> {
        let (_, rest) = self.text.get(line.clone())?.split_once('=')?;
        let begin = line.end - rest.trim_start().len();
        let value = rest.trim();
        let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | ',');
        let is_unquoted =
            value.starts_with(|c: char| c.is_ascii_digit()) && value.chars().all(is_plain);
        (error >= begin && is_unquoted).then_some((begin, value))
    }

    /// An error about a character of the file that is not what it seems to be.
    fn odd_in(&self, range: Range<usize>) -> Option<Diagnostic> {
        let odd = odd(&self.text.as_bytes()[range.clone()])?;
        let place = self.place(range.start + odd.at);
        Some(Diagnostic::error(place, odd.message()))
    }

    fn set(
        &self,
        key: &Spanned<Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        dictionary: &mut Dictionary,
    ) -> Result<(), Diagnostic> {
        let name: &str = key.get_ref();
        let at_key = |message| Diagnostic::error(self.place(key.span().start), message);
        if !parameters::names().any(|known| known == name) {
            let error = || at_key(unknown(name));
            return Err(self.odd_in(key.span()).unwrap_or_else(error));
        }
        let is_boolean = parameters::is_boolean(name);
        let Some(text) = self.value(value, is_boolean) else {
            let expected = if is_boolean {
                "true or false"
            } else {
                "a string or an integer, without null bytes"
            };
            let message = format!("bad value of \"{name}\": expected {expected}");
            let place = self.place(value.span().start);
            return Err(Diagnostic::error(place, message));
        };
        if parameters::is_path(name) && text.bytes().first() == Some(&b'~') {
            let message = format!("bad value of \"{name}\": \"~\" has no meaning: expected a path");
            return Err(Diagnostic::error(text.place(0), message));
        }
        let is_relative = |path: &[u8]| !matches!(path.first(), None | Some(b'/' | b'$'));
        let text = if parameters::is_path(name) && is_relative(text.bytes()) {
            text.after(b"$config_directory/")
        } else {
            text
        };
        match dictionary.set(name.as_bytes(), text) {
            None => Ok(()),
            Some(earlier) => Err(at_key(twice(name, &earlier.place(0)))),
        }
    }

    /// The value in `main.cf`'s form; `None` if the parameter cannot have it.
    fn value(&self, value: &Spanned<DeValue<'_>>, is_boolean: bool) -> Option<Text> {
        let span = value.span();
        match value.get_ref() {
            DeValue::String(string) if !string.contains('\0') => {
                let written = &self.text[span.clone()];
                let is_verbatim =
                    written.len() == string.len() + 2 && written[1..].starts_with(&**string);
                Some(if is_verbatim {
                    self.verbatim(string, span.start + 1)
                } else {
                    Text::at(
                        Rc::clone(&self.path),
                        string.as_bytes(),
                        self.position(span.start),
                    )
                })
            }
            DeValue::Integer(integer) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
                Some(self.verbatim(&number.to_string(), span.start))
            }
            DeValue::Boolean(yes) if is_boolean => {
                Some(self.verbatim(if *yes { "yes" } else { "no" }, span.start))
            }
            _ => None,
        }
    }

    /// A text without escapes: its characters are the file's characters from `start` on.
    fn verbatim(&self, string: &str, start: usize) -> Text {
        let mut text = Text::new(Rc::clone(&self.path));
        text.append(string.as_bytes(), self.position(start));
        text
    }

    fn place(&self, offset: usize) -> Place {
        Place {
            path: self.path.to_path_buf(),
            position: Some(self.position(offset)),
        }
    }

    fn position(&self, offset: usize) -> Position {
        let first = Position {
            line: super::diagnostic::count(self.line_number(offset)),
            column: 1,
        };
        let start = self.line(offset).start.min(offset);
        first.after(&self.text.as_bytes()[start..offset])
    }

    fn line_number(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset).max(1)
    }

    /// The line that contains the byte at `offset`, without its end.
    fn line(&self, offset: usize) -> Range<usize> {
        let number = self.line_number(offset);
        let start = self.lines[number - 1];
        let next = self
            .lines
            .get(number)
            .map_or(self.text.len(), |&next| next - 1);
        start..next
    }
}

fn twice(name: &str, earlier: &Place) -> String {
    let file = earlier.path.display();
    let line = earlier.position.map_or_else(String::new, |p| {
        format!(": line {}: column {}", p.line, p.column)
    });
    format!("\"{name}\" is also set in {file}{line}: expected it in one file only")
}

fn unknown(name: &str) -> String {
    let nearest = nearest(name, parameters::names().chain([SERVICE]));
    let expected = "expected a parameter that the master reads";
    format!("unknown key \"{name}\": {}", or_nearest(nearest, expected))
}

/// A suggestion, or what is expected if there is none.
fn or_nearest(nearest: Option<&str>, expected: &str) -> String {
    match nearest {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => expected.to_owned(),
    }
}

/// The most similar known name, if it is similar enough to be the intended one.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const SLIP: usize = 3;
    known
        .filter(|known| known.len().abs_diff(name.len()) <= SLIP)
        .map(|known| (strsim::levenshtein(name, known), known))
        .filter(|&(distance, _)| distance <= SLIP)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests;
