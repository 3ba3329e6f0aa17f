//! Names under which clients reach statusd, so that a page of another site cannot read its answers
//! (DNS rebinding).

use testkit::documents::calm;
use testkit::{needs_root, test};

use crate::site::Site;
use crate::stage::Stage;

/// The status of an answer to a request with this header.
fn status(stage: &Stage, host: &str) -> u16 {
    let answer = stage.ask(&format!(
        "GET /status.json HTTP/1.1\r\nHost: {host}\r\n\r\n"
    ));
    if answer.status == 421 {
        assert!(!answer.body.contains("services"), "{answer:?}");
        assert!(answer.body.contains("statusd_host_names"), "{answer:?}");
    }
    answer.status
}

#[test]
fn another_sites_name_gets_no_answer() {
    needs_root("a mail system");
    let stage = Stage::with(&calm(), "-o statusd_host_names=a.example,b.example");
    for host in [
        "127.0.0.1",
        "127.0.0.1:7099",
        "[::1]:7099",
        "localhost",
        "LOCALHOST:1",
        "a.example",
        "B.example:443",
    ] {
        assert_eq!(status(&stage, host), 200, "{host}");
    }
    for host in ["evil.example", "evil.example:7099", "x.a.example", ""] {
        assert_eq!(status(&stage, host), 421, "{host}");
    }
    for path in ["/", "/view.json", "/metrics", "/healthz", "/readyz", "/x"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        assert_eq!(stage.ask(&request).status, 421, "{path}");
    }
    let absolute = "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(stage.ask(absolute).status, 421);
    // Probes of this version send none.
    assert_eq!(stage.ask("GET /healthz HTTP/1.0\r\n\r\n").status, 200);
    assert_eq!(stage.ask("GET /healthz HTTP/1.1\r\n\r\n").status, 400);
}

#[test]
fn the_mail_systems_own_name_is_known_and_another_list_replaces_it() {
    needs_root("a mail system");
    let mut stage = Stage::new(&calm());
    stage.set("myhostname", "mail.example");
    stage.reload();
    stage.wait_for("/healthz", |answer| answer.status == 200);
    assert_eq!(status(&stage, "mail.example:80"), 200);
    stage.set("statusd_host_names", "status.example");
    stage.reload();
    assert_eq!(status(&stage, "mail.example:80"), 421);
    assert_eq!(status(&stage, "status.example"), 200);
}

#[test]
fn a_name_with_a_port_is_an_error_in_the_configuration() {
    needs_root("a mail system");
    let stage = Stage::with(&calm(), "-o statusd_host_names=a.example:80");
    let _client = std::net::TcpStream::connect(stage.address()).expect("a listener");
    let line = stage.wait_for_log("parameter statusd_host_names: ");
    assert!(line.contains("bad host name: \"a.example:80\""), "{line}");
}
