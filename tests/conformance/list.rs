//! Generates the list of deliberate differences from the tests that show them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use testkit::test;

use crate::lines::scenarios;

/// The directory of the scenarios, relative to the package.
const SCENARIOS: &str = "tests/conformance";
/// The path of the list, relative to the package.
const LIST: &str = "man/differences.md";

const PREFACE: &str = "\
# Where ours differs from Postfix's master on purpose

Made from the tests that show the differences: each of them runs under both masters and fails when
there is no difference any more. Do not edit; after a change of the tests say

    MASTER_TEST_REGENERATE=1 cargo test --test conformance list::
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A deliberate difference, with the texts of its test.
struct Difference {
    test: String,
    what: String,
    ours: String,
    original: String,
}

/// The string literal at the beginning of a text, and the rest.
fn literal(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start().strip_prefix('"')?;
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return Some((value, rest.as_str())),
            '\\' => match rest.next()? {
                '\n' => rest = rest.as_str().trim_start().chars(),
                escaped => value.push(escaped),
            },
            other => value.push(other),
        }
    }
}

/// The literal after a field's name.
fn field<'a>(name: &str, text: &'a str) -> Option<(String, &'a str)> {
    literal(text.split_once(name)?.1)
}

/// The name of the last function in a text.
fn last_function(text: &str) -> Option<&str> {
    let (_, after) = text.rsplit_once("\nfn ")?;
    after.split(['(', '<']).next()
}

/// The differences in a file of tests.
fn differences(text: &str) -> Vec<Difference> {
    let calls = text
        .match_indices("differs(\n")
        .chain(text.match_indices("differs(\""));
    let mut calls: Vec<usize> = calls.map(|(at, _)| at).collect();
    calls.sort_unstable();
    let difference = |at: usize| {
        let (what, rest) = literal(text[at..].split_once('(')?.1)?;
        let (ours, rest) = field("ours:", rest)?;
        let (original, _) = field("original:", rest)?;
        let test = last_function(&text[..at])?.to_owned();
        Some(Difference {
            test,
            what,
            ours,
            original,
        })
    };
    let read = calls
        .into_iter()
        .map(|at| difference(at).unwrap_or_else(|| panic!("not literal: {}", &text[at..at + 200])));
    read.collect()
}

/// The expected text of the list.
fn list() -> String {
    let mut list = PREFACE.to_owned();
    for (path, text) in scenarios(SCENARIOS) {
        let differences = differences(&text);
        if differences.is_empty() {
            continue;
        }
        let name = path.with_extension("");
        let name = name.strip_prefix(root().join(SCENARIOS));
        let _ = write!(list, "\n## {}\n", name.expect("a scenario").display());
        for Difference {
            test,
            what,
            ours,
            original,
        } in differences
        {
            let _ = write!(
                list,
                "\n- {what}\n  - Ours: {ours}.\n  - The original: {original}.\n"
            );
            let _ = writeln!(list, "  - Shown by `{test}`.");
        }
    }
    list
}

/// "The list of deliberate differences is generated from the marks."
#[test]
fn the_list_of_differences_is_that_of_the_tests() {
    let path = root().join(LIST);
    let list = list();
    if std::env::var_os("MASTER_TEST_REGENERATE").is_some() {
        fs::write(&path, &list).expect("the list");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let advice = "MASTER_TEST_REGENERATE=1 cargo test --test conformance list:: makes it anew";
    assert!(found == list, "{LIST} is not what the tests say: {advice}");
}
