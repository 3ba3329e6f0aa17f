//! Files and programs of root's configuration that other users can change.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use master::status::{Document, SOCKET};
use nix::sys::signal::Signal;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::process::Process;
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

const GOOD: &str = "a unix n - - - 5 true\n";
const OTHER: u32 = 47_111;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}

/// What the message says of a file or directory with this mode.
fn told(path: &Path, mode: u32) -> String {
    let path = path.display();
    format!("users other than root may write to {path} (mode {mode:o}): \"chmod go-w {path}\"")
}

#[test]
fn a_daemon_of_root_does_not_start_with_a_table_that_others_can_change() {
    needs_root("its files must be its own");
    let mut standalone = Standalone::new();
    standalone.write_table(GOOD);
    let expect = |path: &Path, problem: String| {
        let said = standalone.fail(&["-w"]).stderr;
        let expected = format!("{}: root reads this file, and {problem}", path.display());
        assert!(said.contains(&expected), "{expected}\n{said}");
        let checked = run(&mut standalone.masterctl(&["check"]), SOON);
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        assert!(checked.stdout.contains(&problem), "{checked:?}");
    };
    let table = standalone.table();
    set_mode(&table, 0o666);
    expect(&table, told(&table, 0o666));
    set_mode(&table, 0o644);
    chown(&table, Some(OTHER), None).expect("an owner");
    let shown = table.display().to_string();
    expect(
        &table,
        format!("{shown} belongs to another user than root, whose ID is {OTHER}"),
    );
    chown(&table, Some(0), None).expect("an owner");
    let toml = standalone.path().join("master.toml");
    set_mode(&toml, 0o664);
    expect(&toml, told(&toml, 0o664));
    set_mode(&toml, 0o644);
    let directory = standalone.path();
    set_mode(directory, 0o777);
    expect(&table, told(directory, 0o777));
    // Nobody but the owner of a file can replace it there.
    set_mode(directory, 0o1777);
    let checked = run(&mut standalone.masterctl(&["check"]), SOON);
    checked.expect_success();
}

#[test]
fn a_program_that_others_can_change_is_named_with_its_line() {
    needs_root("its files must be its own");
    let mut standalone = Standalone::new();
    let program = standalone.script("program", "exit 0");
    standalone.write_table(&format!(
        "# first\na unix n - - - 5 {0}\nb unix n - - - 5 {0}\n",
        program.display()
    ));
    set_mode(&program, 0o757);
    let said = standalone.fail(&["-w"]).stderr;
    let expected = format!(
        "{}: line 2: column 1: root runs {}, and {}",
        standalone.table().display(),
        program.display(),
        told(&program, 0o757)
    );
    assert_eq!(said.matches(&expected).count(), 1, "{expected}\n{said}");
    assert!(!said.contains("line 3"), "{said}");
}

#[test]
fn on_a_terminal_it_is_a_warning() {
    needs_root("its files must be its own");
    let mut standalone = Standalone::new();
    standalone.write_table(GOOD);
    // As in a clone of another user.
    chown(standalone.path(), Some(OTHER), None).expect("an owner");
    standalone.start();
    let expected = format!(
        "warning: {}: root reads this file, and {} belongs to another user than root",
        standalone.table().display(),
        standalone.path().display(),
    );
    standalone.wait_for_line(&expected);
    assert_eq!(standalone.said().matches("belongs to").count(), 1);
    let said = standalone.reload();
    assert!(
        said.contains(&expected) && said.contains("reload done"),
        "{said}"
    );
    for command in ["plan", "reload"] {
        run(&mut standalone.masterctl(&[command]), SOON).expect_success();
    }
}

#[test]
fn a_user_without_root_trusts_whom_they_like() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(GOOD);
    set_mode(&standalone.table(), 0o666);
    standalone.start();
    assert!(!standalone.said().contains("may write"));
    run(&mut standalone.masterctl(&["check"]), SOON).expect_success();
}

/// The status of a master that runs here.
fn status(standalone: &Standalone) -> Document {
    let json = run(&mut standalone.masterctl(&["status", "--json"]), SOON).expect_success();
    serde_json::from_str(&json.stdout).expect("a document")
}

/// A daemon, which is stopped at the end.
struct Daemon(Process);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGTERM);
    }
}

#[test]
fn a_daemon_does_not_reload_a_table_that_others_can_change() {
    needs_root("its files must be its own");
    let mut standalone = Standalone::new();
    standalone.write_table(GOOD);
    // To write the other settings.
    standalone.start();
    standalone.stop_by(Signal::SIGTERM);
    run(&mut standalone.master(&["-w"]), SOON).expect_success();
    let daemon = Daemon(Process(status(&standalone).pid as i32));
    standalone.write_table("b unix n - - - 5 true\n");
    set_mode(&standalone.table(), 0o666);
    daemon.0.signal(Signal::SIGHUP);
    let reload = until(SOON, "the end of the reload", || {
        status(&standalone).last_reload
    });
    assert!(!reload.succeeded);
    let findings = reload.findings.join("\n");
    assert!(
        findings.contains(&told(&standalone.table(), 0o666)),
        "{findings}"
    );
    assert_eq!(status(&standalone).services[0].name, "a");
    let asked = run(&mut standalone.masterctl(&["reload"]), SOON);
    assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    set_mode(&standalone.table(), 0o644);
    run(&mut standalone.masterctl(&["reload"]), SOON).expect_success();
    assert_eq!(status(&standalone).services[0].name, "b");
    assert!(standalone.queue().join(SOCKET).exists());
}

#[test]
fn a_user_of_many_programs_is_a_warning_unless_it_is_meant() {
    needs_root("to run services as another user");
    let has_own = nix::unistd::User::from_name("master")
        .expect("users")
        .is_some();
    for (owner, is_warned_of) in [("", !has_own), ("mail_owner = \"nobody\"\n", false)] {
        let mut standalone = Standalone::new();
        let path = standalone.path().display().to_string();
        standalone.write_toml(&format!(
            "{owner}queue_directory = \"{path}/run/master\"\ndata_directory = \"{path}/data\"\n"
        ));
        standalone.write_table(GOOD).start();
        let said = standalone.said();
        assert_eq!(
            said.contains("useradd --system master"),
            is_warned_of,
            "{said}"
        );
    }
}
