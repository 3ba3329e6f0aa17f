//! Numbers and times in human-readable form.

/// `1 child`, `2 children`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    }
}

/// A duration in its two largest units: `3 d 4 h`.
pub fn time(seconds: f64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let whole = seconds.max(0.0).round() as u64;
    let (mut rest, mut parts) = (whole, Vec::new());
    for (length, unit) in UNITS {
        if rest >= length && parts.len() < 2 {
            parts.push(format!("{} {unit}", rest / length));
            rest %= length;
        } else if !parts.is_empty() {
            break;
        }
    }
    if parts.is_empty() {
        "0 s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// A number in at most `width` characters: the last digits are replaced by a unit, such as `k`.
pub fn number(n: u64, width: usize) -> String {
    let mut shown = n.to_string();
    let mut rest = n;
    for unit in ["k", "M", "G", "T", "P", "E"] {
        if shown.len() <= width {
            break;
        }
        rest /= 1000;
        shown = format!("{rest}{unit}");
    }
    shown
}

/// An amount of memory with a unit.
pub fn memory(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} K", bytes >> 10),
        _ => format!("{} M", bytes >> 20),
    }
}

/// A text without control characters, in at most `width` characters. It is cut in the middle,
/// because names often have equal beginnings and addresses equal ends.
pub fn cut(text: &str, width: usize) -> String {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    let characters: Vec<char> = text.chars().map(clean).collect();
    if characters.len() <= width {
        return characters.into_iter().collect();
    }
    let end = (width - 1) / 2;
    let (start, end) = (width - 1 - end, characters.len() - end);
    let parts = [&characters[..start], &['~'], &characters[end..]];
    parts.concat().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units() {
        for (seconds, words) in [
            (0.2, "0 s"),
            (59.6, "1 min"),
            (61.0, "1 min 1 s"),
            (3601.0, "1 h"),
            (273_600.0, "3 d 4 h"),
            (-5.0, "0 s"),
        ] {
            assert_eq!(time(seconds), words);
        }
    }

    #[test]
    fn numbers_find_room() {
        for (n, width, words) in [
            (99_999, 5, "99999"),
            (100_000, 5, "100k"),
            (12_345_678, 5, "12M"),
            (u64::MAX, 5, "18E"),
        ] {
            assert_eq!(number(n, width), words);
        }
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!(cut("short", 9), "short");
        assert_eq!(cut("abcdefghijkl", 9), "abcd~ijkl");
        assert_eq!(cut("a\x1b[31m", 9), "a?[31m");
    }
}
