//! Limits on statusd's clients, and statusd as a child of the master.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use testkit::documents::calm;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::process::Process;
use testkit::{needs_root, test};

use crate::site::Site;
use crate::stage::Stage;

#[test]
fn a_request_that_is_too_long_is_refused() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    let long = "x".repeat(100_000);
    let answer = stage.ask(&format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {long}"));
    assert_eq!(answer.status, 431);
    assert_eq!(stage.get("/healthz").status, 200);
}

#[test]
fn only_reading_is_possible() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = stage.ask(&format!(
            "{method} /status.json HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(answer.status, 405, "{method}");
    }
    let head = stage.ask("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((head.status, &*head.body), (200, ""));
}

#[test]
fn a_connection_is_for_one_request() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    let answer = stage.ask(&"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
    assert!(answer.head.contains("connection: close"), "{answer:?}");
    assert_eq!(answer.body, "statusd answers\n");
}

#[test]
fn the_process_limit_must_be_one() {
    needs_root("a mail system");
    let mut stage = Stage::new(&calm());
    let table = std::fs::read_to_string(stage.master_cf()).expect("a table");
    let line = table.lines().find(|line| line.contains("statusd"));
    stage.service(&line.expect("the line").replace("n y n - 1", "n y n - 2"));
    stage.reload();
    let _client = TcpStream::connect(stage.address()).expect("a listener");
    stage.wait_for_log("requires a process limit of 1");
}

#[test]
fn a_history_file_that_is_no_regular_file_is_an_error() {
    needs_root("a mail system");
    let directory = tempfile::tempdir().expect("a directory");
    let fifo = directory.path().join("history");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a FIFO");
    let options = format!("-o statusd_history_file={}", fifo.display());
    let stage = Stage::with(&calm(), &options);
    let _client = TcpStream::connect(stage.address()).expect("a listener");
    let line = stage.wait_for_log("parameter statusd_history_file: ");
    let expected = format!("{}: it is a FIFO, expected a regular file", fifo.display());
    assert!(line.ends_with(&expected), "{line}");
}

#[test]
fn what_is_not_there_is_not_found() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    for path in ["/etc/passwd", "/../etc/passwd", "/page.css/", "//"] {
        assert_eq!(stage.get(path).status, 404, "{path}");
    }
}

#[test]
fn nobody_may_be_slow_for_long() {
    needs_root("a mail system");
    let stage = Stage::with(&calm(), "-o statusd_timeout=1s");
    let mut mute = TcpStream::connect(stage.address()).expect("a listener");
    let mut slow = TcpStream::connect(stage.address()).expect("a listener");
    slow.set_nonblocking(true).expect("a mode");
    // Sending single bytes does not extend the time.
    until(SOON, "the end of the slow client", || {
        let failed = slow.write(b"G").err().map(|error| error.kind());
        let read = slow.read(&mut [0; 512]);
        let ended = matches!(read, Ok(0)) || failed.is_some_and(|why| why != ErrorKind::WouldBlock);
        ended.then_some(())
    });
    mute.set_read_timeout(Some(SOON)).expect("a time limit");
    let mut said = Vec::new();
    mute.read_to_end(&mut said).expect("the end");
    assert_eq!(stage.get("/healthz").status, 200);
}

#[test]
fn a_reader_who_does_not_read_delays_nobody_and_is_left() {
    needs_root("a mail system");
    let stage = Stage::with(&calm(), "-o statusd_timeout=5s");
    // More than the kernel's buffers hold.
    let mut document = serde_json::to_value(calm()).expect("JSON");
    document["ballast"] = "x".repeat(20_000_000).into();
    stage.master.say_bytes(document.to_string());
    stage.wait_for("/status.json", |answer| answer.body.contains("ballast"));
    let process = stage.children_named("statusd")[0];
    let lazy: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(stage.address()).expect("a listener");
            let request = b"GET /status.json HTTP/1.1\r\nHost: x\r\n\r\n";
            stream.write_all(request).expect("a reader");
            stream
        })
        .collect();
    until(SOON, "all to be served", || {
        process.descriptors().len() > lazy.len()
    });
    assert_eq!(stage.get("/healthz").status, 200);
    until(SOON, "the connections to be given up", || {
        process.descriptors().len() < lazy.len()
    });
}

#[test]
fn a_wake_up_is_no_request_and_no_trouble() {
    needs_root("a mail system");
    let mut stage = Stage::new(&calm());
    let woken = stage.master_cf();
    let table = std::fs::read_to_string(woken).expect("a table");
    let line = table
        .lines()
        .find(|line| line.contains("statusd"))
        .expect("the line");
    stage.service(&line.replace("n y n - 1", "n y n 1 1"));
    stage.reload();
    until(SOON, "statusd to be woken up", || {
        stage.children_named("statusd").len() == 1
    });
    assert_eq!(stage.get("/healthz").status, 200);
    assert_eq!(stage.log_lines("warning: "), [""; 0]);
}

#[test]
fn one_process_serves_more_clients_than_other_services_do() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    assert_eq!(stage.get("/healthz").status, 200);
    let processes = stage.children_named("statusd");
    for _ in 0..150 {
        assert_eq!(stage.get("/healthz").status, 200);
    }
    assert_eq!(stage.children_named("statusd"), processes);
}

#[test]
fn the_history_survives_a_reload() {
    needs_root("a mail system");
    let mut stage = Stage::new(&calm());
    stage.get("/healthz");
    let old = stage.children_named("statusd")[0];
    stage.wait_for("/view.json", |answer| answer.samples() >= 3);
    stage.reload();
    until(SOON, "the old process to leave", || !old.runs());
    assert!(
        stage.get("/view.json").samples() >= 4,
        "the previous ones, and one more"
    );
    assert_ne!(stage.children_named("statusd"), [old]);
    assert_eq!(stage.log_lines("warning: "), [""; 0]);
}

#[test]
fn statusd_has_no_privileges() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    stage.get("/healthz");
    let Process(pid) = stage.children_named("statusd")[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let uids = status.lines().find(|line| line.starts_with("Uid:"));
    assert!(
        !uids.expect("a line").split_whitespace().any(|id| id == "0"),
        "{status}"
    );
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
}

#[test]
fn after_a_reload_a_client_that_says_nothing_holds_up_the_next_process_for_a_moment_only() {
    needs_root("a mail system");
    let mut stage = Stage::with(&calm(), "-o statusd_timeout=60s");
    stage.get("/healthz");
    let old = stage.children_named("statusd");
    let _mute = TcpStream::connect(stage.address()).expect("a listener");
    stage.reload();
    assert_eq!(stage.get("/readyz").status, 200);
    assert!(old.iter().all(|process| !process.runs()));
}
