//! Datagrams: syslog-sink, which writes syslog messages to a file.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::programs::service;
use testkit::{needs_root, test};

/// A master with a sink, and the file to which it writes.
fn sink(limit: &str, options: &str) -> (Instance, PathBuf) {
    let mut instance = Instance::with_postlogd();
    instance.install(&service("syslog-sink"), "syslog-sink");
    let file = instance.path().join("messages");
    instance.service(&format!(
        "sink unix-dgram n - n - {limit} syslog-sink {options} file={}",
        file.display()
    ));
    instance.start();
    (instance, file)
}

fn send(instance: &Instance, message: &[u8]) {
    let socket = UnixDatagram::unbound().expect("a socket");
    let path = instance.socket("public", "sink");
    socket.send_to(message, path).expect("a listener");
}

#[track_caller]
fn expect_lines(file: &PathBuf, expected: &[&str]) {
    until(SOON, "the messages", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().count() >= expected.len()
    });
    let text = std::fs::read_to_string(file).expect("the messages");
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn messages_become_lines_that_cannot_be_faked() {
    needs_root("a mail system");
    let (instance, file) = sink("1", "");
    send(&instance, b"<22>postfix/smtpd[1]: hello");
    send(&instance, b"<13>one\n<13>two\x1b[31m");
    expect_lines(
        &file,
        &[
            "mail.info postfix/smtpd[1]: hello",
            "user.notice one\\x0a<13>two\\x1b[31m",
        ],
    );
}

#[test]
fn a_flood_is_taken_by_one_process_that_stays() {
    needs_root("a mail system");
    let (instance, file) = sink("1", "");
    let lines: Vec<String> = (0..1000).map(|n| format!("user.notice {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    send(&instance, b"0");
    expect_lines(&file, &lines[..1]);
    let processes = instance.children_named("syslog-sink");
    for n in 1..1000 {
        send(&instance, n.to_string().as_bytes());
    }
    expect_lines(&file, &lines);
    assert_eq!(instance.children_named("syslog-sink"), processes);
}

#[test]
fn a_file_does_not_grow_beyond_its_limit() {
    needs_root("a mail system");
    let (instance, file) = sink("1", "-o syslog_sink_size_limit=30");
    send(&instance, b"<13>a line that fits");
    send(&instance, b"<13>a line that does not");
    instance.wait_for_log("warning: the file has no room below 30 bytes");
    expect_lines(&file, &["user.notice a line that fits"]);
}

#[test]
fn there_is_one_sink_for_a_file() {
    needs_root("a mail system");
    let (instance, _) = sink("2", "");
    send(&instance, b"<13>x");
    instance.wait_for_log("fatal: service sink requires a process limit of 1");
}
