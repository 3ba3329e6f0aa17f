//! Failed starts of a child, in each way that the system has, and their consequences.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::stage::Stage;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::skip;
use testkit::{needs_root, test};

const SECOND: Duration = Duration::from_secs(1);

/// Makes a system call fail, once.
const STRACE: &str = "/usr/bin/strace";

/// Programs that cannot be run, by the name of the system's error.
struct Programs {
    /// The service's name, and the path.
    all: Vec<(String, PathBuf)>,
    /// While it is open, the program cannot be run.
    written: Option<File>,
}

impl Programs {
    fn new(directory: &Path) -> Self {
        let mut programs = Self {
            all: Vec::new(),
            written: None,
        };
        let runnable = |path: &Path, text: &[u8]| {
            fs::write(path, text).expect("a file");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
        };
        let mut add = |name: &str| {
            let path = directory.join(name);
            programs.all.push((name.to_owned(), path.clone()));
            path
        };
        fs::write(add("eacces"), "#!/bin/sh\n").expect("a file");
        fs::create_dir(add("directory")).expect("a directory");
        mkfifo(&add("fifo"), Mode::from_bits_truncate(0o755)).expect("a FIFO");
        add("enoent");
        runnable(&add("enoexec"), b"neither a script nor anything else");
        runnable(&add("empty"), b"");
        runnable(&add("interpreter"), b"#!/nonexistent/interpreter\n");
        let own = add("eloop");
        symlink(&own, &own).expect("a link");
        let busy = add("etxtbsy");
        runnable(&busy, b"#!/bin/sh\nexec sleep 1000\n");
        let file = File::options().append(true).open(busy);
        programs.written = Some(file.expect("a file"));
        let under_a_file = directory.join("eacces/enotdir");
        programs.all.push(("enotdir".into(), under_a_file));
        let long = directory.join("x".repeat(300));
        programs.all.push(("enametoolong".into(), long));
        programs
    }
}

/// Each one throttles only its own service, with a line that names the program, and leaves no
/// process behind.
#[test]
fn a_program_that_cannot_be_run_throttles_its_own_service() {
    needs_root("a master that keeps to itself");
    let mut stage = Stage::new();
    let mut programs = Programs::new(stage.standalone.path());
    // Longer than the test, except for the program that can be run later.
    let lasting = programs.all.iter().filter(|(name, _)| name != "etxtbsy");
    let lasting =
        lasting.map(|(name, _)| format!("[service.\"{name}/unix\"]\nthrottle_time = \"1000s\"\n"));
    stage.configure(&lasting.collect::<String>());
    for (name, program) in &programs.all {
        let columns = format!("{name} unix n");
        stage.service(&columns, "5", &program.display().to_string());
    }
    stage.start();
    let mut clients = Vec::new();
    for (name, program) in &programs.all {
        clients.push(UnixStream::connect(stage.path(name)).expect("a listener"));
        until(SOON, format!("{name} to be throttled"), || {
            stage.status(name).throttled_until.is_some()
        });
        let program = program.display().to_string();
        stage.wait_for_line(&["warning: ", &program, "-- throttling"]);
        stage.expect_first_byte(SECOND);
    }
    until(SOON, "no children", || stage.children().is_empty());
    for (name, _) in programs.all.iter().filter(|(name, _)| name != "etxtbsy") {
        let service = stage.status(name);
        assert_eq!(service.total, 0, "children of {name}");
        assert!(service.children.is_empty(), "{:?}", service.children);
    }
    // The program that can be run now serves after its throttle time.
    programs.written = None;
    until(SOON, "the program to run", || {
        stage.status("etxtbsy").total == 1
    });
}

/// An unknown child would never be ended.
///
/// Without the fix: "waited 20s in vain for call N: no child that is not known".
#[test]
fn a_descriptor_that_cannot_be_put_back_after_a_start_leaves_no_unknown_child() {
    needs_root("a master that keeps to itself");
    if !Path::new(STRACE).exists() {
        skip("strace is not installed");
    }
    let before = placed_at_the_start();
    // Starting a child needs two or more such calls.
    for nth in before + 1..=before + 5 {
        let inject = format!("inject=dup3:error=ENFILE:when={nth}");
        let mut stage = traced(&["-e", "trace=dup3", "-e", &inject]);
        let mut client = Client::connect(&stage.address("held"));
        let line = client.line_within(SOON);
        assert!(
            line.is_some(),
            "call {nth}: the client is served in the end"
        );
        until(
            SOON,
            format!("call {nth}: no child that is not known"),
            || {
                let children = stage.children().into_iter();
                let present: BTreeSet<i32> = children.map(|child| child.0).collect();
                let known = stage.status("held").children.into_iter();
                known.map(|child| child.pid).collect::<BTreeSet<_>>() == present
            },
        );
        stage.stop();
    }
}

/// The number of dup calls before the master serves.
fn placed_at_the_start() -> usize {
    let stage = traced(&["-e", "trace=dup3"]);
    let trace = stage.standalone.path().join("trace");
    let text = fs::read_to_string(trace).expect("a trace");
    text.lines().filter(|line| line.contains("dup3(")).count()
}

/// A running master under strace(1), with a service whose children stay.
#[track_caller]
fn traced(options: &[&str]) -> Stage {
    let mut stage = Stage::new();
    let command = format!("{} serve", stage.hello());
    stage.service("held unix n", "5", &command);
    let trace = stage.standalone.path().join("trace");
    let trace = trace.to_str().expect("a path that is text");
    // With -D, the started process is the master, and strace is another one.
    let arguments = [&["-D", "-o", trace], options].concat();
    let mut master = stage.by(STRACE, &arguments);
    stage.start_as(&mut master);
    stage
}

/// A variable with a name that setenv(3) refuses.
///
/// Without the fix: the master panics: "failed to remove environment variable `"=A"`".
#[test]
fn a_variable_whose_name_begins_with_an_equals_sign_stops_no_start() {
    needs_root("a master that keeps to itself");
    let mut stage = Stage::new();
    let mut master = stage.standalone.master(&["-d"]);
    stage.start_as(master.env("=A", "b"));
    stage.expect_first_byte(SECOND);
    let said = stage.reload_within(SOON);
    assert!(said.contains("reload done"), "{said}");
}
