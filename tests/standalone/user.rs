//! A master without root's privileges.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::{skip, test};

/// A service that is woken up at once, whose program writes its environment to a file.
fn witness(standalone: &Standalone) -> String {
    let facts = standalone.path().join("facts");
    let facts = facts.display();
    let script = standalone.script(
        "witness",
        &format!(
            "{{ echo \"$0 $*\"; id -u; pwd; env; }} >{facts}.new; mv {facts}.new {facts}; \
             exec sleep 1000"
        ),
    );
    format!("woken fifo n y y 60 1 {} more", script.display())
}

#[track_caller]
fn facts(standalone: &mut Standalone) -> String {
    let path = standalone.path().join("facts");
    until(SOON, "the child's word", || fs::read_to_string(&path).ok())
}

#[test]
fn anybody_runs_a_table_of_their_own() {
    let mut standalone = Standalone::of_a_user();
    let table = witness(&standalone);
    standalone.write_table(&table).start();
    let facts = facts(&mut standalone);
    let lines: Vec<&str> = facts.lines().collect();
    // Neither -u nor -c: the child has no privileges to give up.
    assert!(
        lines[0].ends_with("/witness -l -n woken -t fifo -d more"),
        "{facts}"
    );
    assert_eq!(lines[1], standalone.uid().to_string());
    assert_eq!(lines[2], standalone.queue().to_string_lossy());
    let table = format!("MAIL_CONFIG={}", standalone.table().display());
    assert!(lines.contains(&table.as_str()), "{facts}");
    assert!(lines.contains(&"PATH=/usr/bin:/bin"), "{facts}");
}

#[test]
fn void_columns_are_told_of_once() {
    let mut standalone = Standalone::of_a_user();
    let table = witness(&standalone);
    standalone.write_table(&table).start();
    standalone.wait_for_line("not running as root: all children run as the same user");
    standalone.reload();
    assert_eq!(standalone.said().matches("not running as root").count(), 1);
}

#[test]
fn sockets_belong_to_the_user_and_nobody_else_reaches_private_ones() {
    let mut standalone = Standalone::of_a_user();
    let table = "open unix n - - - - true\nclosed unix y - - - - true\n";
    standalone.write_table(table).start();
    for (socket, directory_mode) in [("public/open", 0o755), ("private/closed", 0o700)] {
        let socket = standalone.queue().join(socket);
        assert_eq!(fs::metadata(&socket).unwrap().uid(), standalone.uid());
        let directory = fs::metadata(socket.parent().unwrap()).unwrap();
        assert_eq!(directory.mode() & 0o777, directory_mode, "{socket:?}");
    }
}

#[test]
fn control_c_stops_it_cleanly() {
    let mut standalone = Standalone::of_a_user();
    let table = witness(&standalone);
    standalone.write_table(&table).start();
    facts(&mut standalone);
    let [child] = standalone.process().children()[..] else {
        panic!("one child");
    };
    let end = standalone.stop_by(Signal::SIGINT);
    assert_eq!(end.status.signal(), Some(Signal::SIGINT as i32));
    assert!(
        end.stderr.ends_with("master: terminating on signal 2\n"),
        "{}",
        end.stderr
    );
    until(SOON, "the child's end", || !child.runs());
}

#[test]
fn a_second_master_is_refused_and_told_how_to_be_one() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix - - - - - true\n").start();
    let said = standalone.fail(&["-d"]).stderr;
    assert!(said.contains("master.pid: locked by process"), "{said}");
    assert!(said.contains("queue_directory"), "{said}");
    // -t has the corresponding exit status.
    run(&mut standalone.master(&["-t"]), SOON).expect_failure();
    standalone.stop_by(Signal::SIGTERM);
    run(&mut standalone.master(&["-t"]), SOON).expect_success();
}

#[test]
fn a_port_that_is_reserved_for_root_is_refused_with_the_remedy() {
    let first = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let first = fs::read_to_string(first).unwrap_or_default();
    if first.trim().parse().unwrap_or(1024) < 1024 {
        skip("this system reserves no ports for root");
    }
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("127.0.0.1:79 inet n - - - - true\n");
    let said = standalone.fail(&["-d"]).stderr;
    assert!(
        said.contains("service \"127.0.0.1:79\" ([127.0.0.1]:79): cannot listen on 127.0.0.1:79: Permission denied; ports below 1024 are reserved for root"),
        "{said}"
    );
}

#[test]
fn a_user_without_a_place_for_files_is_told() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix - - - - - true\n");
    let mut master = standalone.master(&["-d"]);
    let said = run(master.env_clear(), SOON).expect_failure().stderr;
    assert!(
        said.contains("fatal: no place for sockets and locks"),
        "{said}"
    );
}

#[test]
fn postfix_is_for_root_alone() {
    let standalone = Standalone::of_a_user();
    fs::write(standalone.path().join("main.cf"), "").unwrap();
    let mut master = standalone.master(&[]);
    master.arg("-c").arg(standalone.path());
    let said = run(&mut master, SOON).expect_failure().stderr;
    assert!(said.contains("reserved for the superuser"), "{said}");
}
