//! The probes of load balancers and watchdogs.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use master::status::SOCKET;
use nix::unistd::geteuid;
use serde_json::Value;
use testkit::documents::{at_the_limit, calm, failed_reload, throttled};
use testkit::fake_master::FakeMaster;
use testkit::programs::statusd;
use testkit::{needs_root, test};

use crate::site::Site;
use crate::stage::Stage;

/// The ID of the user and of the group `nobody`.
const NOBODY: u32 = 65534;

#[test]
fn a_calm_master_is_ready() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    let ready = stage.get("/readyz");
    assert_eq!((ready.status, &*ready.body), (200, "ready\n"));
    assert_eq!(stage.get("/healthz").status, 200);
}

#[test]
fn a_throttled_service_is_not_ready_until_it_has_recovered() {
    needs_root("a mail system");
    let stage = Stage::new(&throttled());
    let ready = stage.get("/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body, "not ready\npolicyd/unix is throttled\n");
    stage.master.say(&calm());
    stage.wait_for("/readyz", |ready| ready.status == 200);
}

#[test]
fn a_failed_reload_is_not_ready_and_says_which_line_is_wrong() {
    needs_root("a mail system");
    let stage = Stage::new(&failed_reload());
    let ready = stage.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("master.cf: line 138:"), "{ready:?}");
}

#[test]
fn a_service_that_is_nearly_full_is_not_ready_where_that_is_wanted() {
    needs_root("a mail system");
    let stage = Stage::with(&at_the_limit(), "-o statusd_busy_percent_is_unready=90");
    let ready = stage.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains(" processes busy\n"), "{ready:?}");
    stage.master.say(&calm());
    stage.wait_for("/readyz", |ready| ready.status == 200);
}

#[test]
fn each_reason_not_to_be_ready_can_be_switched_off() {
    needs_root("a mail system");
    let switched = "-o statusd_throttled_is_unready=no -o statusd_failed_reload_is_unready=no";
    let mut both = throttled();
    both.last_reload = failed_reload().last_reload;
    let stage = Stage::with(&both, switched);
    assert_eq!(stage.get("/readyz").status, 200);
}

#[test]
fn a_master_that_is_not_there_is_not_ready_but_statusd_is_healthy() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    assert_eq!(stage.get("/readyz").status, 200);
    stage.master.vanish();
    let ready = stage.wait_for("/readyz", |ready| ready.status == 503);
    assert!(
        ready.body.contains("No such file or directory"),
        "{ready:?}"
    );
    assert_eq!(stage.get("/healthz").status, 200);
    assert_eq!(stage.get("/status.json").status, 503);
    stage.master.listen();
    stage.wait_for("/readyz", |ready| ready.status == 200);
}

#[test]
fn a_master_that_hangs_is_not_ready_but_statusd_is_healthy() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    assert_eq!(stage.get("/readyz").status, 200);
    stage.master.hang();
    let ready = stage.wait_for("/readyz", |ready| ready.status == 503);
    assert!(ready.body.contains("timed out"), "{ready:?}");
    assert_eq!(stage.get("/healthz").status, 200);
}

#[test]
fn an_answer_that_is_no_document_is_not_believed() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    assert_eq!(stage.get("/readyz").status, 200);
    stage.master.say_bytes("{\"format\":");
    let ready = stage.wait_for("/readyz", |ready| ready.status == 503);
    assert!(
        ready.body.contains("the answer is no document"),
        "{ready:?}"
    );
}

#[test]
fn one_request_is_answered_by_hand() {
    let directory = tempfile::tempdir().expect("a directory");
    let queue = directory.path().join("queue");
    std::fs::create_dir_all(queue.join("pid")).expect("a directory");
    let main_cf = format!("queue_directory = {}\n", queue.display());
    std::fs::write(directory.path().join("main.cf"), main_cf).expect("a file");
    let request = directory.path().join("request");
    std::fs::write(&request, "GET /readyz HTTP/1.0\r\n\r\n").expect("a file");
    let _master = FakeMaster::new(&queue.join(SOCKET), &calm());
    // It does not run as root.
    let program = directory.path().join("statusd");
    std::fs::copy(statusd(), &program).expect("a copy");
    for path in [
        directory.path(),
        &queue,
        &queue.join("pid"),
        &queue.join(SOCKET),
    ] {
        std::fs::set_permissions(path, Permissions::from_mode(0o777)).expect("permissions");
    }
    let mut command = Command::new(program);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let said = command
        .arg("-S")
        .env("MAIL_CONFIG", directory.path())
        .stdin(File::open(request).expect("a file"))
        .output()
        .expect("statusd");
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.starts_with("HTTP/1.0 200 OK\r\n"), "{said}");
    assert!(said.ends_with("\r\n\r\nready\n"), "{said}");
}

#[test]
fn the_document_is_passed_on_as_it_is() {
    needs_root("a mail system");
    let mut document = serde_json::to_value(calm()).expect("JSON");
    document["of_a_later_version"] = "kept".into();
    let stage = Stage::new(&calm());
    stage.master.say_bytes(document.to_string());
    let told = stage.wait_for("/status.json", |told| told.body.contains("kept"));
    let told: Value = serde_json::from_str(&told.body).expect("JSON");
    assert_eq!(told, document);
}
