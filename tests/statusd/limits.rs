//! Limits on statusd's clients, and statusd as a child of the master.

use std::fs::Permissions;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::SystemTime;

use master::status::Document;
use serde_json::{Value, json};
use testkit::documents::{calm, crowd};
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::process::Process;
use testkit::programs::statusd;
use testkit::run::run;
use testkit::{needs_root, test};

use crate::site::Site;
use crate::stage::Stage;

#[test]
fn a_request_that_is_too_long_is_refused() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    let long = "x".repeat(100_000);
    let answer = stage.ask(&format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nCookie: {long}"
    ));
    assert_eq!(answer.status, 431);
    assert_eq!(stage.get("/healthz").status, 200);
}

#[test]
fn only_reading_is_possible() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = stage.ask(&format!(
            "{method} /status.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(answer.status, 405, "{method}");
    }
    let head = stage.ask("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status, &*head.body), (200, ""));
}

#[test]
fn a_connection_is_for_one_request() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    let answer = stage.ask(&"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2));
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
            let request = b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
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

/// Services of a large installation.
const MANY: u32 = 3000;
/// Clients that statusd serves at a time.
const CLIENTS: usize = 30;
/// Memory of a debug build with its history, the document and some answers, in KiB.
const MEMORY: u64 = 150 * 1024;

// Without optimization a sample of 3,000 services takes a second of processor time.
#[test(alone)]
fn slow_readers_of_a_large_status_share_their_answers() {
    needs_root("a mail system");
    let document = crowd(MANY);
    let directory = tempfile::tempdir().expect("a directory");
    let history = directory.path().join("history");
    std::fs::write(&history, past(&document).to_string()).expect("a file");
    for path in [directory.path(), &history] {
        std::fs::set_permissions(path, Permissions::from_mode(0o777)).expect("permissions");
    }
    let options = format!(
        "-o statusd_timeout=5s -o statusd_history_file={}",
        history.display()
    );
    let stage = Stage::with(&document, &options);
    stage.wait_for("/view.json", |answer| answer.samples() >= 200);
    let process = stage.children_named("statusd")[0];
    let before = process.descriptors().len();
    let mut readers = Vec::new();
    let mut most = 0;
    let mut connect = || {
        let mut stream = TcpStream::connect(stage.address()).expect("a listener");
        let paths = [
            "/view.json",
            "/view.json?since=1",
            "/metrics",
            "/status.json",
        ];
        let path = paths[readers.len() % paths.len()];
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a reader");
        readers.push(stream);
        most = most.max(process.memory());
    };
    (0..CLIENTS).for_each(|_| connect());
    until(SOON, "all to be served", || {
        process.descriptors().len() > before + CLIENTS / 2
    });
    until(SOON, "the connections to be given up", || {
        most = most.max(process.memory());
        process.descriptors().len() <= before
    });
    assert!(most < MEMORY, "{most} KiB");
}

/// A saved history of ten minutes.
fn past(document: &Document) -> Value {
    let services = document.services.iter().map(|service| {
        json!({
            "endpoint": service.endpoint,
            "type": service.kind,
            "busy": vec![1234; 300],
            "marks": vec![0; 300],
        })
    });
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    json!({
        "time": now.expect("a time after 1970").as_secs_f64(),
        "history": {
            "taken": 300,
            "since": 0,
            "kept": 300,
            "services": services.collect::<Vec<_>>(),
        },
    })
}

#[test]
fn it_does_not_run_as_root() {
    needs_root("a mail system");
    let mut stage = Stage::new(&calm());
    let table = std::fs::read_to_string(stage.master_cf()).expect("a table");
    let line = table.lines().find(|line| line.contains("statusd"));
    stage.service(&line.expect("the line").replace("n y n - 1", "n n n - 1"));
    stage.reload();
    let _client = TcpStream::connect(stage.address()).expect("a listener");
    let line = stage.wait_for_log("does not run as root");
    assert!(
        line.contains("write \"y\" in the column \"unpriv\""),
        "{line}"
    );
    let by_hand = run(Command::new(statusd()).arg("-S"), SOON).expect_failure();
    assert!(
        by_hand.stderr.contains("does not run as root"),
        "{by_hand:?}"
    );
}

#[test]
fn a_history_file_that_is_a_link_is_an_error_and_not_followed() {
    needs_root("a mail system");
    let directory = tempfile::tempdir().expect("a directory");
    let (target, link) = (
        directory.path().join("target"),
        directory.path().join("link"),
    );
    std::fs::write(&target, "precious").expect("a file");
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("a mode");
    let stage = Stage::with(
        &calm(),
        &format!("-o statusd_history_file={}", link.display()),
    );
    let _client = TcpStream::connect(stage.address()).expect("a listener");
    let line = stage.wait_for_log("parameter statusd_history_file: ");
    assert!(
        line.ends_with("it is a symbolic link, expected a regular file"),
        "{line}"
    );
    assert_eq!(
        std::fs::read_to_string(&target).expect("a file"),
        "precious"
    );
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
