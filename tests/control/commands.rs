//! The commands of masterctl.

use std::fs;
use std::net::TcpListener;

use master::status::Document;
use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::{masterctl, read_document, service, told};
use testkit::poll::until;
use testkit::puppet::Puppets;
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::test;

#[test]
fn status_shows_services_and_one_with_its_children() {
    for mut standalone in Standalone::all() {
        let (puppets, command) = Puppets::of(&standalone, "a");
        standalone.write_table(&format!(
            "a unix n - - - 5 {command}\nb unix n - - 60 1 true\n"
        ));
        standalone.start();
        let socket = standalone.queue().join("public/a");
        let _client = Client::connect(&socket.to_string_lossy());
        let mut puppet = puppets.next();
        puppet.take_client();
        puppet.wait_until_heard();
        until(SOON, "the child to be shown as busy", || {
            service(&standalone, "a").busy == 1
        });
        let table = told(&standalone, &["status"]);
        let pid = standalone.process().0;
        assert!(
            table.starts_with(&format!(
                "master {}: pid {pid}, up ",
                env!("CARGO_PKG_VERSION")
            )),
            "{table}"
        );
        assert!(
            table.lines().all(|line| line.chars().count() <= 80),
            "{table}"
        );
        let row = table.lines().find(|line| line.starts_with("a unix "));
        let numbers: Vec<_> = row.expect("a row").split_whitespace().skip(2).collect();
        assert_eq!(numbers, ["1", "0", "5", "1", "1", "0"], "{table}");
        let one = told(&standalone, &["status", "a"]);
        let child = format!("{:>10}  busy ", puppet.process.0);
        assert!(one.contains(&child), "{one}");
        let json = told(&standalone, &["status", "--json"]);
        let document: Document = serde_json::from_str(&json).expect("a document");
        assert_eq!(document.services[0].children[0].pid, puppet.process.0);
    }
}

#[test]
fn plan_shows_what_a_reload_would_change_and_changes_nothing() {
    for mut standalone in Standalone::all() {
        standalone
            .write_table("a unix n - - - 5 true\nb unix n - - - 5 true\n")
            .start();
        standalone.write_table("a unix n - - - 7 true\nc unix n - - - 5 true\n");
        let plan = told(&standalone, &["plan"]);
        let expected = "+ c/unix\n- b/unix: 0 children end\n~ a/unix\n    maxproc: 5 -> 7\n";
        assert!(plan.starts_with(expected), "{plan}");
        assert_eq!(read_document(&standalone).generation, 1);
        standalone.write_table("a unix n - - - many true\n");
        let plan = masterctl(&standalone, &["plan"]);
        assert_eq!(plan.status.code(), Some(1));
        assert!(
            plan.stdout.contains("a reload would change nothing"),
            "{plan:?}"
        );
    }
}

#[test]
fn a_plan_for_what_runs_is_empty_wherever_masterctl_lies() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    standalone.write_table("a unix n - - - 5 true\n").start();
    let elsewhere = standalone.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut command = standalone.masterctl(&["plan"]);
    let other = elsewhere.join("masterctl");
    fs::rename(command.get_program(), &other).unwrap();
    std::os::unix::fs::symlink(&other, command.get_program()).unwrap();
    let plan = run(&mut command, SOON).expect_success().stdout;
    assert!(
        plan.starts_with("services: 0 added, 0 removed, 0 changed, 1 unchanged"),
        "{plan}"
    );
}

#[test]
fn reload_tells_what_came_of_it() {
    for mut standalone in Standalone::all() {
        standalone.unwatched("the services are counted");
        standalone.write_table("a unix n - - - 5 true\n").start();
        standalone.write_table("b unix n - - - 5 true\n");
        assert!(told(&standalone, &["reload"]).ends_with("reloaded\n"));
        let document = read_document(&standalone);
        assert_eq!((document.generation, &*document.services[0].name), (2, "b"));
        assert!(document.last_reload.expect("a reload").succeeded);
        // Once more, with a previous reload in the document.
        assert!(told(&standalone, &["reload"]).ends_with("reloaded\n"));
        assert_eq!(read_document(&standalone).generation, 3);
    }
}

#[test]
fn with_a_queue_directory_the_masters_own_configuration_is_meant() {
    // Root asks, whose own master would have other defaults, and a warning.
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    standalone.write_table("b unix n - - - 5 true\n");
    let queue = standalone.queue().display().to_string();
    let ask = |command| {
        let mut asked = standalone.masterctl(&[]);
        let program = asked.get_program().to_owned();
        asked = std::process::Command::new(program);
        asked.args(["--queue", &queue, command]);
        run(&mut asked, SOON).expect_success().stdout
    };
    let plan = ask("plan");
    assert!(plan.starts_with("+ b/unix\n- a/unix: "), "{plan}");
    assert_eq!(ask("reload"), "reloaded\n");
    assert_eq!(read_document(&standalone).generation, 2);
}

#[test]
fn reload_leaves_the_master_alone_when_the_files_are_wrong() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    standalone.write_table("a unix n - - - many true\n");
    let reload = masterctl(&standalone, &["reload"]);
    assert_eq!(reload.status.code(), Some(1));
    assert!(reload.stdout.contains("line 1: column 16: "), "{reload:?}");
    assert_eq!(read_document(&standalone).last_reload, None);
}

#[test]
fn a_reload_that_fails_says_what_the_log_says() {
    for mut standalone in Standalone::all() {
        standalone.write_table("a unix n - - - 5 true\n").start();
        let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = stranger.local_addr().expect("its address");
        standalone.write_table(&format!("{address} inet n - - - 5 true\n"));
        let reload = masterctl(&standalone, &["reload"]);
        assert_eq!(reload.status.code(), Some(1), "{reload:?}");
        let line = format!("cannot listen on {address}: Address already in use");
        assert!(reload.stdout.contains(&line), "{reload:?}");
        let document = read_document(&standalone);
        let last = document.last_reload.expect("a reload");
        assert!(!last.succeeded);
        let said = standalone.said();
        for finding in &last.findings {
            assert!(
                said.contains(&format!("master: {finding}\n")),
                "{finding} in {said}"
            );
        }
        assert!(told(&standalone, &["status"]).contains(&line));
    }
}

#[test]
fn reload_of_one_service_replaces_its_children_and_no_others() {
    let mut standalone = Standalone::of_a_user();
    let (first, first_command) = Puppets::of(&standalone, "a");
    let (second, second_command) = Puppets::of(&standalone, "b");
    standalone.write_table(&format!(
        "a unix n - - - 5 {first_command}\nb unix n - - - 5 {second_command}\n"
    ));
    standalone.start();
    let socket = |name: &str| {
        standalone
            .queue()
            .join("public")
            .join(name)
            .display()
            .to_string()
    };
    let sockets = [socket("a"), socket("b")];
    let _clients = sockets.each_ref().map(|socket| Client::connect(socket));
    let (one, mut other) = (first.next(), second.next());
    let generation = read_document(&standalone).generation;
    assert_eq!(
        told(&standalone, &["reload", "a"]),
        "a/unix: its children are being replaced\n"
    );
    one.wait_for_end();
    // The other service's child is not told to leave.
    other.take_client();
    other.wait_until_heard();
    assert_eq!(read_document(&standalone).generation, generation);
    standalone.wait_for_line("reload service \"a\" (public/a): done, for uid ");
}

#[test]
fn a_paused_services_clients_wait_until_it_is_resumed() {
    for mut standalone in Standalone::all() {
        let (puppets, command) = Puppets::of(&standalone, "a");
        let table = format!("a unix n - - - 5 {command}\n");
        standalone.write_table(&table).start();
        assert_eq!(told(&standalone, &["pause", "a"]), "a/unix: paused\n");
        assert!(service(&standalone, "a").paused);
        standalone.wait_for_line("pause service \"a\" (public/a): done, for uid ");
        let socket = standalone.queue().join("public/a");
        let _client = Client::connect(&socket.to_string_lossy());
        standalone.reload();
        let paused = service(&standalone, "a");
        assert!(
            paused.paused && !paused.listening && paused.total == 0,
            "{paused:?}"
        );
        assert!(told(&standalone, &["status"]).contains("  paused\n"));
        assert_eq!(told(&standalone, &["resume", "a"]), "a/unix: resumed\n");
        puppets.next().take_client();
        assert!(!service(&standalone, "a").paused);
    }
}

#[test]
fn wake_starts_a_service_that_nobody_asked_for() {
    for mut standalone in Standalone::all() {
        let mark = standalone.path().join("mark");
        let script = standalone.script(
            "script",
            &format!("touch {}; read -r byte <&6", mark.display()),
        );
        standalone.write_table(&format!("woken fifo n - - - 1 {}\n", script.display()));
        standalone.start();
        assert_eq!(
            told(&standalone, &["wake", "woken"]),
            "woken/fifo: woken up\n"
        );
        until(SOON, "the script to run", || mark.exists());
    }
}

#[test]
fn the_log_level_can_be_changed_while_it_runs() {
    let mut standalone = Standalone::of_a_user();
    let (puppets, command) = Puppets::of(&standalone, "a");
    standalone
        .write_table(&format!("a unix n - - - 5 {command}\n"))
        .start();
    told(&standalone, &["log-level", "verbose"]);
    assert!(read_document(&standalone).verbose);
    let socket = standalone.queue().join("public/a");
    let _client = Client::connect(&socket.to_string_lossy());
    let mut puppet = puppets.next();
    standalone.wait_for_line(": started ");
    told(&standalone, &["log-level", "quiet"]);
    standalone.wait_for_line("log level quiet: done, for uid ");
    let mark = standalone.said().len();
    puppet.take_client();
    puppet.wait_until_heard();
    until(SOON, "the child to be busy", || {
        service(&standalone, "a").busy == 1
    });
    assert!(
        !standalone.said()[mark..].contains(": avail "),
        "{}",
        standalone.said()
    );
}

#[test]
fn stop_ends_the_master_and_leaves_no_sockets() {
    for mut standalone in Standalone::all() {
        standalone.write_table("a unix n - - - 5 true\n").start();
        let process = standalone.process();
        // The test is the master's parent and must reap it.
        assert_eq!(told(&standalone, &["stop"]), "stopped\n");
        until(SOON, "the master's end", || !process.runs());
        for name in [master::status::SOCKET, master::control::SOCKET] {
            assert!(!standalone.queue().join(name).exists(), "{name}");
        }
    }
}

#[test]
fn sockets_that_a_killed_master_left_are_replaced() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    standalone.stop_by(Signal::SIGKILL);
    assert!(standalone.queue().join(master::status::SOCKET).exists());
    standalone.start();
    let pid = standalone.process().0;
    assert_eq!(read_document(&standalone).pid as i32, pid);
}

#[test]
fn shells_can_complete_the_commands() {
    let standalone = Standalone::of_a_user();
    for shell in ["bash", "zsh", "fish"] {
        let text = told(&standalone, &["completions", shell]);
        assert!(text.contains("log-level"), "{shell}: {text}");
    }
}
