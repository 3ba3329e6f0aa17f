//! The back-off state of services in the status document.

use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::{service, told};
use testkit::poll::until;
use testkit::puppet::Puppets;
use testkit::standalone::Standalone;
use testkit::test;

fn connect(standalone: &Standalone, name: &str) -> Client {
    let socket = standalone.queue().join("public").join(name);
    Client::connect(&socket.to_string_lossy())
}

/// "throttle_next"
#[test]
fn the_status_says_how_long_the_next_failure_throttles() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_toml("[service.\"a/unix\"]\nthrottle_time = \"100s..1h\"\n");
    standalone.write_table("a unix n - - - 5 false\nb unix n - - - 5 false\n");
    standalone.start();
    let a = service(&standalone, "a");
    assert_eq!(a.settings["throttle_time"], "100s..3600s");
    assert_eq!(a.throttle_next, Some(100.0));
    let _clients = ["a", "b"].map(|name| connect(&standalone, name));
    until(SOON, "both to be throttled", || {
        ["a", "b"]
            .iter()
            .all(|name| service(&standalone, name).throttled_until.is_some())
    });
    assert_eq!(service(&standalone, "a").throttle_next, Some(200.0));
    let shown = told(&standalone, &["status", "a"]);
    let line = "  back-off     3 min 20 s after the next failure\n";
    assert!(shown.contains(line), "{shown}");
    // This time is constant, so it is a setting.
    assert_eq!(service(&standalone, "b").throttle_next, None);
    let shown = told(&standalone, &["status", "b"]);
    assert!(!shown.contains("back-off"), "{shown}");
}

/// "recent_clients, recent_crashes"
#[test]
fn the_status_says_of_how_many_clients_the_child_ended_abnormally() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_toml("[service.\"a/unix\"]\ncrash_percent = 50\n");
    let (watched, watched_command) = Puppets::of(&standalone, "a");
    let (other, other_command) = Puppets::of(&standalone, "b");
    standalone.write_table(&format!(
        "a unix n - - - 5 {watched_command}\nb unix n - - - 5 {other_command}\n"
    ));
    standalone.start();
    let recent = |name: &str| {
        let service = service(&standalone, name);
        (service.recent_crashes, service.recent_clients)
    };
    assert_eq!(service(&standalone, "a").settings["crash_percent"], "50");
    assert_eq!(recent("a"), (Some(0), Some(0)));
    for (name, puppets) in [("a", &watched), ("b", &other)] {
        let _client = connect(&standalone, name);
        let mut puppet = puppets.next();
        // One client is served, the next one loses its child.
        puppet.take_client();
        puppet.finish_client();
        let _client = connect(&standalone, name);
        puppet.take_client();
        puppet.wait_until_heard();
        puppet.exit(3);
        let ended = || service(&standalone, name).failed == 1;
        until(SOON, "the child's end to be counted", ended);
    }
    assert_eq!(recent("a"), (Some(1), Some(2)));
    let shown = told(&standalone, &["status", "a"]);
    let line = "  crashes      children ended abnormally with 1 of the last 2 clients\n";
    assert!(shown.contains(line), "{shown}");
    assert_eq!(recent("b"), (None, None));
    let shown = told(&standalone, &["status", "b"]);
    assert!(!shown.contains("crashes"), "{shown}");
}
