//! What somebody without root's privileges has.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;

use super::common::instance::SOON;
use super::common::poll::until;
use super::common::run::run;
use super::world::World;

/// A service that is woken up at once, with a program that writes down what it was given.
fn witness(world: &World) -> String {
    let facts = world.path().join("facts");
    let facts = facts.display();
    let script = world.script(
        "witness",
        &format!(
            "{{ echo \"$0 $*\"; id -u; pwd; env; }} >{facts}.new; mv {facts}.new {facts}; \
             exec sleep 1000"
        ),
    );
    format!("woken fifo n y y 60 1 {} more", script.display())
}

#[track_caller]
fn facts(world: &mut World) -> String {
    let path = world.path().join("facts");
    until(SOON, "the child's word", || fs::read_to_string(&path).ok())
}

#[test]
fn anybody_runs_a_table_of_their_own() {
    let mut world = World::of_a_user();
    let table = witness(&world);
    world.write_table(&table).start();
    let facts = facts(&mut world);
    let lines: Vec<&str> = facts.lines().collect();
    // Neither -u nor -c: there is nothing to give up.
    assert!(
        lines[0].ends_with("/witness -l -n woken -t fifo -d more"),
        "{facts}"
    );
    assert_eq!(lines[1], world.uid().to_string());
    assert_eq!(lines[2], world.queue().to_string_lossy());
    let table = format!("MAIL_CONFIG={}", world.table().display());
    assert!(lines.contains(&table.as_str()), "{facts}");
    assert!(lines.contains(&"PATH=/usr/bin:/bin"), "{facts}");
}

#[test]
fn void_columns_are_told_of_once() {
    let mut world = World::of_a_user();
    let table = witness(&world);
    world.write_table(&table).start();
    world.wait_for_line("not running as root: all children run as the same user");
    world.reload();
    assert_eq!(world.said().matches("not running as root").count(), 1);
}

#[test]
fn sockets_belong_to_the_user_and_nobody_else_reaches_private_ones() {
    let mut world = World::of_a_user();
    let table = "open unix n - - - - true\nclosed unix y - - - - true\n";
    world.write_table(table).start();
    for (socket, directory_mode) in [("public/open", 0o755), ("private/closed", 0o700)] {
        let socket = world.queue().join(socket);
        assert_eq!(fs::metadata(&socket).unwrap().uid(), world.uid());
        let directory = fs::metadata(socket.parent().unwrap()).unwrap();
        assert_eq!(directory.mode() & 0o777, directory_mode, "{socket:?}");
    }
}

#[test]
fn control_c_stops_it_cleanly() {
    let mut world = World::of_a_user();
    let table = witness(&world);
    world.write_table(&table).start();
    facts(&mut world);
    let [child] = world.process().children()[..] else {
        panic!("one child");
    };
    let end = world.stop_by(Signal::SIGINT);
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
    let mut world = World::of_a_user();
    world.write_table("a unix - - - - - true\n").start();
    let said = world.fail(&["-d"]).stderr;
    assert!(said.contains("master.pid: locked by process"), "{said}");
    assert!(said.contains("queue_directory"), "{said}");
    // -t says the same by its status.
    run(&mut world.master(&["-t"]), SOON).expect_failure();
    world.stop_by(Signal::SIGTERM);
    run(&mut world.master(&["-t"]), SOON).expect_success();
}

#[test]
fn a_port_that_is_reserved_for_root_is_refused_with_the_remedy() {
    let first = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let first = fs::read_to_string(first).unwrap_or_default();
    if first.trim().parse().unwrap_or(1024) < 1024 {
        return super::common::skip("this system reserves no ports for root");
    }
    let mut world = World::of_a_user();
    world.write_table("127.0.0.1:79 inet n - - - - true\n");
    let said = world.fail(&["-d"]).stderr;
    assert!(
        said.contains("service \"127.0.0.1:79\" ([127.0.0.1]:79): cannot listen on 127.0.0.1:79: Permission denied; ports below 1024 are reserved for root"),
        "{said}"
    );
}

#[test]
fn a_user_without_a_place_for_files_is_told() {
    let mut world = World::of_a_user();
    world.write_table("a unix - - - - - true\n");
    let mut master = world.master(&["-d"]);
    let said = run(master.env_clear(), SOON).expect_failure().stderr;
    assert!(
        said.contains("fatal: no place for sockets and locks"),
        "{said}"
    );
}

#[test]
fn postfix_is_for_root_alone() {
    let world = World::of_a_user();
    fs::write(world.path().join("main.cf"), "").unwrap();
    let mut master = world.master(&[]);
    master.arg("-c").arg(world.path());
    let said = run(&mut master, SOON).expect_failure().stderr;
    assert!(said.contains("reserved for the superuser"), "{said}");
}
