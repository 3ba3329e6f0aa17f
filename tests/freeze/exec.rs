//! Programs whose exec hangs. Each is a shell script that runs `hello` once it can be read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::fanotify::Unanswered;
use crate::fuse::Mount;
use crate::lease::Lease;
use crate::stage::Stage;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::masterctl;
use testkit::poll::{stays, until};
use testkit::process::Process;
use testkit::run::{Finished, Running, contents};
use testkit::{file, needs_root, test};

/// Maximum wait of another service's client.
const SECOND: Duration = Duration::from_secs(1);

/// The process limit of the service that hangs.
const LIMIT: usize = 2;

/// An obstacle in which an exec hangs, until it is released or dropped.
pub trait Hang {
    fn program(&self) -> &Path;

    /// Whether a process hangs now.
    fn holds(&self) -> bool;

    /// Lets hanging and later processes continue. By default dropping does that.
    fn release(&mut self) {}

    /// Whether no signal can end a hanging process.
    fn outlives_signals(&self) -> bool {
        false
    }
}

/// A master with a service whose program hangs in exec. The obstacle is dropped first.
struct Stuck<H: Hang> {
    hang: Option<H>,
    stage: Stage,
    /// The client for which the program was to be started.
    client: Client,
}

/// Connects a client to the service `stuck`. Its program is a script in the test's directory, which
/// `engage` makes hang.
#[track_caller]
fn stuck<H: Hang>(engage: impl FnOnce(&Stage, &str) -> H) -> Stuck<H> {
    let mut stage = Stage::new();
    let script = format!("exec {} serve", stage.hello());
    let hang = engage(&stage, &script);
    let program = hang.program().display().to_string();
    let limit = LIMIT.to_string();
    stage.service("stuck unix n", &limit, &program).start();
    stage.expect_first_byte(SECOND);
    let client = Client::connect(&stage.address("stuck"));
    until(SOON, "the exec to hang", || hang.holds());
    Stuck {
        hang: Some(hang),
        stage,
        client,
    }
}

fn permission() -> Stuck<Unanswered> {
    stuck(|stage, script| Unanswered::watch(&stage.standalone.script("program", script)))
}

fn lease() -> Stuck<Lease> {
    stuck(|stage, script| Lease::take(&stage.standalone.script("program", script)))
}

fn file_system() -> Stuck<Mount> {
    stuck(|stage, script| {
        let directory = stage.standalone.path().join("mount");
        Mount::new(&directory, &format!("#!/bin/sh\n{script}\n"))
    })
}

impl<H: Hang> Stuck<H> {
    fn hang(&self) -> &H {
        self.hang.as_ref().expect("not released yet")
    }

    fn release(&mut self) {
        let mut hang = self.hang.take().expect("not released yet");
        hang.release();
        // The file system must exist as long as its program runs.
        if hang.outlives_signals() {
            self.hang = Some(hang);
        }
    }

    /// All other services work, and this one does when its program can run.
    #[track_caller]
    fn stops_no_other_service(mut self) {
        self.stage.expect_first_byte(SECOND);

        until(SOON, "the service to be throttled", || {
            self.stage.status("stuck").throttled_until.is_some()
        });
        let program = self.hang().program().display().to_string();
        self.stage
            .wait_for_line(&["warning: ", &program, "hangs in exec"]);

        let status = masterctl(&self.stage.standalone, &["status"]).expect_success();
        assert!(status.stdout.contains("stuck"), "{}", status.stdout);

        let hello = self.stage.hello();
        self.stage.service("added unix n", "5", &hello);
        let said = self.stage.reload_within(SOON);
        assert!(said.contains("reload done"), "{said}");
        let mut added = Client::connect(&self.stage.address("added"));
        assert!(added.line_within(SECOND).is_some(), "the new table");
        self.stage.expect_first_byte(SECOND);
        self.serves_again();
    }

    /// The service serves the waiting client.
    #[track_caller]
    fn serves_again(mut self) {
        self.release();
        let line = self.client.line_within(SOON);
        assert!(line.is_some(), "the service serves again");
        until(SOON, "the throttle time to pass", || {
            self.stage.status("stuck").throttled_until.is_none()
        });
        self.stage.expect_first_byte(SECOND);
    }

    /// The master ends on request.
    #[track_caller]
    fn ends_in_time(mut self) {
        self.stage.stop();
    }
}

/// Without the fix: "no first byte within 1s".
#[test]
fn a_program_whose_exec_is_not_permitted_stops_no_other_service() {
    needs_root("fanotify");
    permission().stops_no_other_service();
}

/// Without the fix: "waited 5s in vain for the master's end after SIGTERM".
#[test]
fn a_master_ends_on_sigterm_while_an_exec_is_not_permitted() {
    needs_root("fanotify");
    permission().ends_in_time();
}

/// Without the fix: "no first byte within 1s".
#[test]
fn a_program_with_a_write_lease_stops_no_other_service() {
    needs_root("a master that keeps to itself");
    lease().stops_no_other_service();
}

/// Without the fix: "waited 5s in vain for the master's end after SIGTERM".
#[test]
fn a_master_ends_on_sigterm_while_an_exec_waits_for_a_lease() {
    needs_root("a master that keeps to itself");
    lease().ends_in_time();
}

/// Without the fix: "no first byte within 1s".
#[test]
fn a_program_in_a_file_system_that_does_not_answer_stops_no_other_service() {
    needs_root("to mount a file system");
    file_system().stops_no_other_service();
}

/// Without the fix: "waited 5s in vain for the master's end after SIGTERM".
#[test]
fn a_master_ends_on_sigterm_while_an_exec_waits_for_a_file_system() {
    needs_root("to mount a file system");
    file_system().ends_in_time();
}

/// Processes that no signal ends count in the service's total until they end, so their number is
/// limited.
///
/// Without the fix: "no first byte within 1s".
#[test]
fn processes_that_no_signal_ends_are_few() {
    needs_root("to mount a file system");
    let stuck = file_system();
    let stage = &stuck.stage;
    stage.expect_first_byte(SECOND);
    let hanging = || {
        let children = stage.children().into_iter();
        children.filter(|child| is_in_exec(stage.master(), *child))
    };
    // Several throttle times.
    stays(Duration::from_secs(8), "no more than the limit", || {
        hanging().count() <= LIMIT
    });
    stage.expect_first_byte(SECOND);
    stuck.serves_again();
}

/// Templates that no signal ends are limited as children are: those that the master starts by itself,
/// and those that a reload loads.
///
/// Without the fix: "waited 20s in vain for as many as are allowed", and nine processes.
#[test]
fn templates_that_no_signal_ends_are_few() {
    needs_root("to mount a file system");
    let mut stage = Stage::new();
    stage.configure("[service.\"stuck/unix\"]\npreload = true\nthrottle_time = \"1s\"\n");
    let program = stage
        .standalone
        .install(&file("services/examples/preload.py"));
    let directory = stage.standalone.path().join("mount");
    let script = format!("#!/bin/sh\nexec {} nobody\n", program.display());
    let mut mount = Mount::new(&directory, &script);
    let command = mount.program().display().to_string();
    stage.service("stuck unix n", "2", &command).start();
    let mut client = Client::connect(&stage.address("stuck"));
    let hanging = |stage: &Stage| {
        let children = stage.children().into_iter();
        let hanging = children.filter(|child| is_in_exec(stage.master(), *child));
        hanging.count()
    };
    until(SOON, "as many as are allowed", || {
        let said = stage.standalone.said();
        said.contains("hangs in exec; 3 killed processes of this service have not ended")
    });
    for _ in 0..2 {
        let said = stage.reload_within(SOON);
        assert!(
            said.contains("the new template has not loaded: 3 killed processes of this service"),
            "{said}"
        );
    }
    // The last throttle time passes.
    stays(Duration::from_secs(4), "no more than the limit", || {
        hanging(&stage) <= 3
    });
    stage.expect_first_byte(SECOND);
    // The next version of the master knows of them.
    masterctl(&stage.standalone, &["upgrade"]).expect_success();
    let said = stage.reload_within(SOON);
    assert!(said.contains("3 killed processes"), "{said}");
    assert_eq!(hanging(&stage), 3);
    mount.answer();
    assert!(client.line_within(SOON).is_some(), "the service serves");
    until(SOON, "none that hangs", || hanging(&stage) == 0);
    let said = stage.reload_within(SOON);
    assert!(said.contains("reload done"), "{said}");
}

/// The service can be removed, and its processes disappear as soon as they can end.
///
/// Without the fix: "no first byte within 1s".
#[test]
fn a_service_that_hangs_in_exec_can_be_removed() {
    needs_root("to mount a file system");
    let mut stuck = file_system();
    stuck.stage.expect_first_byte(SECOND);
    stuck.stage.remove("stuck");
    let said = stuck.stage.reload_within(SOON);
    assert!(said.contains("1 removed"), "{said}");
    stuck.stage.expect_first_byte(SECOND);
    stuck.release();
    until(SOON, "its processes to be gone", || {
        stuck.stage.children().is_empty()
    });
    stuck.stage.expect_first_byte(SECOND);
}

/// A pool is filled at the start; the start does not wait for it.
///
/// Without the fix: "waited 20s in vain for "daemon started -- version"".
#[test]
fn a_master_starts_although_a_program_of_a_pool_hangs_in_exec() {
    needs_root("a master that keeps to itself");
    let mut stage = Stage::new();
    let script = format!("exec {} ordered", stage.hello());
    let lease = Lease::take(&stage.standalone.script("program", &script));
    let program = lease.program().display().to_string();
    stage.configure("[service.\"stuck/unix\"]\naccept = \"ordered\"\nmin_children = 1\n");
    stage.service("stuck unix n", "2", &program);
    let mut stuck = Started {
        lease: Some(lease),
        stage,
    };
    stuck.stage.start();
    stuck.stage.expect_first_byte(SECOND);
    stuck.lease = None;
    let mut client = Client::connect(&stuck.stage.address("stuck"));
    assert!(client.line_within(SOON).is_some(), "the pool serves");
}

/// The lease is dropped first.
struct Started {
    lease: Option<Lease>,
    stage: Stage,
}

/// A slow disk is not a failure.
///
/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn a_program_whose_exec_takes_a_while_is_started_and_not_throttled() {
    needs_root("to mount a file system");
    let mut stuck = file_system();
    stuck.stage.expect_unnoticed(SECOND / 5, || ());
    stuck.release();
    let line = stuck.client.line_within(SOON);
    assert!(line.is_some(), "the client is served");
    let service = stuck.stage.status("stuck");
    assert_eq!(service.throttled_until, None);
    assert_eq!((service.started, service.killed), (1, 0));
}

/// A program is upgraded to that was replaced after it was asked whether it understands the state, while
/// a child hangs in exec. What the operator is told.
fn replaced_before_an_upgrade() -> Finished {
    let mut stage = Stage::new();
    let script = format!("exec {} serve", stage.hello());
    let lease = Lease::take(&stage.standalone.script("program", &script));
    let program = lease.program().display().to_string();
    stage.service("stuck unix n", "1", &program);
    let mut stuck = Started {
        lease: Some(lease),
        stage,
    };
    let stage = &mut stuck.stage;
    stage.start();
    let (asked, go) = (stage.path("asked"), stage.path("go"));
    let master = stage.master().executable();
    let words = format!(
        "{} \"$@\"; status=$?\n[ -e {go} ] && exit $status\n\
         echo $PPID >{asked}.new; mv {asked}.new {asked}\n\
         while [ ! -e {go} ]; do sleep 0.01; done; exit $status",
        master.display(),
        asked = asked.display(),
        go = go.display(),
    );
    let next = stage.standalone.script("next", &words);
    let arguments = ["upgrade", "--program", &next.to_string_lossy()];
    let operator = Running::start(&mut stage.standalone.masterctl(&arguments));
    let copy = until(SOON, "the program to be asked", || {
        contents(&asked).trim().parse().ok()
    });
    // The program is executed within a second from here, when this child has or could not.
    let _client = Client::connect(&stage.address("stuck"));
    let lease = stuck.lease.as_ref().expect("not released yet");
    until(SOON, "the exec to hang", || lease.holds());
    fs::write(&go, "").expect("a file");
    // It tells the master what the program has said.
    until(SOON, "its end", || !Process(copy).runs());
    fs::rename(stage.standalone.script("other", &words), &next).expect("another program");
    operator.finish(SOON)
}

/// A package manager may replace the program at any moment, and there is no way back from another.
#[test]
fn a_program_that_was_replaced_after_it_was_asked_is_not_executed() {
    needs_root("a master that keeps to itself");
    let why = "it was replaced while it was looked at: try again";
    // On a machine that is very busy it may be replaced too late.
    let refused = (0..3).any(|_| replaced_before_an_upgrade().stderr.contains(why));
    assert!(refused, "a program was executed that was not asked");
}

/// Whether a child has not executed its program yet.
fn is_in_exec(master: Process, child: Process) -> bool {
    child.executable() == master.executable()
}

/// The handler of the master's watchdog must not run in children: it would change the master's
/// memory, and arm an alarm that survives exec.
///
/// Without the fix: "signals that the child catches before exec", 8192, which is SIGALRM.
#[test]
fn a_signal_to_a_child_before_exec_does_not_run_the_masters_handler() {
    needs_root("a master that keeps to itself");
    let mut stuck = lease();
    let master = stuck.stage.master();
    let children = stuck.stage.children();
    let mut hanging = children
        .into_iter()
        .filter(|child| is_in_exec(master, *child));
    let child = hanging.next().expect("a child that hangs in exec");
    let caught = child.signals().caught;
    assert_eq!(caught, 0, "signals that the child catches before exec");
    child.signal(Signal::SIGALRM);
    stuck.stage.expect_first_byte(SECOND);

    stuck.release();
    let line = stuck.client.line_within(SOON).expect("a first line");
    let alarm = line.split_whitespace().nth(1);
    assert_eq!(alarm, Some("0"), "seconds until an alarm: {line}");
    assert!(master.runs());
}
