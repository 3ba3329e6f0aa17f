//! The syntax of host names (Postfix, `valid_hostname.c`).

use std::fmt;

/// Maximum length of a label (the part between two dots), in bytes.
const LABEL_MAX: usize = 63;
/// Maximum length of a name, in bytes.
const NAME_MAX: usize = 255;

/// Why a text is not a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHostname {
    Empty,
    TooLong,
    LabelTooLong,
    MisplacedDot,
    MisplacedHyphen,
    Character(char),
    /// A name of digits and dots only would be read as an address.
    Numeric,
}

impl fmt::Display for BadHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty hostname"),
            Self::TooLong => write!(f, "more than {NAME_MAX} characters"),
            Self::LabelTooLong => write!(f, "more than {LABEL_MAX} characters between dots"),
            Self::MisplacedDot => f.write_str("misplaced \".\""),
            Self::MisplacedHyphen => f.write_str("misplaced \"-\""),
            Self::Character(c) => write!(f, "invalid character {c:?}"),
            Self::Numeric => f.write_str("numeric hostname"),
        }
    }
}

/// Checks that `name` consists of labels of letters, digits, `-` and `_`, separated by dots.
///
/// # Errors
/// The first rule that the name violates.
pub(super) fn check_hostname(name: &str) -> Result<(), BadHostname> {
    if name.is_empty() {
        return Err(BadHostname::Empty);
    }
    if name.len() > NAME_MAX {
        return Err(BadHostname::TooLong);
    }
    name.split('.').try_for_each(check_label)?;
    if name.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(BadHostname::Numeric);
    }
    Ok(())
}

fn check_label(label: &str) -> Result<(), BadHostname> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if let Some(bad) = label.chars().find(|&c| !allowed(c)) {
        Err(BadHostname::Character(bad))
    } else if label.is_empty() {
        Err(BadHostname::MisplacedDot)
    } else if label.len() > LABEL_MAX {
        Err(BadHostname::LabelTooLong)
    } else if label.starts_with('-') || label.ends_with('-') {
        Err(BadHostname::MisplacedHyphen)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_digits_hyphens_and_underscores_make_a_name() {
        for good in ["a", "mail.example.com", "a-b", "_x", "1a", "127.0.0.a"] {
            assert_eq!(check_hostname(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_broken_rule_is_named() {
        let long = "a".repeat(64);
        let longer = "a.".repeat(128) + "a";
        for (bad, why) in [
            ("", BadHostname::Empty),
            (longer.as_str(), BadHostname::TooLong),
            (long.as_str(), BadHostname::LabelTooLong),
            ("a..b", BadHostname::MisplacedDot),
            (".a", BadHostname::MisplacedDot),
            ("a.", BadHostname::MisplacedDot),
            ("-a", BadHostname::MisplacedHyphen),
            ("a-.b", BadHostname::MisplacedHyphen),
            ("a b", BadHostname::Character(' ')),
            ("ä", BadHostname::Character('ä')),
            ("1.2", BadHostname::Numeric),
        ] {
            assert_eq!(check_hostname(bad), Err(why), "{bad}");
        }
    }
}
