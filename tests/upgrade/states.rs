//! The states of released formats, which this version must understand.

use std::fs;
use std::path::Path;

use master::upgrade::{FORMAT, State, unknown_fields};
use testkit::test;

#[test]
fn the_states_of_all_released_formats_are_understood() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/states");
    let mut formats = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("a file").path();
        let text = fs::read(&path).expect("a state");
        let state = State::decode(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
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

/// A state with another text in the place of one.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/states/1.json");
    let text = fs::read_to_string(path).expect("a state");
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
