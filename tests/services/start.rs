//! The start of a service until it serves, shown by the example whois.

use std::io::Read;
use std::os::unix::net::UnixStream;

use testkit::client::hand_on;
use testkit::instance::Instance;
use testkit::ports::Port;
use testkit::programs::service;
use testkit::{layout, needs_ours, needs_root, test};

use crate::stage::{Stage, ask};

#[test]
fn parameters_come_from_the_line_and_then_from_main_cf_and_then_from_the_program() {
    needs_root("a mail system");
    let mut stage = Stage::new("whois", "-", "");
    let name = stage.address();
    let first = |answer: String| answer.lines().next().unwrap_or_default().to_owned();
    assert_eq!(
        first(stage.ask("")),
        format!("This is {name} of host.test.")
    );
    stage.set("greeting", "Greetings from $myhostname!");
    stage.reload();
    assert_eq!(first(stage.ask("")), "Greetings from host.test!");
    stage.serve("y", "-", "-o { greeting = Hello from $process_name! }");
    stage.reload();
    assert_eq!(first(stage.ask("")), "Hello from whois!");
}

#[test]
fn a_bad_value_is_logged_with_its_place() {
    needs_root("a mail system");
    let mut stage = Stage::new("whois", "-", "");
    stage.set("whois_timeout", "soon");
    stage.reload();
    let _waiting = std::net::TcpStream::connect(stage.address()).expect("a listener");
    let line = stage.wait_for_log("fatal: ");
    assert!(line.contains("main.cf: line "), "{line}");
    assert!(line.contains("whois_timeout"), "{line}");
}

#[test]
fn an_unprivileged_service_is_the_mail_owner() {
    needs_root("a mail system");
    let mut stage = Stage::new("whois", "-", "");
    let (uid, gid) = layout::mail_owner();
    let queue = stage.queue().display().to_string();
    let last = |answer: String| answer.lines().last().unwrap_or_default().to_owned();
    let expected = format!("I am user {uid} of group {gid}, in {queue}.");
    assert_eq!(last(stage.ask("")), expected);
    let process = stage.processes()[0];
    assert_eq!(process.uids(), [uid; 4], "for good");
    assert_eq!(process.gids(), [gid; 4]);
    assert!(!process.groups().split(' ').any(|group| group == "0"));

    stage.serve("n", "-", "");
    stage.reload();
    let expected = format!("I am user 0 of group 0, in {queue}.");
    assert_eq!(last(stage.ask("")), expected);
}

#[test]
fn a_chroot_leaves_a_service_its_log() {
    needs_root("a mail system");
    let mut stage = Stage::new("whois", "-", "");
    let address = stage.address();
    stage.service(&format!("{address} inet n - y - - whois"));
    stage.reload();
    let answer = stage.ask("");
    assert!(answer.ends_with(", in /.\n"), "{answer}");
    let process = stage.processes()[0];
    assert_eq!(process.root(), stage.queue());
    stage.wait_for_log("asked by 127.0.0.1:");
}

#[test]
fn a_line_of_the_log_bears_the_systems_name_and_the_programs() {
    needs_root("a mail system");
    let mut stage = Stage::new("whois", "-", "");
    stage.ask("");
    let pid = stage.processes()[0].0;
    let line = stage.wait_for_log("asked by");
    assert!(
        line.contains(&format!(" postfix/whois[{pid}]: asked by ")),
        "{line}"
    );
    let mark = stage.log().len();
    stage.serve("y", "-", "-o syslog_name=other");
    stage.reload();
    stage.ask("");
    let line = stage.wait_for_log_after(mark, "asked by");
    assert!(line.contains(" other/whois["), "{line}");
}

#[test]
fn a_service_keeps_no_descriptor_that_it_does_not_need() {
    needs_root("a mail system");
    needs_ours("without postlogd the original does not log that a reload is done");
    let mut stage = Stage::new("whois", "-", "");
    // Then the library writes root's log file itself, as long as it has root's rights.
    stage.without("postlog", "unix-dgram").write_configuration();
    stage.reload();
    stage.ask("");
    let descriptors = stage.processes()[0].descriptors();
    for (number, descriptor) in &descriptors {
        let inherits = *number > 2 && !descriptor.close_on_exec();
        assert!(!inherits, "a command would get {number}: {descriptor:?}");
        assert!(!descriptor.target.ends_with("/maillog"), "{descriptor:?}");
    }
}

#[test]
fn a_local_client_is_known_by_its_user() {
    needs_root("a mail system");
    let mut stage = Stage::new("whois", "-", "");
    stage.service("whois unix n - n - - whois");
    stage.reload();
    let mut answer = String::new();
    let mut stream = UnixStream::connect(stage.socket("public", "whois")).expect("a listener");
    stream.read_to_string(&mut answer).expect("an answer");
    let us = std::process::id();
    let expected = format!("You are local client (uid 0, pid {us}).");
    assert_eq!(answer.lines().nth(1), Some(expected.as_str()));
}

#[test]
fn a_client_that_is_handed_on_comes_with_what_is_known_of_it() {
    needs_root("a mail system");
    let mut stage = Stage::new("whois", "-", "");
    stage.service("whois pass n - n - - whois");
    stage.reload();
    let (mut client, handed) = UnixStream::pair().expect("a connection");
    let attributes = ["client_address", "192.0.2.7", "client_port", "25"];
    let service = stage.socket("public", "whois");
    let _handing = hand_on(&service.display().to_string(), handed, &attributes);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    let expected = "Your client_address is 192.0.2.7.\nYour client_port is 25.\n";
    assert!(answer.contains(expected), "{answer}");
}

#[test]
fn postscreen_hands_on_its_clients() {
    needs_root("a mail system");
    let port = Port::reserve();
    let mut postfix = Instance::new();
    postfix.install(&service("whois"), "whois");
    postfix.set("postscreen_cache_map", "");
    postfix.service(&format!("127.0.0.1:{port} inet n - n - 1 postscreen"));
    postfix.service("smtpd pass - - n - - whois");
    postfix.start();
    let answer = ask(&format!("127.0.0.1:{port}"), "");
    assert!(answer.contains("You are 127.0.0.1:"), "{answer}");
    let expected = format!("Your server_port is {port}.\n");
    assert!(
        answer.contains("Your client_address is 127.0.0.1.\n"),
        "{answer}"
    );
    assert!(answer.contains(&expected), "{answer}");
}
