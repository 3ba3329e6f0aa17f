//! Shows findings in files, each with its line and a caret below the position.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use master::config::{Diagnostic, Position, Severity, is_invisible};
use ratatui::text::Span;

/// Longer lines are shown in part; in characters.
const WIDTH: usize = 100;

/// Shows findings. Caches the files that they refer to.
#[derive(Debug, Default)]
pub struct Findings {
    files: HashMap<PathBuf, Vec<String>>,
}

impl Findings {
    /// Shows one finding.
    ///
    /// # Errors
    /// The output fails.
    pub fn show(&mut self, finding: &Diagnostic, out: &mut impl Write) -> io::Result<()> {
        let severity = match finding.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let path = finding.path.display();
        let Some(position) = finding.position else {
            return writeln!(out, "{severity}: {path}: {}\n", finding.message);
        };
        let Position { line, column } = position;
        writeln!(
            out,
            "{severity}: {path}: line {line}: column {column}: {}",
            finding.message
        )?;
        if let Some(text) = self.line(&finding.path, line) {
            show_place(text, position, out)?;
        }
        writeln!(out)
    }

    fn line(&mut self, path: &Path, number: u32) -> Option<&str> {
        let lines = self.files.entry(path.to_owned()).or_insert_with(|| {
            // The file was read a moment ago; if it cannot be read now, the line is not shown.
            let text = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            // TOML allows this mark, and it has no column.
            let is_toml = path
                .extension()
                .is_some_and(|extension| extension == "toml");
            let text = match text.strip_prefix('\u{feff}') {
                Some(text) if is_toml => text,
                _ => &text,
            };
            text.lines().map(str::to_owned).collect()
        });
        lines.get(number as usize - 1).map(String::as_str)
    }
}

/// The file's line with its number, and the caret.
fn show_place(
    text: &str,
    Position { line, column }: Position,
    out: &mut impl Write,
) -> io::Result<()> {
    let before = column as usize - 1;
    // If the position is far to the right, only the text around it is shown.
    let start = before.saturating_sub(WIDTH * 3 / 4);
    let visible = |c: char| match c {
        c if c.is_control() => ' ',
        c if is_invisible(c) => '\u{fffd}',
        c => c,
    };
    let shown: String = text.chars().skip(start).take(WIDTH).map(visible).collect();
    let margin = format!("{line:>5} | ");
    writeln!(out, "{margin}{}", shown.trim_end())?;
    let indent = margin.len() - 2;
    // A character may have no or two columns of the terminal.
    let left: String = shown.chars().take(before - start).collect();
    let place = Span::raw(left).width();
    writeln!(out, "{:indent$}| {:place$}^", "", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: u32, column: u32) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("master.cf");
        fs::write(&path, text).expect("a file");
        let finding = Diagnostic {
            severity: Severity::Error,
            path: path.clone(),
            position: Some(Position { line, column }),
            message: "wrong".to_owned(),
        };
        let mut out = Vec::new();
        let mut findings = Findings::default();
        findings
            .show(&finding, &mut out)
            .expect("a vector takes all");
        let out = String::from_utf8(out).expect("text");
        out.replace(&path.display().to_string(), "FILE")
    }

    #[test]
    fn a_finding_is_shown_with_its_line_and_a_caret() {
        assert_eq!(
            shown("# x\nsmtp tcp n\n", 2, 6),
            "error: FILE: line 2: column 6: wrong\n\
             \x20   2 | smtp tcp n\n\
             \x20     |      ^\n\n"
        );
    }

    #[test]
    fn tabs_and_control_characters_do_not_move_the_caret() {
        assert!(shown("a\tb\x1b[31mc\n", 1, 3).contains("    1 | a b [31mc\n      |   ^\n"));
    }

    #[test]
    fn the_caret_is_below_its_character_whatever_the_width_of_those_before() {
        // Two columns each; then none, because the mark is on the letter before it.
        assert!(shown("\u{4e2d}\u{6587} x\n", 1, 4).ends_with("\n      |      ^\n\n"));
        assert!(shown("e\u{301} x\n", 1, 4).ends_with("\n      |   ^\n\n"));
        // What cannot be seen is shown.
        let text = shown("a\u{a0}\u{200b}b\n", 1, 3);
        assert!(
            text.contains("    1 | a\u{fffd}\u{fffd}b\n      |   ^\n"),
            "{text}"
        );
    }

    #[test]
    fn of_a_long_line_the_place_is_shown() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = shown(&line, 1, 501);
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[1].len() < 120, "{shown}");
        let caret = lines[2].find('^').expect("a caret");
        assert_eq!(&lines[1][caret..=caret], "X");
    }

    #[test]
    fn a_line_that_is_gone_is_left_out() {
        assert_eq!(shown("", 7, 1), "error: FILE: line 7: column 1: wrong\n\n");
    }
}
