//! Children do not have to wait for their master: they run under Postfix's as well.

use crate::common::client::Client;
use crate::common::original;
use crate::needs_root;
use crate::stage::Stage;

#[test]
fn a_service_runs_under_postfixes_own_master() {
    needs_root!("a mail system");
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
    // Told to leave, they serve to the end those whom they have.
    stage.reload();
    for client in &mut clients {
        client.say("still here");
        assert_eq!(client.line(), "still here");
    }
    drop(clients);
    crate::limits::wait_until_gone(&stage);
    assert_eq!(stage.log_lines("warning: "), [""; 0]);
}
