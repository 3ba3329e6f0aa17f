//! Characters that a reader does not see, or takes for others. Editors and web pages put them into
//! files, and an error that shows them looks wrong itself.

use std::fmt;

/// A character that is not what it seems to be, and its offset in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Odd {
    pub(super) at: usize,
    pub(super) character: char,
}

impl Odd {
    /// A finding: what the character is, and what was expected.
    pub(super) fn message(self) -> String {
        let expected = match self.character {
            c if c.is_whitespace() => "a space",
            '\u{2018}'..='\u{201f}' => "\" or '",
            c if is_look_alike(c) => "\"-\"",
            _ => "nothing in its place",
        };
        format!("unexpected character {self}: expected {expected}")
    }
}

/// `U+00A0 (no-break space)`.
impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "U+{:04X}", u32::from(self.character))?;
        match name(self.character) {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// The first character that cannot be seen.
pub(super) fn invisible(text: &[u8]) -> Option<Odd> {
    find(text, is_invisible)
}

/// The first character that cannot be seen, or that looks like a hyphen or a quotation mark.
pub(super) fn odd(text: &[u8]) -> Option<Odd> {
    find(text, |c| is_invisible(c) || is_look_alike(c))
}

fn find(text: &[u8], is_wanted: fn(char) -> bool) -> Option<Odd> {
    // Most texts have none. Without an early end, the compiler looks at many bytes at once.
    let is_plain = |b: u8| (b' '..=b'~').contains(&b) | (b == b'\t') | (b == b'\r');
    if text.iter().fold(true, |plain, &b| plain & is_plain(b)) {
        return None;
    }
    let mut at = 0;
    for chunk in text.utf8_chunks() {
        let mut characters = chunk.valid().char_indices();
        if let Some((inside, character)) = characters.find(|&(_, c)| is_wanted(c)) {
            return Some(Odd {
                at: at + inside,
                character,
            });
        }
        at += chunk.valid().len() + chunk.invalid().len();
    }
    None
}

/// Control characters, spaces other than the usual one, and characters without a width. (Unicode's
/// White_Space and Default_Ignorable_Code_Point, without those of single scripts.)
pub fn is_invisible(c: char) -> bool {
    match c {
        '\t' | '\r' | '\n' => false,
        '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{1680}' | '\u{180e}' => true,
        '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' => true,
        '\u{2800}' | '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => true,
        '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => true,
        c => c.is_control(),
    }
}

/// What word processors put in the place of `-`, `'` and `"`.
fn is_look_alike(c: char) -> bool {
    matches!(c, '\u{2010}'..='\u{2015}' | '\u{2018}'..='\u{201f}' | '\u{2212}' | '\u{fe63}' | '\u{ff0d}')
}

fn name(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{a0}' => "no-break space",
        '\u{ad}' => "soft hyphen",
        '\u{200b}' => "zero-width space",
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            "a mark of the writing direction"
        }
        '\u{2010}'..='\u{2015}' => "a dash, not a hyphen",
        '\u{2018}'..='\u{201f}' => "a typographic quotation mark",
        '\u{2028}' => "line separator",
        '\u{202f}' => "narrow no-break space",
        '\u{2212}' => "minus sign, not a hyphen",
        '\u{3000}' => "ideographic space",
        '\u{feff}' => "byte-order mark",
        c if c.is_control() => "control character",
        _ => return None,
    })
}

/// Whether a file has the byte-order mark of UTF-16, in which no file of ours is written.
pub(super) fn is_utf16(text: &[u8]) -> bool {
    matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..])
}

/// A text for a message, in which no character is invisible.
pub(super) fn visible(text: String) -> String {
    if invisible(text.as_bytes()).is_none() {
        return text;
    }
    let mut visible = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_invisible(c) {
            visible.push_str(&format!("<U+{:04X}>", u32::from(c)));
        } else {
            visible.push(c);
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_is_found_with_its_offset() {
        let found = |text: &str| odd(text.as_bytes()).map(|odd| (odd.at, odd.to_string()));
        let some = |at, name: &str| Some((at, name.to_owned()));
        assert_eq!(found("a\tb-c \"d\"\r"), None);
        assert_eq!(found("Größe"), None);
        assert_eq!(found("\u{feff}a"), some(0, "U+FEFF (byte-order mark)"));
        assert_eq!(found("ä\u{a0}\u{200b}"), some(2, "U+00A0 (no-break space)"));
        assert_eq!(
            found("a \u{2013}"),
            some(2, "U+2013 (a dash, not a hyphen)")
        );
        assert_eq!(found("\u{7f}"), some(0, "U+007F (control character)"));
        assert_eq!(found("a\u{2003}"), some(1, "U+2003"));
        assert_eq!(invisible("\u{2013}".as_bytes()), None);
    }

    #[test]
    fn no_message_has_an_invisible_character() {
        let text = "a\u{a0}b\u{1b}\u{2013}c".to_owned();
        assert_eq!(visible(text), "a<U+00A0>b<U+001B>\u{2013}c");
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_skipped() {
        let odd = odd(b"\xa0\xff\xc2\xa0").expect("a no-break space");
        assert_eq!((odd.at, odd.character), (2, '\u{a0}'));
    }
}
