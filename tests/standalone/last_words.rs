//! What children write before they fail, and what they have of the terminal.

use std::fs;

use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::told;
use testkit::poll::until;
use testkit::process::Process;
use testkit::programs::service;
use testkit::run::{contents, run};
use testkit::standalone::Standalone;
use testkit::test;

/// A master in the background with this program behind one service, and its log.
fn start(standalone: &mut Standalone, script: &str, settings: &str) -> std::path::PathBuf {
    let program = standalone.script("program", script);
    standalone.write_table(&format!("a unix n - - - 5 {}\n", program.display()));
    start_table(standalone, settings)
}

/// The same with the table that is there.
fn start_table(standalone: &mut Standalone, settings: &str) -> std::path::PathBuf {
    let (file, queue) = (standalone.path().join("log"), standalone.queue());
    let data = standalone.path().join("data");
    standalone.write_toml(&format!(
        "maillog_file = \"{}\"\nmaillog_file_prefixes = \"/\"\nqueue_directory = \"{}\"\n\
         data_directory = \"{}\"\nmail_owner = \"nobody\"\n\n[service.\"a/unix\"]\n{settings}",
        file.display(),
        queue.display(),
        data.display()
    ));
    run(&mut standalone.master(&["-w"]), SOON).expect_success();
    file
}

fn connect(standalone: &Standalone) -> Client {
    Client::connect(&standalone.queue().join("public/a").display().to_string())
}

fn master(standalone: &Standalone) -> Process {
    let pid = fs::read_to_string(standalone.queue().join("pid/master.pid")).expect("a pid");
    Process(pid.trim().parse().expect("a number"))
}

/// The texts of the service's children in the log.
fn words(log: &std::path::Path) -> Vec<String> {
    let text = contents(log);
    let lines = text
        .lines()
        .filter_map(|line| line.split_once("warning: a/"));
    lines
        .filter_map(|(_, rest)| Some(rest.split_once(": ")?.1.to_owned()))
        .collect()
}

#[test]
fn the_last_words_of_a_child_that_fails_at_its_start_are_in_the_log() {
    for mut standalone in Standalone::all() {
        let script = "echo out; i=0; while [ $i -lt 500 ]; do echo line $i >&2; i=$((i+1)); done\n\
                      printf 'no end' >&2; exit 3";
        let log = start(&mut standalone, script, "");
        let _client = connect(&standalone);
        until(SOON, "the end", || {
            contents(&log).contains("bad command startup")
        });
        let words = words(&log);
        let mut expected: Vec<String> = (491..500).map(|n| format!("line {n}")).collect();
        expected.push("no end".to_owned());
        assert_eq!(words, expected);
        told(&standalone, &["stop"]);
    }
}

/// A line, a child and a second are bounded.
#[test]
fn a_child_that_writes_without_end_neither_fills_the_log_nor_stops_the_master() {
    let mut standalone = Standalone::of_a_user();
    let script = "head -c 2000000 /dev/zero | tr '\\0' x >&2; exit 3";
    let log = start(&mut standalone, script, "");
    let _client = connect(&standalone);
    until(SOON * 2, "the end", || {
        contents(&log).contains("bad command startup")
    });
    let words = words(&log);
    assert_eq!(words.len(), 10, "{words:?}");
    assert!(words.iter().all(|line| line.len() <= 1000));
    assert!(contents(&log).len() < 20_000);
    told(&standalone, &["stop"]);
}

#[test]
fn the_first_failure_of_a_program_that_worked_before_has_last_words_too() {
    let mut standalone = Standalone::of_a_user();
    let path = |name: &str| standalone.path().join(name);
    let (works, fails) = (path("works"), path("fails"));
    let script = format!(
        "if [ -e {} ]; then echo broken >&2; exit 3; fi; echo fine >&2; echo >>{}",
        fails.display(),
        works.display()
    );
    let log = start(&mut standalone, &script, "");
    let _client = connect(&standalone);
    until(SOON, "children that end well", || {
        contents(&works).len() >= 3
    });
    fs::write(&fails, "").expect("a file");
    until(SOON, "the last words", || words(&log) == ["broken"]);
    until(SOON, "the first failure", || {
        contents(&log).contains("bad command startup")
    });
    told(&standalone, &["stop"]);
}

/// A start with a socket for what the child writes costs more.
#[test]
fn of_many_children_of_a_program_that_works_few_have_a_socket_for_last_words() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the children are counted");
    let echo = standalone.install(&service("echo"));
    standalone.write_table(&format!("a unix n - - - 100 {}\n", echo.display()));
    let log = start_table(&mut standalone, "");
    let serve = || {
        let mut client = connect(&standalone);
        client.say("hello");
        assert_eq!(client.line(), "hello");
        client
    };
    serve().finish();
    // Each has a child of its own.
    let clients: Vec<Client> = (0..60).map(|_| serve()).collect();
    let children = master(&standalone).children();
    let errors = |child: &Process| child.descriptors()[&2].target.clone();
    let errors: Vec<String> = children.iter().map(errors).collect();
    let with = errors.iter().filter(|target| target.starts_with("socket:"));
    let without = errors.iter().filter(|target| *target == "/dev/null");
    let (with, without) = (with.count(), without.count());
    assert_eq!(with + without, errors.len(), "{errors:?}");
    assert!(with >= 10 && without >= 1, "{with} with, {without} without");
    drop(clients);
    told(&standalone, &["stop"]);
    assert_eq!(words(&log), [""; 0]);
}

#[test]
fn a_child_that_ends_well_or_is_told_to_leave_has_no_last_words() {
    let mut standalone = Standalone::of_a_user();
    let script = "echo something >&2; read -r line <&5; exit 0";
    let log = start(&mut standalone, script, "");
    let _client = connect(&standalone);
    let master = master(&standalone);
    until(SOON, "a child", || !master.children().is_empty());
    told(&standalone, &["reload"]);
    told(&standalone, &["stop"]);
    until(SOON, "the master's end", || !master.runs());
    assert_eq!(words(&log), [""; 0]);
}

/// SIGINT is how the master ends idle children of a pool.
#[test]
fn a_child_of_a_pool_that_dies_of_the_masters_sigint_has_no_last_words() {
    let mut standalone = Standalone::of_a_user();
    let ready = standalone.path().join("ready");
    let script = format!(
        "exec python3 -c '\n\
         import os, struct, time\n\
         os.write(5, b\"I\" + struct.pack(\"=i\", os.getpid()) + b\"\\n\")\n\
         open(\"{}\", \"a\").close()\n\
         time.sleep(600)\n\
         '",
        ready.display()
    );
    let log = start(
        &mut standalone,
        &script,
        "accept = \"ordered\"\nmin_idle = 1\n",
    );
    until(SOON, "an idle child", || ready.exists());
    let child = master(&standalone).children()[0];
    told(&standalone, &["reload"]);
    until(SOON, "the old child's end", || !child.runs());
    told(&standalone, &["stop"]);
    assert_eq!(words(&log), [""; 0]);
}

/// A child with the terminal could put commands into it (TIOCSTI), or read what is typed.
#[test]
fn a_child_of_an_attached_master_has_nothing_of_its_terminal() {
    for mut standalone in Standalone::all() {
        let facts = standalone.path().join("facts");
        let script = standalone.script(
            "program",
            &format!(
                "echo hello; echo oops >&2; echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000",
                facts.display()
            ),
        );
        standalone.write_table(&format!("woken fifo n - - 60 1 {}\n", script.display()));
        if standalone.uid() == 0 {
            fs::set_permissions(
                standalone.path(),
                std::os::unix::fs::PermissionsExt::from_mode(0o777),
            )
            .expect("a mode");
        }
        standalone.start();
        let pid = until(SOON, "the child", || fs::read_to_string(&facts).ok());
        let child = Process(pid.trim().parse().expect("a number"));
        let master = standalone.process();
        assert_eq!(child.session(), child.0);
        assert_eq!(child.group(), child.0);
        assert_ne!(child.session(), master.session());
        let descriptors = child.descriptors();
        assert_eq!(descriptors[&0].target, "/dev/null");
        for number in [1, 2] {
            assert!(
                descriptors[&number].target.starts_with("socket:"),
                "{number}"
            );
        }
        for text in ["hello", "oops"] {
            standalone.wait_for_line(&format!("{text}\n"));
        }
        child.signal(nix::sys::signal::Signal::SIGKILL);
        standalone.wait_for_line(&format!("warning: woken/{}: oops", child.0));
        standalone.stop_by(nix::sys::signal::Signal::SIGTERM);
        until(SOON, "the child's end", || !child.runs());
    }
}
