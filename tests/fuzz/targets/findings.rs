//! Requirements for the findings of any configuration.

use super::{Base, Config, Diagnostic, Diagnostics, Severity, Source, Sources};

/// Reads a configuration. Checks that a failure has an error, and that every finding points into
/// its file.
pub fn parse(sources: &Sources) -> Result<Config, Diagnostics> {
    let result = Config::parse(sources, &super::testing::FakeSystem::default());
    let findings = match &result {
        Ok(config) => &config.warnings,
        Err(diagnostics) => &diagnostics.0,
    };
    let is_error = |finding: &Diagnostic| finding.severity == Severity::Error;
    assert_eq!(findings.iter().any(is_error), result.is_err());
    for finding in findings {
        assert!(points_into(sources, finding), "{finding}");
    }
    result
}

/// A finding about a whole file may concern a missing file.
fn points_into(sources: &Sources, finding: &Diagnostic) -> bool {
    let Some(at) = finding.position else {
        return true;
    };
    let main_cf = match &sources.base {
        Base::Postfix(main_cf) => Some(main_cf),
        Base::StandAlone(_) => None,
    };
    let mut files = [
        main_cf,
        Some(&sources.master_cf),
        sources.master_toml.as_ref(),
    ]
    .into_iter()
    .flatten();
    let file = files.find(|file| file.path == finding.path);
    file.is_some_and(|file| is_inside(file, at.line, at.column))
}

/// The end of a line is inside, too: findings about missing text point there.
fn is_inside(file: &Source, line: u32, column: u32) -> bool {
    let mut lines = file.text.split(|&byte| byte == b'\n');
    let line = lines.nth((line as usize).wrapping_sub(1));
    line.is_some_and(|line| (1..=line.len() + 1).contains(&(column as usize)))
}
