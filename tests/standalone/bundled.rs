//! The bundled services, in the same directory as the master: no path, no Postfix, no `main.cf`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use testkit::client::Client;
use testkit::instance::SOON;
use testkit::network::in_own_network;
use testkit::poll::until;
use testkit::process::Descriptor;
use testkit::programs::service;
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

/// Copies programs to the master's directory, and starts it.
fn start(standalone: &mut Standalone, programs: &[&str], table: &str) {
    for program in programs {
        let mut copy = Command::new("cp");
        run(copy.arg(service(program)).arg(standalone.path()), SOON).expect_success();
    }
    standalone.write_table(table).start();
}

/// A client of the public socket of this name.
#[track_caller]
fn client(standalone: &Standalone, name: &str) -> Client {
    let socket = standalone.queue().join("public").join(name);
    Client::connect(&socket.display().to_string())
}

#[test]
fn a_table_of_one_line_serves() {
    for mut standalone in [Standalone::new(), Standalone::of_a_user()] {
        start(&mut standalone, &["echo"], "hello unix n - - - 5 echo\n");
        let mut client = client(&standalone, "hello");
        client.say("hello");
        assert_eq!(client.line(), "hello");
    }
}

#[test]
fn anybody_may_spawn_commands_of_their_own() {
    let mut standalone = Standalone::of_a_user();
    start(
        &mut standalone,
        &["spawn"],
        "id unix n - - - 5 spawn argv=id -u\n",
    );
    assert_eq!(
        client(&standalone, "id").line(),
        standalone.uid().to_string()
    );
}

/// The answer of a web server on a port.
fn page(port: u16) -> String {
    let mut client = Client::connect(&format!("127.0.0.1:{port}"));
    client.say("GET / HTTP/1.0");
    client.say("");
    std::iter::from_fn(|| Some(client.line()).filter(|line| !line.is_empty()))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn every_service_of_the_example_serves_as_root_and_as_anybody() {
    needs_root("to have a network of its own");
    in_own_network(|| {
        for mut standalone in [Standalone::new(), Standalone::of_a_user()] {
            let programs = [
                "echo",
                "daytime",
                "spawn",
                "proxy",
                "trigger-log",
                "syslog-sink",
            ];
            start(
                &mut standalone,
                &programs,
                include_str!("../../master.cf.example"),
            );
            let mut echo = Client::connect("127.0.0.1:7007");
            echo.say("hello");
            assert_eq!(echo.line(), "hello");
            for port in [7013, 7014] {
                let time = Client::connect(&format!("127.0.0.1:{port}")).line();
                assert!(time.contains(", 2"), "{time}");
            }
            assert!(client(&standalone, "daytime").line().contains(", 2"));
            assert!(page(7080).starts_with("HTTP/1.0 200 OK"), "{}", page(7080));
            standalone.wait_for_line("trigger-log: tick: woken up");
            let sink = UnixDatagram::unbound().expect("a socket");
            sink.send_to(b"<13>hello", standalone.queue().join("public/log"))
                .expect("a reader");
            standalone.wait_for_line("user.notice");
            assert!(
                !standalone.said().contains("warning"),
                "{}",
                standalone.said()
            );
        }
    });
}

/// A user's own service in Python, beside one of the library's.
#[test]
fn a_short_program_of_ones_own_is_served_changed_and_reported_when_wrong() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/services/examples/minimal.py");
    let source = std::fs::read_to_string(source).expect("the example");
    assert!(source.lines().count() <= 25);
    let hello = standalone.path().join("hello.py");
    std::fs::write(&hello, &source).expect("a program");
    std::fs::set_permissions(&hello, Permissions::from_mode(0o755)).expect("a mode");
    let line = |name: &str| format!("{name} unix n - - - 5 {}\n", hello.display());
    start(
        &mut standalone,
        &["shout"],
        &(line("hello") + "shout unix n - - - 5 shout\n"),
    );
    assert_eq!(client(&standalone, "hello").line(), "hello");
    let mut shout = client(&standalone, "shout");
    shout.say("hello");
    assert_eq!(shout.line(), "HELLO");

    // A reload applies an edit; an edit with an error changes nothing.
    std::fs::write(&hello, source.replace("hello", "good morning")).expect("an edit");
    standalone.write_table(&(line("hello") + "shout unix n - - - five shout\n"));
    assert!(
        standalone
            .reload()
            .contains("line 2: column 20: field \"max_proc\": bad value: \"five\"")
    );
    assert_eq!(client(&standalone, "hello").line(), "hello");
    standalone.write_table(&line("hello"));
    assert!(
        standalone
            .reload()
            .contains("services: 0 added, 1 removed, 1 kept")
    );
    assert_eq!(client(&standalone, "hello").line(), "good morning");
}

/// Root's log file stays root's: a descriptor of it could be used to cut it off, or to fill the disk.
/// So lines of a service that has given up root's rights go through the master.
#[test]
fn a_service_logs_to_the_masters_file_and_terminal_and_keeps_no_descriptor_of_roots_file() {
    let root = Standalone::new();
    for mut standalone in [root, Standalone::of_a_user()] {
        let log = standalone.path().join("log");
        let of = |name: &str| standalone.path().join(name).display().to_string();
        standalone.write_toml(&format!(
            "maillog_file = \"{}\"\nmaillog_file_prefixes = \"/\"\n\
             queue_directory = \"{}\"\ndata_directory = \"{}\"\n",
            log.display(),
            standalone.queue().display(),
            of("data"),
        ));
        start(
            &mut standalone,
            &["whois", "echo"],
            "whois unix n - - - 5 whois\necho unix n - - - 5 echo\n",
        );
        client(&standalone, "whois").wait_for_end();
        until(SOON, "a line in the log", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.lines()
                .any(|line| line.contains("whois") && line.contains("asked by local"))
        });
        standalone.wait_for_line("whois: asked by local client");

        let mut client = client(&standalone, "echo");
        client.say("hello");
        assert_eq!(client.line(), "hello");
        let is_root = standalone.uid() == 0;
        let children = standalone.process().children();
        assert!(!children.is_empty());
        for child in children {
            let descriptors = child.descriptors();
            let of_the_log = |d: &Descriptor| d.target == log.display().to_string();
            let keeps = descriptors.values().any(of_the_log);
            assert_eq!(keeps, !is_root, "{descriptors:?}");
        }
    }
}
