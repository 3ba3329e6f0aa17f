//! Changes of a running system.

use std::time::Duration;

use testkit::client::{Client, expect_greeting, expect_refusal};
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::ports::Port;
use testkit::run::Running;
use testkit::{needs_root, test};

#[test]
fn three_reloads_lose_no_message_and_refuse_no_connection() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    postfix.start();
    let mut sending = Running::start(&mut postfix.smtp_source(1000, 10));
    for reload in 1..=3 {
        let accepted = reload * 100;
        until(SOON, format_args!("{accepted} messages"), || {
            postfix.log_lines(": client=").len() >= accepted
        });
        postfix.reload();
    }
    assert!(!sending.has_ended(), "too fast for the reloads");
    let limit = Duration::from_secs(60);
    sending.finish(limit).expect_success();
    postfix.wait_for_delivery(1000, limit);
}

#[test]
fn a_service_can_be_added_changed_and_removed() {
    needs_root("to run a mail system");
    let port = Port::reserve();
    let (name, address) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{port}"));
    let mut postfix = Instance::mail();
    postfix.start();
    expect_refusal(&address);

    postfix.service(&format!("{name} inet n - n - - smtpd"));
    postfix.reload();
    expect_greeting(&address);

    // The child that greeted must leave before a child with the new arguments is started.
    postfix.service(&format!(
        "{name} inet n - n - - smtpd -o smtpd_banner=changed"
    ));
    postfix.reload();
    until(SOON, "the new greeting", || {
        Client::connect(&address).line() == "220 changed"
    });

    postfix.without(&name, "inet");
    postfix.reload();
    expect_refusal(&address);
    until(SOON, "the end of the removed service's children", || {
        let mut children = postfix.children_named("smtpd").into_iter();
        !children.any(|child| child.cmdline().contains(&name))
    });
    // The other services work.
    expect_greeting(&postfix.address());
}

#[test]
fn a_service_can_move_to_another_port() {
    needs_root("to run a mail system");
    let (old, new) = (Port::reserve(), Port::reserve());
    let (old, new) = (format!("127.0.0.1:{old}"), format!("127.0.0.1:{new}"));
    let mut postfix = Instance::mail();
    postfix.service(&format!("{old} inet n - n - - smtpd"));
    postfix.start();
    expect_greeting(&old);
    expect_refusal(&new);

    postfix.without(&old, "inet");
    postfix.service(&format!("{new} inet n - n - - smtpd"));
    postfix.reload();
    expect_refusal(&old);
    expect_greeting(&new);
}
