//! What errors are called in messages: one place for the words.

use std::io;

/// The largest errno value of Linux (include/linux/err.h, `MAX_ERRNO`).
const ERRNO_MAX: i32 = 4095;
/// Linux's numbers, the same on every architecture (include/uapi/asm-generic/errno-base.h).
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// An error and its causes, separated by colons. The system's errors come without the number that the
/// standard library adds, and with advice where they have one meaning only.
pub fn describe_error(error: &(dyn std::error::Error + 'static)) -> String {
    let number = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error);
    let words = number.map_or_else(|| error.to_string(), describe_errno);
    match error.source() {
        Some(source) => format!("{words}: {}", describe_error(source)),
        None => words,
    }
}

/// The system's words for an error number, with advice where it has one meaning only.
pub fn describe_errno(number: i32) -> String {
    if !(1..=ERRNO_MAX).contains(&number) {
        return format!("unknown error {number}");
    }
    let mut words = io::Error::from_raw_os_error(number).to_string();
    let end = words.find(" (os error ").unwrap_or(words.len());
    words.truncate(end);
    words.push_str(advice(number));
    words
}

/// What to do about an error of the system, wherever it turns up.
fn advice(number: i32) -> &'static str {
    match number {
        EMFILE => ": raise the limit on descriptors (\"ulimit -n\", LimitNOFILE of a systemd unit)",
        ENFILE => ": raise fs.file-max with sysctl(8)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_is_told_with_its_cause_and_without_a_number() {
        let missing = Err::<(), _>(io::Error::from_raw_os_error(2));
        let error = missing.context("open /x").unwrap_err();
        assert_eq!(
            describe_error(error.as_ref()),
            "open /x: No such file or directory"
        );
    }

    #[test]
    fn what_has_one_remedy_comes_with_it() {
        assert!(describe_errno(EMFILE).ends_with("LimitNOFILE of a systemd unit)"));
        assert!(describe_errno(ENFILE).ends_with("sysctl(8)"));
    }

    #[test]
    fn a_number_that_is_no_error_has_words_too() {
        assert_eq!(describe_errno(0), "unknown error 0");
        assert_eq!(describe_errno(-1), "unknown error -1");
    }
}
