//! Numbers in Postfix's syntax, which is that of `strtol(3)`: leading white space and a sign are
//! allowed.

use std::fmt;

use super::text::{is_space, shown};

/// The number at the start of `text`, and the rest; `None` if there is no number or it does not fit
/// into an `i64`.
fn leading_number(text: &[u8]) -> Option<(i64, &[u8])> {
    let skip = text.iter().take_while(|&&b| is_space(b)).count();
    let sign = usize::from(matches!(text.get(skip), Some(b'-' | b'+')));
    let digits = text[skip + sign..]
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    if digits == 0 {
        return None;
    }
    let (number, rest) = text.split_at(skip + sign + digits);
    let number = std::str::from_utf8(&number[skip..]).ok()?;
    Some((number.parse().ok()?, rest))
}

/// Reads all of `text` as a C `int` (Postfix, `mail_conf_int.c`).
pub(super) fn integer(text: &[u8]) -> Option<i32> {
    match leading_number(text)? {
        (number, []) => i32::try_from(number).ok(),
        _ => None,
    }
}

/// Reads `text`, a string of digits.
pub(super) fn digits(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `yes` or `no`, as in Postfix (`mail_conf_bool.c`), or `true` or `false`, as in TOML.
pub(super) fn boolean(text: &[u8]) -> Option<bool> {
    match text.to_ascii_lowercase().as_slice() {
        b"yes" | b"true" => Some(true),
        b"no" | b"false" => Some(false),
        _ => None,
    }
}

/// Whether `text` is a non-empty string of digits.
pub(super) fn is_digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// A time in seconds: a number with an optional unit s, m, h, d or w; the default is s. As in
/// Postfix (`conv_time.c`), text after the unit is ignored.
pub(super) fn seconds(text: &[u8]) -> Option<i32> {
    let (number, rest) = leading_number(text)?;
    let unit: i32 = match rest.first() {
        None | Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 60 * 60,
        Some(b'd') => 24 * 60 * 60,
        Some(b'w') => 7 * 24 * 60 * 60,
        Some(_) => return None,
    };
    let number = i32::try_from(number).ok().filter(|n| *n >= 0)?;
    number.checked_mul(unit)
}

/// A compatibility level: `major`, `major.minor` or `major.minor.patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level([i64; 3]);

/// A text that is not a compatibility level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadLevel(String);

impl fmt::Display for BadLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "malformed compatibility level syntax: \"{}\": expected \"major\", \"major.minor\" \
             or \"major.minor.patch\"",
            self.0
        )
    }
}

impl Level {
    /// From this level on, services are not chrooted by default.
    pub(super) const ONE: Self = Self([1, 0, 0]);
    /// Postfix packs the three numbers into one integer, with 10 bits for each of the last two.
    const LIMITS: [i64; 3] = [i64::MAX >> 20, 0x3ff, 0x3ff];

    /// Reads a level (Postfix, `compat_level.c`).
    ///
    /// # Errors
    /// The text is not a compatibility level.
    pub(super) fn parse(text: &[u8]) -> Result<Self, BadLevel> {
        Self::numbers(text).ok_or_else(|| BadLevel(shown(text)))
    }

    fn numbers(text: &[u8]) -> Option<Self> {
        let mut level = [0; 3];
        let mut rest = text;
        for (number, limit) in level.iter_mut().zip(Self::LIMITS) {
            let (value, after) = leading_number(rest)?;
            if after.len() == rest.len() || !(0..=limit).contains(&value) {
                return None;
            }
            *number = value;
            match after.split_first() {
                None => return Some(Self(level)),
                Some((b'.', after)) => rest = after,
                Some(_) => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_all_of_its_text() {
        assert_eq!(integer(b"100"), Some(100));
        assert_eq!(integer(b"-1"), Some(-1));
        assert_eq!(integer(b"+1"), Some(1));
        for bad in ["", "x", "1x", "1 ", "-", "1.0", "0x10"] {
            assert_eq!(integer(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn an_integer_has_32_bits() {
        assert_eq!(integer(b"2147483647"), Some(i32::MAX));
        assert_eq!(integer(b"2147483648"), None);
        assert_eq!(integer(b"99999999999999999999"), None);
    }

    #[test]
    fn a_time_has_a_unit_and_seconds_are_the_default() {
        assert_eq!(seconds(b"60"), Some(60));
        assert_eq!(seconds(b"60s"), Some(60));
        assert_eq!(seconds(b"2m"), Some(120));
        assert_eq!(seconds(b"2h"), Some(7200));
        assert_eq!(seconds(b"1d"), Some(86_400));
        assert_eq!(seconds(b"1w"), Some(604_800));
        for bad in ["", "x", "1x", "-1s", "1 s", "1S"] {
            assert_eq!(seconds(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_time_must_not_overflow() {
        assert_eq!(seconds(b"3550w"), Some(3550 * 604_800));
        assert_eq!(seconds(b"3551w"), None);
        assert_eq!(seconds(b"2147483648"), None);
    }

    #[test]
    fn levels_compare_by_their_numbers() {
        let level = |text: &str| Level::parse(text.as_bytes()).ok();
        assert!(level("3.10") > level("3.9"));
        assert!(level("3.6") == level("3.6.0"));
        assert!(level("1") == Some(Level::ONE));
        assert!(level("0.9") < Some(Level::ONE));
        for bad in ["", "x", "3.", ".3", "3.6x", "3.1024", "1.2.3.4", "-1"] {
            assert_eq!(level(bad), None, "{bad}");
        }
    }
}
