//! The small Internet services.

use testkit::client::Client;
use testkit::{needs_root, test};

use crate::stage::Stage;

#[test]
fn echo_sends_back_what_comes_over_inet_and_unix() {
    needs_root("a mail system");
    let mut stage = Stage::new("echo", "-", "");
    stage.service("echo unix n - n - - echo");
    stage.reload();
    let path = stage.socket("public", "echo");
    for address in [stage.address(), path.display().to_string()] {
        let mut client = Client::connect(&address);
        client.say("one");
        assert_eq!(client.line(), "one");
        client.say("two");
        assert_eq!(client.line(), "two");
    }
}

#[test]
fn echo_sends_back_all_before_it_closes() {
    needs_root("a mail system");
    let stage = Stage::new("echo", "-", "");
    let text = "0123456789".repeat(10_000);
    assert_eq!(stage.ask(&text), text);
}

#[test]
fn echo_lets_a_silent_client_go() {
    needs_root("a mail system");
    let stage = Stage::new("echo", "-", "-o echo_timeout=1s");
    let mut client = Client::connect(&stage.address());
    client.wait_for_end();
    stage.wait_for_log("lost connection with 127.0.0.1:");
}

#[test]
fn discard_says_nothing() {
    needs_root("a mail system");
    let stage = Stage::new("discard", "-", "");
    assert_eq!(stage.ask(&"0123456789".repeat(10_000)), "");
}

#[test]
fn daytime_says_the_date_in_utc() {
    needs_root("a mail system");
    let stage = Stage::new("daytime", "-", "");
    let said = stage.ask("");
    assert!(said.ends_with("-UTC\r\n"), "{said:?}");
    let year = said.split(' ').nth(3).and_then(|year| year.parse().ok());
    assert!(year.is_some_and(|year: u32| year >= 2026), "{said:?}");
}
