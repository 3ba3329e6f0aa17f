//! The states of released formats, which this version must understand. `1.json` is the oldest of
//! format 1; `1-full.json` has an example of each field.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use master::upgrade::{FORMAT, State, Unfit};
use serde_json::{Map, Value};
use testkit::test;

#[test]
fn the_states_of_all_released_formats_are_understood() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/states");
    let mut formats = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("a file").path();
        let text = fs::read(&path).expect("a state");
        let rule = "see \"The state of an upgrade\" in CONTRIBUTING.md";
        let state = State::decode(&text);
        let state = state.unwrap_or_else(|why| panic!("{}: {why}: {rule}", path.display()));
        state
            .check()
            .unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        assert_eq!(unknown_fields(&text), Ok(Vec::new()), "{}", path.display());
        formats.push(state.format);
    }
    formats.sort_unstable();
    formats.dedup();
    assert_eq!(formats, (1..=FORMAT).collect::<Vec<_>>());
}

/// The fields of a document that this program does not know.
fn unknown_fields(text: &[u8]) -> Result<Vec<String>, Unfit> {
    State::decode(text)?.unknown_fields(text)
}

/// The text of a state.
fn read(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/states");
    fs::read_to_string(directory.join(name)).expect("a state")
}

/// A state with another text in the place of one.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let text = read("1.json");
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn the_state_of_a_later_program_is_refused_as_a_downgrade() {
    let later = changed("\"format\":1", "\"format\":2");
    let why = State::decode(&later).expect_err("it is later").to_string();
    assert!(why.contains("has format 2"), "{why}");
    assert!(why.contains("it is an older program"), "{why}");
}

#[test]
fn fields_that_are_not_known_are_named() {
    let more = changed("\"format\":1", "\"format\":1,\"colour\":\"red\"");
    assert_eq!(unknown_fields(&more), Ok(vec!["colour".to_owned()]));
    let more = changed("\"history\":{", "\"history\":{\"epoch\":7,");
    assert_eq!(unknown_fields(&more), Ok(vec!["history.epoch".to_owned()]));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let error = |text: &[u8]| State::decode(text).map(|state| state.check().map(drop));
    assert!(error(b"").is_err());
    assert!(error(b"{}").is_err());
    assert!(error(b"[1]").is_err());
    for (from, to) in [
        ("\"free\":[", "\"free\":[77"),
        ("\"in_force\":[", "\"in_force\":[999,"),
    ] {
        let state = State::decode(&changed(from, to)).expect("a document");
        assert!(state.check().is_err(), "{to}");
    }
    let late = changed("\"secs\":", "\"secs\":9999999999999");
    assert!(unknown_fields(&late).is_err());
}

fn document(name: &str) -> Value {
    serde_json::from_str(&read(name)).expect("a document")
}

/// Calls `visit` with each object of a document that has fields, and with its place, in which elements
/// of arrays are alike.
fn for_each_object(
    value: &mut Value,
    place: &str,
    visit: &mut impl FnMut(&str, &mut Map<String, Value>),
) {
    match value {
        Value::Object(fields) => {
            // Of an enumeration, the only name is that of the variant. The library has its own form of
            // a time.
            let mut names = fields.keys();
            let is_variant = fields.len() == 1
                && names.all(|name| name.contains('-') || name.starts_with(char::is_uppercase));
            if !is_variant && !fields.contains_key("secs") {
                visit(place, fields);
            }
            for (name, value) in fields {
                for_each_object(value, &format!("{place}.{name}"), visit);
            }
        }
        Value::Array(values) => {
            values
                .iter_mut()
                .for_each(|value| for_each_object(value, place, visit));
        }
        _ => {}
    }
}

/// The places of all objects, and the names of their fields; whether one has a value.
fn fields(mut document: Value) -> BTreeMap<String, BTreeMap<String, bool>> {
    let mut all: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for_each_object(&mut document, "", &mut |place, fields| {
        let known = all.entry(place.to_owned()).or_default();
        for (name, value) in fields {
            let is_empty = match value {
                Value::Null => true,
                Value::Array(values) => values.is_empty(),
                Value::String(text) => text.is_empty(),
                _ => false,
            };
            *known.entry(name.clone()).or_default() |= !is_empty;
        }
    });
    all
}

/// A document that `change` has changed at one place, as text.
fn changed_at(
    document: &Value,
    at: &str,
    mut change: impl FnMut(&mut Map<String, Value>),
) -> Vec<u8> {
    let mut document = document.clone();
    for_each_object(&mut document, "", &mut |place, fields| {
        if place == at {
            change(fields);
        }
    });
    document.to_string().into_bytes()
}

#[test]
fn a_state_without_any_of_the_newer_fields_is_understood() {
    let (old, new) = (fields(document("1.json")), document("1-full.json"));
    let mut newer = BTreeSet::new();
    for (place, names) in fields(new.clone()) {
        let Some(old) = old.get(&place) else {
            // The object itself is newer.
            continue;
        };
        newer.extend(
            names
                .into_keys()
                .filter(|name| !old.contains_key(name))
                .map(|name| (place.clone(), name)),
        );
    }
    assert!(newer.contains(&(
        ".table.services.children".to_owned(),
        "recycle_at".to_owned()
    )));
    for (place, name) in newer {
        let without = changed_at(&new, &place, |fields| drop(fields.remove(&name)));
        let understood = State::decode(&without).and_then(|state| state.check().map(drop));
        assert_eq!(understood, Ok(()), "without {place}.{name}");
    }
}

#[test]
fn a_field_of_a_later_version_is_named_wherever_it_is_and_one_of_a_sandbox_is_refused() {
    let document = document("1-full.json");
    for place in fields(document.clone()).into_keys() {
        let more = changed_at(&document, &place, |fields| {
            fields.insert("later".to_owned(), Value::Bool(true));
        });
        match unknown_fields(&more) {
            Ok(names) => {
                let name = format!("{place}.later");
                assert_eq!(names, [name.trim_start_matches('.')]);
                assert!(
                    State::decode(&more).is_ok_and(|state| state.check().is_ok()),
                    "{place}"
                );
            }
            // No child may lose a restriction because a program does not know it.
            Err(why) => {
                assert!(place.contains(".extra.sandbox"), "{place}: {why}");
                assert!(why.to_string().contains("`later`"), "{place}: {why}");
            }
        }
    }
}

#[test]
fn each_field_of_the_state_has_an_example() {
    let given = fields(document("1-full.json"));
    let state = State::decode(read("1-full.json").as_bytes()).expect("a state");
    let written = state.encode().expect("a document");
    let written = serde_json::from_slice(&written).expect("a document");
    let mut missing = Vec::new();
    for (place, names) in fields(written) {
        let given = given.get(&place);
        let names = names.into_keys();
        let names = names.filter(|name| given.is_none_or(|given| given.get(name) != Some(&true)));
        missing.extend(names.map(|name| format!("{place}.{name}")));
    }
    assert!(
        missing.is_empty(),
        "tests/upgrade/states/1-full.json has no example of {missing:?}"
    );
}
