//! Mail is delivered.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::run::run;
use testkit::{needs_root, test};

/// A thousand messages take long on a busy machine.
const MINUTE: Duration = Duration::from_secs(60);

/// Posts a message without a notification, and takes it out of the queue again.
fn post_aside(postfix: &Instance, name: &str) -> PathBuf {
    run(&mut postfix.sendmail(&["to@example.test"]), SOON).expect_success();
    let queued = postfix.queued("maildrop");
    assert_eq!(queued.len(), 1, "messages in maildrop: {queued:?}");
    let aside = postfix.path().join(name);
    let file = queued.first().expect("a message");
    fs::rename(postfix.queue().join("maildrop").join(file), &aside).expect("the same disk");
    aside
}

fn into_maildrop(postfix: &Instance, message: &PathBuf, name: &str) {
    fs::rename(message, postfix.queue().join("maildrop").join(name)).expect("the same disk");
}

#[test]
fn a_thousand_messages_over_twenty_connections_all_arrive() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    postfix.start();
    run(&mut postfix.smtp_source(1000, 20), MINUTE).expect_success();
    postfix.wait_for_delivery(1000, MINUTE);
}

#[test]
fn a_message_posted_with_sendmail_is_delivered() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    postfix.start();
    run(&mut postfix.sendmail(&["to@example.test"]), SOON).expect_success();
    postfix.wait_for_delivery(1, SOON);
}

#[test]
fn a_message_posted_while_the_master_is_down_is_picked_up_at_its_start() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    postfix.write_configuration();
    run(&mut postfix.sendmail(&["to@example.test"]), SOON).expect_success();
    assert_eq!(postfix.queued("maildrop").len(), 1, "messages in maildrop");
    // The first wake-up is at the start, the second one an hour later.
    postfix.service("pickup unix n - n 3600 1 pickup");
    postfix.start();
    postfix.wait_for_delivery(1, SOON);
}

#[test]
fn pickup_is_woken_up_again_and_again() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    postfix.service("pickup unix n - n 1 1 pickup");
    postfix.write_configuration();
    let messages = ["first", "second", "third"].map(|name| post_aside(&postfix, name));
    postfix.start();
    until(SOON, "pickup", || {
        !postfix.children_named("pickup").is_empty()
    });
    for (message, count) in messages.iter().zip(1..) {
        // pickup is not notified, and the previous wake-up is over.
        into_maildrop(&postfix, message, &format!("TEST{count}"));
        postfix.wait_for_delivery(count, SOON);
    }
}
