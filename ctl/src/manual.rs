//! Tests that masterctl(1) lists exactly the commands, options, exit statuses and fields that
//! exist.

use std::collections::BTreeSet;

use clap::CommandFactory;
use master::output::OUTPUT_FAILED;
use master::status::{Child, Failure, Reload, State, Template, TemplateState};
use serde_json::Value;

use crate::arguments::Arguments;
use crate::failure::Status;
use crate::testing::document;

const PAGE: &str = include_str!("../../man/masterctl.1");

/// The lines of a section.
fn section(title: &str) -> Vec<&'static str> {
    let head = format!(".Sh {title}");
    let lines = PAGE.lines().skip_while(|line| *line != head).skip(1);
    lines.take_while(|line| !line.starts_with(".Sh ")).collect()
}

/// The first words of list items, which follow the macro `mark`, without punctuation.
fn items<'a>(lines: &[&'a str], mark: &str) -> BTreeSet<&'a str> {
    let items = lines.iter().filter_map(|line| line.strip_prefix(mark));
    let words = items.flat_map(str::split_whitespace);
    words.filter(|word| *word != ",").collect()
}

/// Collects the keys of all objects.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                found.insert(key.clone());
                // The keys of `settings` are parameters, which are described elsewhere.
                if key != "settings" {
                    keys(value, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_manual_has_every_command() {
    let command = Arguments::command();
    let commands: BTreeSet<&str> = command.get_subcommands().map(|c| c.get_name()).collect();
    let lines = section("DESCRIPTION");
    let marks = lines.iter().filter_map(|line| line.strip_prefix(".It Cm "));
    let named: BTreeSet<&str> = marks.filter_map(|rest| rest.split(' ').next()).collect();
    assert_eq!(named, commands);
}

#[test]
fn the_synopsis_has_every_command() {
    let command = Arguments::command();
    let lines = section("SYNOPSIS");
    let marks = lines.iter().filter_map(|line| line.strip_prefix(".Cm "));
    let named: BTreeSet<&str> = marks.flat_map(|words| words.split(" | ")).collect();
    for name in command.get_subcommands().map(|c| c.get_name()) {
        assert!(named.contains(name), "{name}");
    }
}

#[test]
fn the_manual_has_every_option() {
    let command = Arguments::command();
    let commands = std::iter::once(&command).chain(command.get_subcommands());
    for option in commands.flat_map(|command| command.get_arguments()) {
        let long = option.get_long().map(|name| format!("Fl -{name}"));
        let short = option.get_short().map(|name| format!("Fl {name}"));
        for name in long.iter().chain(&short) {
            assert!(PAGE.contains(name.as_str()), "{name}");
        }
    }
}

#[test]
fn the_manual_has_every_field_of_the_document() {
    let mut document = document("a unix - - - 60 5 a\n");
    document.last_reload = Some(Reload {
        time: 0.0,
        succeeded: true,
        findings: Vec::new(),
    });
    document.services[0].children.push(Child {
        pid: 1,
        generation: 1,
        state: State::Busy,
        uses: 0,
        age: 0.0,
    });
    document.services[0].templates.push(Template {
        pid: 2,
        state: TemplateState::Ready,
        age: 0.0,
        forked: 0,
        due: None,
        shared: None,
        private: None,
    });
    document.services[0].template_failure = Some(Failure {
        time: 0.0,
        reason: String::new(),
    });
    let mut fields = BTreeSet::new();
    let value = serde_json::to_value(&document).expect("text and numbers");
    keys(&value, &mut fields);
    let lines = section("STATUS DOCUMENT");
    let mut named = items(&lines, ".It Va ");
    // The fields of a reload are described in its own paragraph.
    let inside = ["time", "succeeded", "findings", "reason"];
    let text = lines.join("\n");
    assert!(
        inside
            .iter()
            .all(|name| text.contains(&format!("Va {name}")))
    );
    named.extend(inside);
    let fields: BTreeSet<&str> = fields.iter().map(String::as_str).collect();
    assert_eq!(named, fields);
}

#[test]
fn the_manual_has_every_exit_status() {
    let own = [
        Status::NoMaster,
        Status::WrongDirectory,
        Status::Forbidden,
        Status::UnknownService,
        Status::Gone,
        Status::Refused,
    ];
    let numbers: Vec<String> = [0, 1, 2, OUTPUT_FAILED]
        .into_iter()
        .chain(own.map(|status| status as u8))
        .map(|n| n.to_string())
        .collect();
    let lines = section("EXIT STATUS");
    let named = items(&lines, ".It ");
    assert_eq!(named, numbers.iter().map(String::as_str).collect());
}
