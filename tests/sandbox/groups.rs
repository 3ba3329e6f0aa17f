//! Control groups of services: who is in them, and that nothing is left of them.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use testkit::groups::{FORKING, delegated, group_of, group_of_child, nothing_is_left, processes};
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::process::Process;
use testkit::standalone::Standalone;
use testkit::{note, test};

use crate::stage::{CHILDREN, ask, configure, stage, start};

/// A running master with a service whose children leave processes behind: with a session of their own,
/// and without a parent. The group, and what is in it.
fn forking(settings: &str) -> (Standalone, PathBuf, Vec<Process>) {
    let (standalone, script, _client) = scripted("forking", FORKING, settings);
    let (group, all) = group_of_child(&script, 4);
    (standalone, group, all)
}

/// A running master whose service `rust` is this script, its path, and a client.
fn scripted(name: &str, text: &str, settings: &str) -> (Standalone, PathBuf, UnixStream) {
    delegated();
    let mut standalone = stage(Standalone::new());
    let script = standalone.script(name, text);
    standalone.write_table(&format!(
        "rust unix n - n - 1 {}\npython unix n - n - 1 x\n",
        script.display()
    ));
    configure(&standalone, settings);
    standalone.start();
    let socket = standalone.queue().join("public/rust");
    let client = UnixStream::connect(socket).expect("a listener");
    (standalone, script, client)
}

#[test]
fn the_children_of_a_service_are_in_a_group_of_its_own() {
    delegated();
    let mut standalone = start(Standalone::new(), "control_group = true");
    let groups = CHILDREN.map(|name| {
        let cgroup = ask(&mut standalone, name, "read /proc/self/cgroup");
        let group = group_of(&cgroup);
        assert!(group.ends_with(group.file_name().expect("a name")));
        assert!(group.display().to_string().contains(name), "{group:?}");
        assert_eq!(processes(&group).len(), 1, "{group:?}");
        group
    });
    assert_ne!(groups[0], groups[1]);
    let master = standalone.process();
    assert!(
        !groups
            .iter()
            .any(|group| processes(group).contains(&master))
    );
    standalone.stop_by(Signal::SIGTERM);
    groups.iter().for_each(|group| nothing_is_left(group, &[]));
    assert!(!groups[0].parent().expect("a parent").exists());
}

#[test]
fn a_stop_ends_what_children_have_put_into_the_background() {
    let (mut standalone, group, all) = forking("control_group = true");
    standalone.stop_by(Signal::SIGTERM);
    nothing_is_left(&group, &all);
}

/// The child takes a client, and neither finishes nor ends of SIGTERM.
#[test]
fn a_time_limit_ends_what_the_child_has_left_behind() {
    let (mut standalone, script, client) = scripted(
        "stuck",
        "exec python3 -c '\n\
         import os, signal, socket, struct, sys, time\n\
         signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
         client, _ = socket.socket(fileno=6).accept()\n\
         for number in range(2):\n    \
             if os.fork() == 0:\n        \
                 os.setsid()\n        \
                 time.sleep(999)\n\
         generation = int(os.environ[\"GENERATION\"], 8)\n\
         os.write(5, struct.pack(\"iIi\", os.getpid(), generation, 0))\n\
         open(sys.argv[1], \"w\").write(f\"{os.getpid()}\\n\")\n\
         time.sleep(999)' $0.pid",
        "control_group = true\nrequest_timeout = 2\nstop_timeout = 1",
    );
    let (group, all) = group_of_child(&script, 3);
    assert_eq!(all.len(), 3, "{all:?}");
    drop(client);
    until(SOON, "their end", || {
        !all.iter().any(|process| process.runs())
    });
    // The service has its group still, and the master serves.
    assert!(group.exists());
    assert!(!standalone.said().contains("terminating"));
    standalone.stop_by(Signal::SIGTERM);
    nothing_is_left(&group, &all);
}

#[test]
fn a_removed_service_leaves_nothing_behind() {
    let (mut standalone, group, all) = forking("control_group = true\nstop_timeout = 1");
    let table = fs::read_to_string(standalone.table()).expect("a table");
    let rest: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("python"))
        .collect();
    standalone.write_table(&format!("{}\n", rest[0]));
    standalone.reload();
    nothing_is_left(&group, &all);
    standalone.stop_by(Signal::SIGTERM);
    nothing_is_left(group.parent().expect("the master's group"), &[]);
}

#[test]
fn a_master_that_was_killed_and_is_started_again_ends_what_is_left() {
    let (mut standalone, group, all) = forking("control_group = true");
    let master = standalone.process();
    master.signal(Signal::SIGKILL);
    until(SOON, "the master has ended", || !master.runs());
    assert!(all.iter().any(|process| process.runs()));
    standalone.start();
    until(SOON, "what was left ends", || {
        !all.iter().any(|process| process.runs())
    });
    standalone.stop_by(Signal::SIGTERM);
    nothing_is_left(&group, &all);
}

#[test]
fn groups_that_are_frozen_or_have_groups_below_are_removed_as_well() {
    let (mut standalone, group, all) = forking("control_group = true");
    // More than are removed at a time, and deep ones.
    for number in 0..300 {
        fs::create_dir(group.join(format!("x{number}"))).expect("a group");
    }
    let below = group.join("a/".repeat(60));
    fs::create_dir_all(&below).expect("a group");
    fs::write(below.join("cgroup.procs"), all[0].0.to_string()).expect("a process");
    fs::write(group.join("cgroup.freeze"), "1").expect("a group");
    // Another service is served meanwhile; it has a child in Python in the other tests.
    standalone.stop_by(Signal::SIGTERM);
    nothing_is_left(&group, &all);
}

#[test]
fn limits_are_those_of_the_group_and_a_reload_changes_them_in_place() {
    let root = delegated();
    let mut standalone = start(
        Standalone::new(),
        "memory_max = \"512M\"\nmemory_high = \"256M\"\ntasks_max = 50\ncpu_weight = 50\n\
         cpu_max = \"150%\"\nio_weight = 50",
    );
    let cgroup = ask(&mut standalone, "rust", "read /proc/self/cgroup");
    let group = group_of(&cgroup);
    let available = fs::read_to_string(root.join("cgroup.controllers")).expect("a group");
    let has = |controller: &str| available.split_whitespace().any(|name| name == controller);
    let read = |file: &str| fs::read_to_string(group.join(file)).unwrap_or_default();
    let files = [
        ("memory", "memory.max", "536870912\n", "1073741824\n"),
        ("memory", "memory.high", "268435456\n", "max\n"),
        ("pids", "pids.max", "50\n", "max\n"),
        ("io", "io.weight", "default 50\n", "default 100\n"),
        ("cpu", "cpu.max", "150000 100000\n", "max 100000\n"),
        ("cpu", "cpu.weight", "50\n", "100\n"),
    ];
    for (controller, file, value, _) in files {
        if has(controller) {
            assert_eq!(read(file), value, "{file}");
        } else {
            note(&format!("no controller {controller} in version 2"));
            let fault = format!("the controller \"{controller}\" cannot be used in");
            standalone.wait_for_line(&fault);
        }
    }
    configure(&standalone, "memory_max = \"1G\"");
    assert!(standalone.reload().contains("reload done"));
    for (_, file, _, value) in files.into_iter().filter(|(controller, ..)| has(controller)) {
        until(SOON, file, || read(file) == value);
    }
    let refused = format!("cannot set \"memory_max\" of {}", group.display());
    // Once when the group was made, and once when it was changed.
    until(SOON, "the limit that cannot be set", || {
        has("memory") || standalone.said().matches(&refused).count() == 2
    });
    let after = ask(&mut standalone, "rust", "read /proc/self/cgroup");
    assert_eq!(group_of(&after), group);
    standalone.stop_by(Signal::SIGTERM);
    nothing_is_left(&group, &[]);
}
