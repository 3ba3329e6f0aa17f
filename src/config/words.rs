//! Splits a text into words; braces keep white space together (Postfix, `mystrtok.c` and
//! `extpar.c`).

use std::fmt;
use std::ops::Range;

use super::text::{is_space, shown, trimmed};

/// Reads the words of a text in order. A word is a range of the text.
pub(super) struct Words<'a> {
    bytes: &'a [u8],
    is_separator: fn(u8) -> bool,
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(bytes: &'a [u8], is_separator: fn(u8) -> bool) -> Self {
        Self {
            bytes,
            is_separator,
            at: 0,
        }
    }

    /// All words of a text; braces have no meaning.
    pub(super) fn all(
        bytes: &'a [u8],
        is_separator: fn(u8) -> bool,
    ) -> impl Iterator<Item = &'a [u8]> {
        let mut words = Self::new(bytes, is_separator);
        std::iter::from_fn(move || words.word().map(|range| &bytes[range]))
    }

    /// The next word; braces have no meaning.
    pub(super) fn word(&mut self) -> Option<Range<usize>> {
        let is_separator = self.is_separator;
        self.token(is_separator)
    }

    /// The next word; braces can include separators in it.
    pub(super) fn braced_word(&mut self) -> Option<Range<usize>> {
        let is_separator = self.is_separator;
        let mut level = 0u32;
        self.token(|b| {
            match b {
                b'{' => level = level.saturating_add(1),
                b'}' => level = level.saturating_sub(1),
                _ => {}
            }
            level == 0 && is_separator(b)
        })
    }

    fn token(&mut self, mut ends: impl FnMut(u8) -> bool) -> Option<Range<usize>> {
        let rest = &self.bytes[self.at..];
        let start = self.at + rest.iter().position(|&b| !(self.is_separator)(b))?;
        let word = &self.bytes[start..];
        let length = word.iter().position(|&b| ends(b)).unwrap_or(word.len());
        self.at = start + length;
        Some(start..self.at)
    }
}

/// Why a word in braces is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadBraces {
    Unclosed(String),
    Trailing(String),
}

impl fmt::Display for BadBraces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclosed(word) => write!(f, "missing '}}' in \"{word}\""),
            Self::Trailing(word) => write!(
                f,
                "syntax error after '}}' in \"{word}\": expected white space"
            ),
        }
    }
}

/// A word without its braces and the white space inside them. A word that does not begin with a
/// brace is returned unchanged.
///
/// # Errors
/// What is wrong, and the offset in the word.
pub(super) fn unbraced(word: &[u8]) -> Result<&[u8], (BadBraces, usize)> {
    if word.first() != Some(&b'{') {
        return Ok(word);
    }
    let Some(close) = matching_brace(word) else {
        return Err((BadBraces::Unclosed(shown(word)), 0));
    };
    if close + 1 < word.len() {
        return Err((BadBraces::Trailing(shown(word)), close + 1));
    }
    let inside = &word[1..close];
    Ok(&inside[trimmed(inside)])
}

/// The offset of the brace that closes `word`'s first byte, which is a brace.
fn matching_brace(word: &[u8]) -> Option<usize> {
    let mut level = 0usize;
    word.iter().position(|&b| {
        match b {
            b'{' => level += 1,
            b'}' => level -= 1,
            _ => {}
        }
        level == 0
    })
}

/// `name = value` with optional white space around both; `None` if the name or the `=` is missing
/// (Postfix, `split_nameval.c`).
pub(super) fn name_and_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = text.iter().position(|&b| b == b'=')?;
    let (name, value) = (&text[..equals], &text[equals + 1..]);
    let (name, value) = (&name[trimmed(name)], &value[trimmed(value)]);
    let is_name = !name.is_empty() && !name.iter().any(|&b| is_space(b));
    is_name.then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::super::text::{is_blank, is_list_separator};
    use super::*;

    fn braced_words(text: &str) -> Vec<&str> {
        let mut words = Words::new(text.as_bytes(), is_blank);
        std::iter::from_fn(|| words.braced_word())
            .map(|range| &text[range])
            .collect()
    }

    #[test]
    fn separators_divide_words() {
        let mut words = Words::new(b" a,,b\t c", is_list_separator);
        assert_eq!(words.word(), Some(1..2));
        assert_eq!(words.word(), Some(4..5));
        assert_eq!(words.word(), Some(7..8));
        assert_eq!(words.word(), None);
    }

    #[test]
    fn braces_keep_words_together() {
        assert_eq!(
            braced_words(" a {b c} d={ e {f} } }g"),
            ["a", "{b c}", "d={ e {f} }", "}g"]
        );
        assert_eq!(braced_words("{a b"), ["{a b"]);
    }

    #[test]
    fn the_text_in_braces_is_trimmed() {
        assert_eq!(unbraced(b"{ a  b\t}"), Ok(b"a  b".as_ref()));
        assert_eq!(unbraced(b"{}"), Ok(b"".as_ref()));
        assert_eq!(unbraced(b"{ {a} }"), Ok(b"{a}".as_ref()));
        assert_eq!(unbraced(b"a={b}"), Ok(b"a={b}".as_ref()));
    }

    #[test]
    fn braces_must_balance_and_end_the_word() {
        assert_eq!(
            unbraced(b"{a"),
            Err((BadBraces::Unclosed("{a".to_owned()), 0))
        );
        assert_eq!(
            unbraced(b"{a}b"),
            Err((BadBraces::Trailing("{a}b".to_owned()), 3))
        );
    }

    #[test]
    fn a_setting_has_a_name() {
        assert_eq!(
            name_and_value(b" a = b c "),
            Some((b"a".as_ref(), b"b c".as_ref()))
        );
        assert_eq!(name_and_value(b"a="), Some((b"a".as_ref(), b"".as_ref())));
        for bad in ["=b", "a b = c", "a"] {
            assert_eq!(name_and_value(bad.as_bytes()), None, "{bad}");
        }
    }
}
