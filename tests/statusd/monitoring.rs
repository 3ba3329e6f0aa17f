//! The alarms for Prometheus and the dashboard for Grafana, which use no metric that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::documents::{at_the_limit, calm, failed_reload, preloaded, throttled};
use testkit::run::run;
use testkit::{instance::SOON, needs_root, skip, test};

use crate::metrics::PROMTOOL;
use crate::site::Site;
use crate::stage::Stage;

const RULES: &str = "prometheus/master.rules.yml";
const RULE_TESTS: &str = "prometheus/master.rules.test.yml";
const DASHBOARD: &str = "grafana/master.json";

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("contrib")
        .join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).expect("a file of contrib")
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).expect("JSON")
}

/// Runs promtool, if it is installed.
#[track_caller]
fn promtool(arguments: &[&str], file: &Path) {
    if !Path::new(PROMTOOL).exists() {
        skip("promtool is not installed");
    }
    run(Command::new(PROMTOOL).args(arguments).arg(file), SOON).expect_success();
}

/// The words in a text that are names of metrics of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = |word: &&str| word.starts_with("master_");
    words.filter(ours).map(str::to_owned).collect()
}

/// All expressions of the dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "expr") {
                    Some(expression) => found.push(expression.to_owned()),
                    None => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn the_alarms_come_when_they_should_and_only_then() {
    promtool(&["check", "rules"], &path(RULES));
    promtool(&["test", "rules"], &path(RULE_TESTS));
}

#[test]
fn each_alarm_has_a_test_in_which_it_comes() {
    let (rules, tests) = (read(RULES), read(RULE_TESTS));
    let names = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: Vec<_> = names.collect();
    assert!(!names.is_empty());
    for name in names {
        let comes = format!("alertname: {name}\n        exp_alerts:");
        assert!(tests.contains(&comes), "{name} is not tested");
    }
}

#[test]
fn the_dashboards_expressions_are_prometheus_language() {
    let mut found = Vec::new();
    expressions(&dashboard(), &mut found);
    assert!(found.len() > 10, "{found:?}");
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (number, expression) in found.iter().enumerate() {
        // Grafana puts a value in the place of each name.
        let expression = expression.replace("$__rate_interval", "5m");
        let expression = serde_json::to_string(&expression).expect("a string");
        rules += &format!("  - record: expression{number}\n    expr: {expression}\n");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dashboard.yml");
    fs::write(&file, rules).expect("a file");
    promtool(&["check", "rules"], &file);
}

#[test]
fn the_dashboards_panels_have_a_number_a_title_and_an_expression_each() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let numbers: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(numbers.len(), panels.len(), "a number twice");
    for panel in panels {
        let text = |name: &str| panel[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(text("title") && text("description"), "{panel}");
        assert!(
            panel["targets"]
                .as_array()
                .is_some_and(|all| !all.is_empty()),
            "{panel}"
        );
    }
}

#[test]
fn alarms_and_dashboard_use_no_metric_that_statusd_does_not_give() {
    needs_root("a mail system");
    let mut given = BTreeSet::new();
    for document in [at_the_limit(), failed_reload(), preloaded(), throttled()] {
        given.extend(metrics_in(&Stage::new(&document).get("/metrics").body));
    }
    for file in [RULES, RULE_TESTS, DASHBOARD] {
        let mut used = metrics_in(&read(file));
        // The name of the dashboard's file and of its rules are none.
        used.retain(|name| !given.contains(name));
        assert!(used.is_empty(), "{file} uses {used:?}");
    }
}

/// The manifests for Kubernetes.
const MANIFESTS: [&str; 2] = ["kubernetes/relay.yaml", "kubernetes/pool.yaml"];

/// What follows a key in the manifests, up to the end of its line or of its braces.
fn values_of(text: &str, key: &str) -> BTreeSet<String> {
    let key = format!("{key}: ");
    let found = text.match_indices(&key).map(|(at, _)| {
        let rest = &text[at + key.len()..];
        let end = rest.find([',', '}', '\n']).unwrap_or(rest.len());
        rest[..end].trim_matches('"').to_owned()
    });
    found.collect()
}

#[test]
fn the_manifests_for_kubernetes_scale_by_metrics_that_are_there() {
    needs_root("a mail system");
    let stage = Stage::new(&at_the_limit());
    let there = stage.get("/metrics").body;
    for manifest in MANIFESTS {
        let names = metrics_in(&read(manifest));
        assert_eq!(names.len(), 2, "{names:?}");
        for name in names {
            let begin = format!("\n{name}{{");
            assert!(there.contains(&begin), "{name} of {manifest} is not there");
        }
    }
    // As the autoscaler selects them.
    let busy = r#"service="smtp",type="inet",endpoint=""#;
    assert!(there.contains(busy), "{there}");
    assert!(there.contains(r#"state="busy""#), "{there}");
}

#[test]
fn the_manifests_for_kubernetes_ask_for_paths_and_ports_that_are_served() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    let set_up = read("container/set-up");
    for manifest in MANIFESTS {
        let text = read(manifest);
        let paths = values_of(&text, "httpGet: {path");
        assert_eq!(paths, ["/healthz", "/readyz"].map(String::from).into());
        for path in paths {
            assert_eq!(stage.get(&path).status, 200, "{path}");
        }
        let ports = values_of(&text, "containerPort");
        assert!(ports.contains("7099"), "{ports:?}");
        for name in values_of(&text, "targetPort") {
            assert!(
                text.contains(&format!("{{name: {name}, containerPort: ")),
                "{name}"
            );
        }
    }
    // The image serves them, and has the command that drains it.
    let relay = read(MANIFESTS[0]);
    let ports = ["25", "7099"].map(String::from);
    assert_eq!(values_of(&relay, "containerPort"), ports.into());
    assert!(set_up.contains("7099 inet n y n 60 1 statusd"));
    assert!(set_up.contains("cat >/usr/sbin/drain-postfix"));
    let capabilities = read("container/capabilities");
    let needed = capabilities
        .lines()
        .filter_map(|line| line.strip_prefix("CAP_"));
    let needed: Vec<_> = needed.collect();
    assert!(
        relay.contains(&format!("add: [{}]", needed.join(", "))),
        "{needed:?}"
    );
}

#[test]
fn the_manifests_for_kubernetes_keep_to_its_schemas() {
    let program = "kubernetes-validate";
    if Command::new(program).arg("--version").output().is_err() {
        skip("kubernetes-validate is not installed: pip install kubernetes-validate");
    }
    for manifest in MANIFESTS {
        run(
            Command::new(program).arg("--strict").arg(path(manifest)),
            SOON,
        )
        .expect_success();
    }
}
