//! Wake-ups: trigger-log, which logs them.

use testkit::instance::Instance;
use testkit::programs::service;
use testkit::{needs_root, test};

/// A master that wakes up the service `alarm` of this type at its start.
fn alarm(kind: &str, name: &str) -> Instance {
    let mut instance = Instance::with_postlogd();
    instance.install(&service("trigger-log"), "trigger-log");
    instance.service(&format!("{name} {kind} n - n 3600 - trigger-log"));
    instance.start();
    instance
}

#[track_caller]
fn expect_wakeup(instance: &Instance, name: &str, request: &str) {
    let line = instance.wait_for_log("woken up by");
    assert!(line.contains("/trigger-log["), "{line}");
    assert!(
        line.ends_with(&format!("{name}: woken up by \"{request}\"")),
        "{line}"
    );
}

#[test]
fn a_fifo_brings_the_wake_up_alone() {
    needs_root("a mail system");
    expect_wakeup(&alarm("fifo", "alarm"), "alarm", "W");
}

#[test]
fn a_unix_service_gets_it_with_a_zero_byte() {
    needs_root("a mail system");
    expect_wakeup(&alarm("unix", "alarm"), "alarm", "W\\x00");
}

#[test]
fn an_inet_service_gets_it_with_a_zero_byte() {
    needs_root("a mail system");
    let port = testkit::ports::Port::reserve();
    let name = format!("127.0.0.1:{port}");
    expect_wakeup(&alarm("inet", &name), &name, "W\\x00");
}

#[test]
fn a_pass_service_gets_it_through_a_pipe() {
    needs_root("a mail system");
    expect_wakeup(&alarm("pass", "alarm"), "alarm", "W\\x00");
}

#[test]
fn what_is_no_text_is_shown() {
    needs_root("a mail system");
    let mut instance = Instance::with_postlogd();
    instance.install(&service("trigger-log"), "trigger-log");
    instance.service("alarm fifo n - n 0 - trigger-log");
    instance.start();
    std::fs::write(instance.socket("public", "alarm"), "a\n\x1b\"").expect("a fifo");
    expect_wakeup(&instance, "alarm", "a\\n\\x1b\\\"");
}

#[test]
fn a_type_that_it_is_not_made_for_is_refused() {
    needs_root("a mail system");
    let mut instance = Instance::with_postlogd();
    instance.install(&service("trigger-log"), "trigger-log");
    instance.service("alarm unix-dgram n - n 0 - trigger-log");
    instance.start();
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let path = instance.socket("public", "alarm");
    socket.send_to(b"x", path).expect("a listener");
    instance.wait_for_log("fatal: unsupported transport type: unix-dgram: expected inet or unix");
}
