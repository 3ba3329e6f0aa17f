//! Children that are told to leave: their last reports count, and when the master says that a
//! reload is done, it is done.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::stage::Stage;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::told;
use testkit::poll::{until, within};
use testkit::process::Process;
use testkit::programs::example;
use testkit::puppet::{Puppet, Puppets};
use testkit::{needs_root, test};

/// A master with a service `told` whose children are puppets.
struct PuppetSetup {
    puppets: Puppets,
    stage: Stage,
}

impl PuppetSetup {
    fn new(settings: &str) -> Self {
        let mut stage = Stage::new();
        let puppets = Puppets::at(stage.standalone.path(), "told");
        let program = stage.standalone.install(&example("puppet"));
        let command = format!("{} {}", program.display(), puppets.arguments());
        stage.configure(&format!("[service.\"told/unix\"]\n{settings}"));
        stage.service("told unix n", "5", &command).start();
        Self { puppets, stage }
    }

    /// Lets a child finish with its client, and report that, at the moment of a reload.
    #[track_caller]
    fn reports_and_is_told_to_leave(&mut self, mut child: Puppet) {
        let client = Client::connect(&self.stage.address("told"));
        child.take_client();
        child.wait_until_heard();
        child.tell("stay");
        let master = self.stage.master();
        master.signal(Signal::SIGSTOP);
        child.finish_client();
        drop(client);
        master.signal(Signal::SIGHUP);
        master.signal(Signal::SIGCONT);
        child.tell("dismissal");
        assert_eq!(child.tell("receive-from 5"), "", "end of file");
        until(SOON, "its client to be counted", || {
            self.stage.status("told").connections == 1
        });
        child.exit(0);
    }
}

#[test]
fn a_child_that_reports_when_it_is_told_to_leave_reads_end_of_file_and_counts() {
    needs_root("a master that keeps to itself");
    let mut told = PuppetSetup::new("min_idle = 1\n");
    let child = told.puppets.next();
    told.reports_and_is_told_to_leave(child);
}

/// While more than one child is available, reports are read in batches.
///
/// Without the fix: "receive-from 5": "error Connection reset by peer".
#[test]
fn a_child_whose_report_waits_when_it_is_told_to_leave_reads_end_of_file_and_counts() {
    needs_root("a master that keeps to itself");
    let mut told = PuppetSetup::new("min_idle = 3\n");
    let child = told.puppets.next();
    let _others = [told.puppets.next(), told.puppets.next()];
    told.reports_and_is_told_to_leave(child);
}

/// The number of children to be told.
const CHILDREN: usize = 200;

/// The number of clients after the reload.
const CLIENTS: usize = 10;

/// A master with many idle children, and their process IDs.
fn many_idle_children(mut stage: Stage, start: impl FnOnce(&mut Stage)) -> (Stage, BTreeSet<i32>) {
    let command = format!("{} serve", stage.hello());
    stage.service("many unix n", "0", &command);
    start(&mut stage);
    let address = stage.address("many");
    let mut clients: Vec<_> = (0..CHILDREN).map(|_| Client::connect(&address)).collect();
    let children = clients.iter_mut().map(child_of).collect();
    drop(clients);
    until(SOON, "all children to be idle", || {
        stage.status("many").available as usize == CHILDREN
    });
    (stage, children)
}

/// A fake service manager that receives the master's notifications.
struct Manager(UnixDatagram);

impl Manager {
    #[track_caller]
    fn wait_for_ready(&self) {
        let mut buffer = [0; 4096];
        let mut heard = String::new();
        while !heard.contains("READY=1") {
            let length = self.0.recv(&mut buffer).expect("a message in time");
            heard = String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
    }
}

fn many_idle_children_and_a_manager() -> (Stage, BTreeSet<i32>, Manager) {
    let stage = Stage::new();
    let path = stage.standalone.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a time limit");
    let manager = Manager(socket);
    let (stage, children) = many_idle_children(stage, |stage| {
        let mut master = stage.standalone.master(&["-d"]);
        stage.start_as(master.env("NOTIFY_SOCKET", &path));
        manager.wait_for_ready();
    });
    (stage, children, manager)
}

/// The child that serves a client.
fn child_of(client: &mut Client) -> i32 {
    let line = client.line();
    let pid = line
        .split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok());
    pid.expect("a process ID")
}

/// After the reload, no old child accepts a client: not while the master is stopped, so that it
/// cannot tell them, and not later, when new children serve.
#[track_caller]
fn expect_new_children(stage: &Stage, old: &BTreeSet<i32>) {
    let master = stage.master();
    master.signal(Signal::SIGSTOP);
    let address = stage.address("many");
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::connect(&address)).collect();
    let early = within(Duration::from_millis(200), || {
        let mut lines = clients.iter_mut();
        lines.find_map(|client| client.line_within(Duration::from_millis(1)))
    });
    master.signal(Signal::SIGCONT);
    assert_eq!(early, None, "a child of before has served");
    for client in &mut clients {
        let child = child_of(client);
        assert!(!old.contains(&child), "a child of before has served");
    }
}

#[test]
fn no_child_of_before_takes_a_client_after_the_line_that_a_reload_is_done() {
    needs_root("a master that keeps to itself");
    let (mut stage, old) = many_idle_children(Stage::new(), |stage| {
        stage.start();
    });
    let said = stage.reload_within(SOON);
    expect_new_children(&stage, &old);
    assert!(said.contains("reload done"), "{said}");
}

#[test]
fn no_child_of_before_takes_a_client_after_ready() {
    needs_root("a master that keeps to itself");
    let (stage, old, manager) = many_idle_children_and_a_manager();
    stage.master().signal(Signal::SIGHUP);
    manager.wait_for_ready();
    expect_new_children(&stage, &old);
}

#[test]
fn no_child_of_before_takes_a_client_after_masterctl_reload() {
    needs_root("a master that keeps to itself");
    let (stage, old) = many_idle_children(Stage::new(), |stage| {
        stage.start();
    });
    told(&stage.standalone, &["reload"]);
    expect_new_children(&stage, &old);
}

/// A removed service accepts no client: nothing listens.
#[track_caller]
fn expect_no_service(stage: &Stage) {
    let master = stage.master();
    master.signal(Signal::SIGSTOP);
    let address = stage.address("many");
    let mut clients: Vec<_> = (0..CLIENTS)
        .filter_map(|_| Client::try_connect(&address).ok())
        .collect();
    let served = within(Duration::from_millis(200), || {
        let mut lines = clients.iter_mut();
        lines.find_map(|client| client.line_within(Duration::from_millis(1)))
    });
    master.signal(Signal::SIGCONT);
    assert_eq!(served, None, "a child of the removed service has served");
    let waiting = clients.len();
    assert_eq!(waiting, 0, "clients that were not refused");
}

/// Without the fix: "a child of the removed service has served": it signals 64 of them before it says so.
#[test]
fn no_child_of_a_removed_service_takes_a_client_after_the_line_that_a_reload_is_done() {
    needs_root("a master that keeps to itself");
    let (mut stage, _) = many_idle_children(Stage::new(), |stage| {
        stage.start();
    });
    stage.remove("many");
    let said = stage.reload_within(SOON);
    expect_no_service(&stage);
    assert!(said.contains("1 removed"), "{said}");
}

/// Without the fix: as above.
#[test]
fn no_child_of_a_removed_service_takes_a_client_after_ready() {
    needs_root("a master that keeps to itself");
    let (mut stage, _, manager) = many_idle_children_and_a_manager();
    stage.remove("many");
    stage.master().signal(Signal::SIGHUP);
    manager.wait_for_ready();
    expect_no_service(&stage);
}

/// Without the fix: as above, in some runs: masterctl takes longer to return than the signals do.
#[test]
fn no_child_of_a_removed_service_takes_a_client_after_masterctl_reload() {
    needs_root("a master that keeps to itself");
    let (mut stage, _) = many_idle_children(Stage::new(), |stage| {
        stage.start();
    });
    stage.remove("many");
    told(&stage.standalone, &["reload"]);
    expect_no_service(&stage);
}

/// The other way to replace the children, for one service.
#[test]
fn no_child_of_before_takes_a_client_after_masterctl_reload_of_its_service() {
    needs_root("a master that keeps to itself");
    let (stage, old) = many_idle_children(Stage::new(), |stage| {
        stage.start();
    });
    told(&stage.standalone, &["reload", "many"]);
    expect_new_children(&stage, &old);
    let gone = |pid: &i32| !Process(*pid).runs();
    until(SOON, "the children of before to leave", || {
        old.iter().all(gone)
    });
}
