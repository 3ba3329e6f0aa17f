//! JSON log lines: a line about a service has fields that name it.

use std::fs;

use serde_json::Value;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::{masterctl, told};
use testkit::poll::until;
use testkit::standalone::Standalone;
use testkit::test;

/// The first log line that contains these words, parsed.
#[track_caller]
fn object(standalone: &mut Standalone, words: &str) -> Value {
    let line = until(SOON, format_args!("{words:?}"), || {
        let said = standalone.said();
        // A line is complete when its newline is there.
        let mut lines = said
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines.find(|line| line.contains(words)).map(str::to_owned)
    });
    serde_json::from_str(&line).expect("an object")
}

/// "where it is about one, with service, type and child"
#[test]
fn a_line_about_a_service_says_about_which() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_toml("log_format = \"json\"\n");
    standalone.write_table(
        "gone unix n - - - 5 /no/such/program\nlost unix n - - - 5 true\nidle unix n - - - 5 true\n",
    );
    standalone.start();
    let socket = |name: &str| standalone.queue().join("public").join(name);
    let _client = Client::connect(&socket("gone").to_string_lossy());
    fs::remove_file(socket("lost")).expect("a socket");
    told(&standalone, &["wake", "lost"]);
    told(&standalone, &["pause", "idle"]);
    masterctl(&standalone, &["wake", "idle"]);
    for (words, service) in [
        ("exec /no/such/program: ", "gone"),
        ("cannot be woken up: ", "lost"),
        ("wake up service \\\"lost\\\" (public/lost): done", "lost"),
        ("pause service \\\"idle\\\" (public/idle): done", "idle"),
        ("(public/idle): refused to uid ", "idle"),
    ] {
        let line = object(&mut standalone, words);
        let about = (&line["service"], &line["type"]);
        assert_eq!(about, (&service.into(), &"unix".into()), "{line}");
        assert_eq!(line["child"].is_i64(), words.starts_with("exec "), "{line}");
    }
    // A line about the master has no service.
    let line = object(&mut standalone, "daemon started -- version ");
    assert_eq!(line["service"], Value::Null, "{line}");
}
