//! Control groups of services are carried over.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use testkit::groups::{FORKING, delegated, group_of, group_of_child, nothing_is_left, processes};
use testkit::instance::SOON;
use testkit::operator::{service, told};
use testkit::poll::until;
use testkit::process::Process;
use testkit::puppet::Puppets;
use testkit::standalone::Standalone;
use testkit::{note, programs, test};

use crate::stage::upgrade;

/// A master, not started yet, that can have control groups.
fn stage() -> Standalone {
    delegated();
    let mut standalone = Standalone::new();
    standalone.unwatched("services are added and removed");
    standalone.install(&programs::executor());
    standalone
}

/// A running master with a service of puppets in a control group.
fn grouped() -> (Standalone, Puppets) {
    let mut standalone = stage();
    let (puppets, command) = Puppets::of(&standalone, "a");
    standalone.write_table(&format!(
        "a unix n n - - 2 {command}\nb unix n n - - 1 true\n"
    ));
    configure(&standalone, "[service.\"a/unix\"]\ntasks_max = 50\n");
    standalone.start();
    (standalone, puppets)
}

fn configure(standalone: &Standalone, settings: &str) {
    standalone.write_toml(&format!(
        "queue_directory = \"{}\"\ndata_directory = \"{}\"\nmail_owner = \"nobody\"\n\
         {settings}",
        standalone.queue().display(),
        standalone.path().join("data").display()
    ));
}

fn connect(standalone: &Standalone) -> UnixStream {
    UnixStream::connect(standalone.queue().join("public/a")).expect("a listener")
}

fn limit(group: &Path) -> String {
    let text = fs::read_to_string(group.join("pids.max"));
    text.unwrap_or_default().trim().to_owned()
}

#[test]
fn children_are_in_the_same_group_afterwards_and_its_limits_can_be_changed() {
    let (mut standalone, puppets) = grouped();
    let _client = connect(&standalone);
    let mut first = puppets.next();
    first.take_client();
    let group = group_of(&first.process.cgroup());
    let usage = service(&standalone, "a").processor_time;
    assert!(usage.is_some());
    upgrade(&standalone);
    upgrade(&standalone);
    let has_limits = group.join("pids.max").exists();
    if has_limits {
        assert_eq!(limit(&group), "50");
    } else {
        note("limits, as the system has no controllers of version 2");
    }
    assert!(service(&standalone, "a").processor_time >= usage);
    let _another = connect(&standalone);
    let mut second = puppets.next();
    second.take_client();
    assert_eq!(group_of(&second.process.cgroup()), group);
    let all = processes(&group);
    assert!(all.contains(&second.process) && !all.contains(&standalone.process()));
    configure(&standalone, "[service.\"a/unix\"]\ntasks_max = 60\n");
    standalone.reload();
    if has_limits {
        until(SOON, "another limit", || limit(&group) == "60");
    }
    assert!(
        !standalone.said().contains("control group"),
        "{}",
        standalone.said()
    );
    standalone.stop_by(Signal::SIGTERM);
    until(SOON, "the end of the group", || !group.exists());
    assert!(!group.parent().expect("a parent").exists());
}

/// A master whose service has a child that leaves processes behind, which take no notice of signals.
/// The group, and what is in it.
fn forking() -> (Standalone, PathBuf, Vec<Process>) {
    let mut standalone = stage();
    let script = standalone.script("forking", FORKING);
    standalone.write_table(&format!(
        "a unix n n - - 1 {}\nb unix n n - - 1 true\n",
        script.display()
    ));
    configure(
        &standalone,
        "[service.\"a/unix\"]\ncontrol_group = true\nstop_timeout = 1\n",
    );
    standalone.start();
    let _client = connect(&standalone);
    let (group, all) = group_of_child(&script, 4);
    (standalone, group, all)
}

#[test]
fn a_service_that_is_removed_leaves_nothing_behind_whatever_is_upgraded_meanwhile() {
    let (mut standalone, group, all) = forking();
    upgrade(&standalone);
    standalone.write_table("b unix n n - - 1 true\n");
    configure(&standalone, "");
    standalone.reload();
    upgrade(&standalone);
    assert!(all.iter().any(|process| process.runs()));
    nothing_is_left(&group, &all);
    upgrade(&standalone);
    standalone.stop_by(Signal::SIGTERM);
}

#[test]
fn a_stop_afterwards_ends_all_that_is_in_the_groups() {
    let (mut standalone, group, all) = forking();
    upgrade(&standalone);
    standalone.stop_by(Signal::SIGTERM);
    nothing_is_left(&group, &all);
}

#[test]
fn what_a_killed_child_has_left_behind_is_ended_afterwards() {
    let (mut standalone, group, all) = forking();
    told(&standalone, &["reload", "a"]);
    upgrade(&standalone);
    // The child is killed after its time, and the rest of the group with it.
    until(SOON, "the ends of all", || {
        !all.iter().any(|process| process.runs())
    });
    assert!(group.exists());
    assert_eq!(service(&standalone, "a").killed, 1);
    standalone.stop_by(Signal::SIGTERM);
}
