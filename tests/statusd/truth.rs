//! statusd and the master that runs it: statusd shows what the master reports.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::client::{Client, expect_refusal};
use testkit::instance::SOON;
use testkit::network::in_own_network;
use testkit::operator::{service, told};
use testkit::poll::until;
use testkit::standalone::Standalone;
use testkit::{needs_root, programs, test};

use crate::metrics::expect_clean;
use crate::real::Real;
use crate::site::Site;

/// A master with a service, and a client that is served.
fn with_client() -> (Real, Client) {
    let mut real = Real::new();
    real.install(&programs::service("shout"));
    real.write("a unix n - - - 5 shout\n").start();
    let client = client(&real);
    until(SOON, "a child to serve", || service(&real, "a").busy == 1);
    (real, client)
}

/// A client of the service `a`.
fn client(real: &Real) -> Client {
    let socket = real.queue().join("public/a");
    Client::connect(&socket.to_string_lossy())
}

/// A document without values that change all the time, or by the requests themselves.
fn at_rest(document: &str) -> Value {
    const MOVES: [&str; 2] = ["time", "age"];
    const COUNTS: [&str; 10] = [
        "available",
        "backlog",
        "busy",
        "connections",
        "limit_reached",
        "listening",
        "peak",
        "peak_time",
        "state",
        "uses",
    ];
    let mut document: Value = serde_json::from_str(document).expect("JSON");
    leave_out(&mut document, &MOVES);
    let services = document["services"].as_array_mut().expect("services");
    for service in services.iter_mut().filter(|s| s["type"] == "inet") {
        leave_out(service, &COUNTS);
    }
    document
}

fn leave_out(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()));
            fields
                .values_mut()
                .for_each(|field| leave_out(field, names));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| leave_out(value, names)),
        _ => {}
    }
}

#[test]
fn the_document_is_the_one_that_masterctl_shows() {
    let (real, _client) = with_client();
    let shown = until(SOON, "the same document", || {
        let shown = at_rest(&real.get("/status.json").body);
        (shown == at_rest(&told(&real, &["status", "--json"]))).then_some(shown)
    });
    // The remaining document is not empty.
    assert_eq!(shown["services"][0]["children"][0]["state"], "busy");
    assert_eq!(shown["services"][1]["total"], 1);
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics_of_a_master() {
    let (real, _client) = with_client();
    let busy = "{service=\"a\",type=\"unix\",endpoint=\"public/a\",state=\"busy\"} 1.0\n";
    let metrics = real.wait_for("/metrics", |answer| answer.body.contains(busy));
    expect_clean(&metrics.body);
}

#[test]
fn a_service_that_fails_is_not_ready_until_it_serves() {
    let mut real = Real::new();
    let broken = real.path().join("broken");
    fs::write(&broken, "").expect("a file");
    let shout = real.install(&programs::service("shout"));
    let program = real.script(
        "fails",
        &format!(
            "test -e {} && exit 1; exec {} \"$@\"",
            broken.display(),
            shout.display()
        ),
    );
    real.configure("service_throttle_time = \"3s\"\n");
    real.write(&format!("a unix n - - - 5 {}\n", program.display()))
        .start();
    let ready = real.get("/readyz");
    assert_eq!((ready.status, &*ready.body), (200, "ready\n"));
    let mut client = client(&real);
    client.say("hello");
    let ready = real.wait_for("/readyz", |ready| ready.status == 503);
    assert_eq!(ready.body, "not ready\na/unix is throttled\n");
    assert_eq!(real.get("/healthz").status, 200);
    fs::remove_file(&broken).expect("a repair");
    assert_eq!(client.line(), "HELLO");
    real.wait_for("/readyz", |ready| ready.status == 200);
}

#[test]
fn a_master_that_stands_still_is_not_ready_and_one_that_goes_on_is() {
    let (mut real, _client) = with_client();
    assert_eq!(real.get("/readyz").status, 200);
    real.process().signal(Signal::SIGSTOP);
    let ready = real.wait_for("/readyz", |ready| ready.status == 503);
    assert!(
        ready.body.contains("pid/master.status: timed out"),
        "{ready:?}"
    );
    assert_eq!(real.get("/healthz").status, 200);
    assert!(real.get("/metrics").body.contains("\nmaster_up 0.0\n"));
    assert_eq!(real.get("/status.json").status, 503);
    real.process().signal(Signal::SIGCONT);
    real.wait_for("/readyz", |ready| ready.status == 200);
}

#[test]
fn a_master_that_dies_takes_statusd_with_it() {
    let (mut real, _client) = with_client();
    assert_eq!(real.get("/healthz").status, 200);
    real.stop_by(Signal::SIGKILL);
    expect_refusal(&real.address());
}

#[test]
fn the_history_survives_a_reload_also_without_postfix() {
    needs_root("to have a network of its own");
    in_own_network(|| {
        for standalone in Standalone::all() {
            let mut real = Real::at(standalone, "127.0.0.1:7099");
            real.write("").start();
            let old = real.wait_for("/view.json", |answer| answer.samples() >= 3);
            real.reload();
            let new = real.get("/view.json");
            assert!(new.samples() > old.samples(), "{}", real.said());
            assert!(
                !real.said().contains("statusd: warning: "),
                "{}",
                real.said()
            );
        }
    });
}
