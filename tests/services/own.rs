//! The programs do not need our master: they run under Postfix's as well.

use testkit::client::Client;
use testkit::programs::service;
use testkit::{needs_root, original, test, under_test};

use crate::stage::Stage;

#[test]
fn a_service_runs_under_postfixes_own_master() {
    needs_root("a mail system");
    let mut stage = Stage::under(&original(), "echo", "-", "");
    stage.service("echo unix n - n - - echo");
    stage.reload();
    let path = stage.socket("public", "echo").display().to_string();
    let mut clients = [stage.address(), path].map(|address| Client::connect(&address));
    for client in &mut clients {
        client.say("hello");
        assert_eq!(client.line(), "hello");
    }
    assert_eq!(stage.processes().len(), 2);
    // When they are told to leave, they serve their current clients to the end.
    stage.reload();
    for client in &mut clients {
        client.say("still here");
        assert_eq!(client.line(), "still here");
    }
    drop(clients);
    crate::limits::wait_until_gone(&stage);
    assert_eq!(stage.log_lines("warning: "), [""; 0]);
}

#[test]
fn a_program_may_lie_in_a_directory_beside_the_distributions_own() {
    needs_root("a mail system");
    for master in [original(), under_test()] {
        let mut stage = Stage::under(&master, "echo", "-", "");
        std::fs::create_dir(stage.daemons().join("services")).expect("a directory");
        stage.install(&service("discard"), "services/discard");
        stage.service("discard unix n - n - - services/discard -v");
        stage.reload();
        let path = stage.socket("public", "discard");
        let mut client = Client::connect(&path.display().to_string());
        client.say("hello");
        stage.wait_for_log("postfix/discard[");
        drop(client);
    }
}
