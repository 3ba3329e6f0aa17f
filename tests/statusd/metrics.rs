//! The metrics, checked with Prometheus' own tool.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::documents::{calm, crowd, failed_reload, hostile, stressed, throttled};
use testkit::{needs_root, skip, test};

use crate::site::Site;
use crate::stage::Stage;

pub const PROMTOOL: &str = "/usr/bin/promtool";

/// Asserts that promtool, if installed, finds no error.
#[track_caller]
pub fn expect_clean(metrics: &str) {
    if !Path::new(PROMTOOL).exists() {
        skip("promtool is not installed");
    }
    let mut check = Command::new(PROMTOOL)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let mut input = check.stdin.take().expect("a pipe");
    input.write_all(metrics.as_bytes()).expect("a reader");
    drop(input);
    let result = check.wait_with_output().expect("an end");
    let said = [result.stdout, result.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(result.status.success() && said.is_empty(), "{said}");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    needs_root("a mail system");
    for document in [
        calm(),
        stressed(),
        throttled(),
        failed_reload(),
        hostile(),
        crowd(500),
    ] {
        let metrics = Stage::new(&document).get("/metrics");
        assert!(
            metrics.head.contains("text/plain; version=0.0.4"),
            "{metrics:?}"
        );
        assert!(metrics.body.contains("\nmaster_up 1"), "{metrics:?}");
        expect_clean(&metrics.body);
    }
}

#[test]
fn who_asks_for_openmetrics_gets_it() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.7,text/plain;q=0.3\r\n";
    let metrics = stage.get_with("/metrics", accept);
    assert!(
        metrics.head.contains("application/openmetrics-text"),
        "{metrics:?}"
    );
    assert!(metrics.body.ends_with("# EOF\n"), "{metrics:?}");
    assert!(
        metrics
            .body
            .contains("# TYPE master_service_connections counter\n")
    );
}

#[test]
fn without_a_master_the_metrics_say_that_it_is_down() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    stage.get("/metrics");
    stage.master.vanish();
    let down = |body: &str| body.contains("\nmaster_up 0");
    let metrics = stage.wait_for("/metrics", |metrics| down(&metrics.body));
    assert!(!metrics.body.contains("master_service"), "{metrics:?}");
}
