//! The small services of the Internet.

use crate::common::client::Client;
use crate::common::instance::Instance;
use crate::common::ports::Port;
use crate::common::puppet::service;
use crate::needs_root;

#[test]
fn echo_sends_back_what_comes_over_inet_and_unix() {
    needs_root!("a mail system");
    let port = Port::reserve();
    let mut postfix = Instance::bare();
    postfix.install(&service("echo"), "echo");
    postfix.service(&format!("127.0.0.1:{port} inet n - n - - echo"));
    postfix.service("echo unix n - n - - echo");
    postfix.start();
    let path = postfix.socket("public", "echo");
    for address in [format!("127.0.0.1:{port}"), path.display().to_string()] {
        let mut client = Client::connect(&address);
        client.say("one");
        assert_eq!(client.line(), "one");
        client.say("two");
        assert_eq!(client.line(), "two");
    }
}
