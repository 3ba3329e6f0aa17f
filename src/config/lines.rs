//! Logical lines, which `main.cf` and `master.cf` share: a line that begins with white space
//! continues the one before, also across comments and blank lines (postconf(5)).

use std::path::Path;
use std::rc::Rc;

use super::characters::is_utf16;
use super::diagnostic::count;
use super::text::{Text, is_space, shown};
use super::{Diagnostic, Diagnostics, Position, Source};

/// The logical lines of a file, without comments and blank lines.
///
/// Line ends are removed without replacement. As in Postfix, a continuation at the start of the
/// file is ignored with a warning, and so is text after a null byte.
pub(super) fn logical_lines(source: &Source, findings: &mut Diagnostics) -> Vec<Text> {
    let path: Rc<Path> = Rc::from(source.path.as_path());
    if is_utf16(&source.text) {
        let place = Text::new(path).place(0);
        findings.push(Diagnostic::error(
            place,
            "the file is in UTF-16: expected UTF-8",
        ));
        return Vec::new();
    }
    let mut orphan = Text::new(Rc::clone(&path));
    let mut lines: Vec<Text> = Vec::new();
    for (n, physical) in source.text.split(|&b| b == b'\n').enumerate() {
        if is_comment_or_blank(physical) {
            continue;
        }
        if !is_space(physical[0]) {
            lines.push(Text::new(Rc::clone(&path)));
        }
        let position = Position {
            line: count(n + 1),
            column: 1,
        };
        let line = lines.last_mut().unwrap_or(&mut orphan);
        line.append(physical, position);
    }
    warn_of_orphan(&orphan, findings);
    for line in &mut lines {
        cut_at_null(line, findings);
    }
    lines
}

fn is_comment_or_blank(physical: &[u8]) -> bool {
    let first = physical.iter().find(|&&b| !is_space(b));
    matches!(first, None | Some(b'#'))
}

fn warn_of_orphan(orphan: &Text, findings: &mut Diagnostics) {
    if orphan.bytes().is_empty() {
        return;
    }
    let message = format!(
        "logical line must not start with whitespace: \"{}\": ignoring it",
        shown(orphan.bytes())
    );
    findings.push(Diagnostic::warning(orphan.place(0), message));
}

fn cut_at_null(line: &mut Text, findings: &mut Diagnostics) {
    if let Some(at) = line.bytes().iter().position(|&b| b == 0) {
        let message = "ignoring text after null byte";
        findings.push(Diagnostic::warning(line.place(at), message));
        *line = line.slice(0..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> (Vec<String>, Vec<String>) {
        let source = Source {
            path: "f".into(),
            text: text.to_vec(),
        };
        let mut findings = Diagnostics::default();
        let lines = logical_lines(&source, &mut findings)
            .iter()
            .map(|line| String::from_utf8_lossy(line.bytes()).into_owned())
            .collect();
        (lines, findings.0.iter().map(ToString::to_string).collect())
    }

    fn lines(text: &[u8]) -> Vec<String> {
        let (lines, warnings) = read(text);
        assert_eq!(warnings, Vec::<String>::new());
        lines
    }

    #[test]
    fn comments_and_blank_lines_are_no_text() {
        assert_eq!(lines(b"# c\n\n \t\na\n  # c\nb\n"), ["a", "b"]);
    }

    #[test]
    fn white_space_continues_a_line() {
        assert_eq!(lines(b"a =\n b\n\tc\nd\n"), ["a = b\tc", "d"]);
    }

    #[test]
    fn comments_and_blank_lines_do_not_end_a_line() {
        assert_eq!(lines(b"a\n# c\n\n  # c\n b\n"), ["a b"]);
    }

    #[test]
    fn the_last_newline_may_be_missing() {
        assert_eq!(lines(b"a\n b"), ["a b"]);
    }

    #[test]
    fn a_number_sign_inside_a_line_is_text() {
        assert_eq!(lines(b"a # b\n"), ["a # b"]);
    }

    #[test]
    fn a_continuation_of_nothing_is_ignored_with_a_warning() {
        let (lines, warnings) = read(b"\n  x\n  y\na\n");
        assert_eq!(lines, ["a"]);
        assert_eq!(
            warnings,
            [
                "f: line 2: column 1: logical line must not start with whitespace: \"  x  y\": \
                 ignoring it"
            ]
        );
    }

    #[test]
    fn text_after_a_null_byte_is_ignored_with_a_warning() {
        let (lines, warnings) = read(b"a\n b\0c\n d\ne\n");
        assert_eq!(lines, ["a b", "e"]);
        assert_eq!(
            warnings,
            ["f: line 2: column 3: ignoring text after null byte"]
        );
    }

    #[test]
    fn a_null_byte_in_a_comment_is_harmless() {
        assert_eq!(lines(b"#\0\na\n"), ["a"]);
    }
}
