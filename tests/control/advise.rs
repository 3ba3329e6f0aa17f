//! `masterctl advise` on services that run.

use serde_json::Value;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::{masterctl, service, told};
use testkit::poll::until;
use testkit::ports::Port;
use testkit::programs::{example, statusd};
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

/// What is advised on each service.
fn advice(standalone: &Standalone) -> Vec<(String, Value)> {
    let report = told(standalone, &["advise", "--json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert!(report["source"]["start"]["seconds"].is_number(), "{report}");
    let services = report["services"].as_array().expect("services").iter();
    services
        .map(|service| {
            let name = service["service"].as_str().expect("a name");
            (name.to_owned(), service["advice"].clone())
        })
        .collect()
}

#[test]
fn a_service_that_a_load_holds_at_its_limit_gets_advice_and_a_quiet_one_gets_none() {
    needs_root("a master that keeps to itself");
    let mut standalone = Standalone::new();
    standalone.unwatched("the services are counted");
    let hello = standalone.install(&example("hello"));
    let hello = hello.display();
    standalone.write_table(&format!(
        "a unix n n n - 3 {hello} serve\nb unix n n n - 3 {hello} serve\n"
    ));
    standalone.start();
    let address = standalone.queue().join("public/a").display().to_string();
    let none = |name: &str| (name.to_owned(), Value::Array(Vec::new()));
    assert_eq!(advice(&standalone), [none("a/unix"), none("b/unix")]);
    let mut served: Vec<_> = (0..3).map(|_| Client::connect(&address)).collect();
    served.iter_mut().for_each(|client| {
        client.line();
    });
    let waiting: Vec<_> = (0..4).map(|_| Client::connect(&address)).collect();
    until(SOON, "clients that wait", || {
        let service = service(&standalone, "a");
        service.busy == 3 && service.backlog == Some(4)
    });
    let advice = advice(&standalone);
    let [first] = &advice[0].1.as_array().expect("advice")[..] else {
        panic!("{advice:?}");
    };
    assert_eq!(first["setting"], "maxproc");
    assert_eq!(
        (&first["value"], &first["proposal"]),
        (&"3".into(), &"5".into())
    );
    let reason = first["reason"].as_str().expect("a reason");
    let expected =
        "3 of 3 children are busy, and 4 clients wait now; it has reached its limit 1 time";
    assert!(reason.starts_with(expected), "{reason}");
    assert_eq!(advice[1], none("b/unix"));
    let text = told(&standalone, &["advise", "b"]);
    assert!(
        text.contains("too little is known of:\n  b/unix: "),
        "{text}"
    );
    assert_eq!(
        masterctl(&standalone, &["advise", "c"]).status.code(),
        Some(6)
    );
    drop((served, waiting));
}

/// statusd leaves it when it is replaced.
#[test]
fn the_day_that_statusd_keeps_is_used() {
    // statusd is not run as root.
    let (mut standalone, port) = (Standalone::of_a_user(), Port::reserve());
    standalone.unwatched("the services are counted");
    let statusd = standalone.install(&statusd());
    let address = format!("127.0.0.1:{port}");
    standalone.write_table(&format!(
        "{address} inet n n n - 1 {}\nb unix n n n - 3 true\n",
        statusd.display()
    ));
    standalone.start();
    let asked = |request: &str| {
        let mut client = Client::connect(&address);
        client.say(request);
        client.line()
    };
    until(SOON, "an answer of statusd", || {
        asked("GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r").starts_with("HTTP/1.")
    });
    told(&standalone, &["reload", &address]);
    let report = || {
        let report = told(&standalone, &["advise", "--json"]);
        serde_json::from_str::<Value>(&report).expect("JSON")
    };
    until(SOON, "a history", || {
        let path = &report()["source"]["history"]["path"];
        path.as_str()
            .is_some_and(|path| path.ends_with("/statusd.history"))
    });
    let text = told(&standalone, &["advise"]);
    assert!(text.starts_with("by the last day in "), "{text}");
}
