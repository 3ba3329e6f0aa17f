//! Configuration files and log files that are not regular files are errors, and the master never
//! blocks on them. Also a service table from a pipe.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use testkit::instance::SOON;
use testkit::poll::until;
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

const TABLE: &str = "a unix n - - - - true\n";

/// Creates something at a path that is not a regular file.
type Make = fn(&Path);

/// Types of files that are not regular, and their names in messages.
const OTHERS: [(&str, Make); 4] = [
    ("a FIFO", fifo),
    ("a device", device),
    ("a directory", directory),
    ("a socket", socket),
];

fn fifo(path: &Path) {
    mkfifo(path, Mode::empty()).expect("a FIFO");
    // Independent of the umask.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("a mode");
}

fn device(path: &Path) {
    symlink("/dev/zero", path).expect("a link");
}

fn directory(path: &Path) {
    fs::create_dir(path).expect("a directory");
}

fn socket(path: &Path) {
    // The name remains after the socket is closed.
    drop(UnixListener::bind(path).expect("a socket"));
}

/// Removes what a test has created.
fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir(path).expect("an empty directory")
    } else {
        fs::remove_file(path).expect("a file")
    }
}

/// The message about a file of another type.
fn refusal(path: &Path, kind: &str) -> String {
    let path = path.display();
    format!("open {path}: it is {kind}, expected a regular file")
}

/// A master with this configuration on its command line.
fn master_for(standalone: &Standalone, configuration: &Path) -> Command {
    let mut command = standalone.master(&["-d"]);
    command.arg("-c").arg(configuration);
    command
}

#[test]
fn a_configuration_file_that_is_no_regular_file_is_refused_at_the_start() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE);
    fs::write(standalone.path().join("master.cf"), TABLE).expect("a table");
    for name in ["master.toml", "master.cf"] {
        let path = standalone.path().join(name);
        for (kind, make) in OTHERS {
            let _ = fs::remove_file(&path);
            make(&path);
            let mut master = master_for(&standalone, standalone.path());
            let said = run(&mut master, SOON).expect_failure().stderr;
            assert!(said.contains(&refusal(&path, kind)), "{said}");
            remove(&path);
        }
    }
}

#[test]
fn a_table_that_is_named_and_is_no_regular_file_is_refused_at_the_start() {
    let standalone = Standalone::of_a_user();
    for (kind, make) in OTHERS {
        // A directory may contain a table, so it is not an error.
        if kind == "a directory" {
            continue;
        }
        make(&standalone.table());
        for options in [&["-d"][..], &["-w"]] {
            let said = standalone.fail(options).stderr;
            assert!(said.contains(&refusal(&standalone.table(), kind)), "{said}");
        }
        remove(&standalone.table());
    }
}

#[test]
fn a_main_cf_that_is_no_regular_file_is_refused_at_the_start() {
    needs_root("to start a Postfix installation");
    let standalone = Standalone::new();
    fs::write(standalone.path().join("master.cf"), TABLE).expect("a table");
    let main_cf = standalone.path().join("main.cf");
    for (kind, make) in OTHERS {
        make(&main_cf);
        for option in ["-d", "-t"] {
            let mut master = standalone.master(&[option]);
            master.arg("-c").arg(standalone.path());
            let said = run(&mut master, SOON).expect_failure().stderr;
            assert!(said.contains(&refusal(&main_cf, kind)), "{said}");
        }
        remove(&main_cf);
    }
}

/// Checks the error of a reload that finds a file of another type at the path. The master continues
/// to serve.
#[track_caller]
fn assert_refused_on_reload(
    standalone: &mut Standalone,
    path: &Path,
    expected: impl Fn(&str) -> String,
) {
    for (kind, make) in OTHERS {
        let _ = fs::remove_file(path);
        make(path);
        let said = standalone.reload();
        assert!(said.contains(&expected(kind)), "{said}");
        assert!(said.contains("reload failed and changed nothing"), "{said}");
        remove(path);
        assert!(standalone.queue().join("public/a").exists());
    }
}

#[test]
fn a_table_that_has_become_something_else_is_refused_by_a_reload() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE).start();
    let table = standalone.table();
    assert_refused_on_reload(&mut standalone, &table, |kind| refusal(&table, kind));
    standalone.write_table(TABLE);
    assert!(standalone.reload().contains("reload done"));
}

#[test]
fn a_master_toml_that_has_become_something_else_is_refused_by_a_reload() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE).start();
    let toml = standalone.path().join("master.toml");
    assert_refused_on_reload(&mut standalone, &toml, |kind| refusal(&toml, kind));
    assert!(standalone.reload().contains("reload done"));
}

#[test]
fn a_reload_refuses_an_empty_table_unless_it_is_allowed() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the table would not be empty with the canary in it");
    standalone.write_table(TABLE).start();
    let socket = standalone.queue().join("public/a");
    for empty in [
        "",
        "# all of it is a comment\n",
        "  \n\n",
        " a line that continues none\n",
    ] {
        standalone.write_table(empty);
        let said = standalone.reload();
        assert!(said.contains("error: "), "{said}");
        assert!(said.contains("the service table is empty"), "{said}");
        assert!(said.contains("reload failed and changed nothing"), "{said}");
        UnixStream::connect(&socket).expect("a listener");
        for command in ["check", "plan", "reload"] {
            let refused = run(&mut standalone.masterctl(&[command]), SOON);
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
            assert!(
                refused.stdout.contains("set allow_empty_table"),
                "{refused:?}"
            );
        }
    }
    standalone.write_toml("allow_empty_table = true\n");
    run(&mut standalone.masterctl(&["check"]), SOON).expect_success();
    let said = standalone.reload();
    assert!(said.contains("1 removed"), "{said}");
    UnixStream::connect(&socket).expect_err("nothing listens");
    // Nothing is left that an empty table could take away.
    standalone.write_toml("");
    let said = standalone.reload();
    assert!(said.contains("warning: "), "{said}");
    assert!(said.contains("reload done"), "{said}");
}

#[test]
fn settings_of_a_service_that_was_commented_out_are_a_warning() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(&format!("{TABLE}# b unix n - - - - true\n"));
    standalone.write_toml("[service.\"b/unix\"]\nmin_idle = 1\n");
    standalone.start();
    let warning = "line 1: column 10: no service \"b/unix\": its settings have no effect";
    assert!(standalone.said().contains(warning), "{}", standalone.said());
    let said = standalone.reload();
    assert!(
        said.contains(warning) && said.contains("reload done"),
        "{said}"
    );
    let checked = run(&mut standalone.masterctl(&["check"]), SOON).expect_success();
    assert!(checked.stdout.contains(warning), "{checked:?}");
}

/// Writes `master.toml` with a log file. Returns its path, and the message for each other type.
fn log_file(standalone: &Standalone) -> (std::path::PathBuf, impl Fn(&str) -> String + use<>) {
    let file = standalone.path().join("maillog");
    let toml = standalone.path().join("master.toml");
    standalone.write_toml(&format!("# log\nmaillog_file = \"{}\"\n", file.display()));
    let expected = {
        let file = file.clone();
        move |kind: &str| {
            format!(
                "{}: line 2: column 17: parameter maillog_file: {}: it is {kind}, expected a \
                 regular file or /dev/stdout",
                toml.display(),
                file.display()
            )
        }
    };
    (file, expected)
}

/// Like the others, but a log file is not reached through links.
fn make_log_device(path: &Path) {
    let mut mknod = Command::new("mknod");
    run(mknod.arg(path).args(["c", "1", "3"]), SOON).expect_success();
}

#[test]
fn a_log_file_that_is_no_regular_file_is_refused_with_its_place_at_the_start() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE);
    let (file, expected) = log_file(&standalone);
    for (kind, make) in OTHERS {
        if kind == "a device" {
            continue;
        }
        make(&file);
        let said = standalone.fail(&["-d"]).stderr;
        assert!(said.contains(&expected(kind)), "{said}");
        remove(&file);
    }
}

#[test]
fn a_log_file_that_is_a_device_is_refused() {
    needs_root("to make a device");
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE);
    let (file, expected) = log_file(&standalone);
    make_log_device(&file);
    let said = standalone.fail(&["-d"]).stderr;
    assert!(said.contains(&expected("a device")), "{said}");
}

#[test]
fn a_log_file_that_has_become_something_else_is_refused_by_a_reload() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE).start();
    let (file, expected) = log_file(&standalone);
    for (kind, make) in OTHERS {
        if kind == "a device" {
            continue;
        }
        make(&file);
        let said = standalone.reload();
        assert!(said.contains(&expected(kind)), "{said}");
        assert!(said.contains("reload failed and changed nothing"), "{said}");
        remove(&file);
    }
    assert!(standalone.reload().contains("reload done"));
}

/// A command in which a shell executes the master, with descriptor 9 opened by `redirection` and
/// used as the table.
fn with_descriptor(standalone: &Standalone, redirection: &str) -> Command {
    in_shell(
        standalone,
        &format!("exec 9{redirection}; exec \"$@\" -c /dev/fd/9"),
    )
}

/// A script for bash, in which `"$@"` is the master with `-d`.
fn in_shell(standalone: &Standalone, script: &str) -> Command {
    let master = standalone.master(&[]);
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]);
    command.arg(master.get_program()).arg("-d");
    command.env_clear();
    for (name, value) in master.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.current_dir(standalone.path()).process_group(0);
    if nix::unistd::geteuid().is_root() {
        command.uid(standalone.uid()).gid(standalone.uid());
    }
    command
}

#[test]
fn a_table_comes_through_a_pipe_of_the_shell() {
    let mut standalone = Standalone::of_a_user();
    let facts = standalone.path().join("facts");
    let facts = facts.display();
    let script = standalone.script(
        "witness",
        &format!("env >{facts}.new; mv {facts}.new {facts}; exec sleep 1000"),
    );
    // A pipe has no master.toml beside it.
    standalone.write_table(&format!("woken fifo n - - 60 1 {}\n", script.display()));
    let mut command = in_shell(&standalone, "exec \"$@\" -c <(cat services.cf)");
    standalone.start_as(&mut command);
    let path = standalone.path().join("facts");
    let environment = until(SOON, "the child's word", || fs::read_to_string(&path).ok());
    let place = format!("MAIL_CONFIG={}\n", standalone.queue().display());
    assert!(environment.contains(&place), "{environment}");
}

#[test]
fn a_reload_says_that_the_table_was_a_pipe_and_changes_nothing() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE);
    let mut command = in_shell(&standalone, "exec \"$@\" -c <(cat services.cf)");
    standalone.start_as(&mut command);
    for _ in 0..2 {
        let said = standalone.reload();
        assert!(
            said.contains("the service table was a pipe, which can be read only once"),
            "{said}"
        );
        assert!(said.contains("reload failed and changed nothing"), "{said}");
    }
    assert!(standalone.queue().join("public/a").exists());
}

#[test]
fn the_environment_may_name_the_pipe() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE);
    let script = "exec 9< <(cat services.cf); MAIL_CONFIG=/dev/fd/9 exec \"$@\"";
    let mut command = in_shell(&standalone, script);
    standalone.start_as(&mut command);
    assert!(standalone.queue().join("public/a").exists());
}

#[test]
fn a_file_that_the_shell_has_opened_is_a_table() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE);
    let mut command = with_descriptor(&standalone, "<services.cf");
    standalone.start_as(&mut command);
    assert!(standalone.queue().join("public/a").exists());
}

#[test]
fn what_comes_in_pieces_is_read_to_its_end() {
    let mut standalone = Standalone::of_a_user();
    let pipe = standalone.path().join("pipe");
    fifo(&pipe);
    let mut command = with_descriptor(&standalone, "<pipe");
    standalone.run(&mut command);
    // Opening it blocks until the shell reads.
    let mut writer = fs::File::options().write(true).open(&pipe).expect("a pipe");
    let (begin, end) = TABLE.split_at(5);
    writer.write_all(begin.as_bytes()).expect("a reader");
    let master = standalone.process();
    until(SOON, "the master to wait", || master.waits());
    writer.write_all(end.as_bytes()).expect("a reader");
    drop(writer);
    standalone.wait_for_line("daemon started -- version");
    assert!(standalone.queue().join("public/a").exists());
}

/// "read to its end within 10 s": a writer that hangs is an error.
#[test]
fn a_pipe_that_does_not_come_to_its_end_is_an_error_after_ten_seconds() {
    let standalone = Standalone::of_a_user();
    fifo(&standalone.path().join("pipe"));
    // The shell itself is the writer, and never writes.
    let said = run(&mut with_descriptor(&standalone, "<>pipe"), SOON).expect_failure();
    let expected = "fatal: read the service table from /dev/fd/9: it has not come to its end within \
                    10 s";
    assert!(said.stderr.contains(expected), "{}", said.stderr);
}

#[test]
fn a_pipe_that_never_stops_is_an_error() {
    let standalone = Standalone::of_a_user();
    let mut command = in_shell(&standalone, "exec \"$@\" -c <(exec cat /dev/zero)");
    let said = run(&mut command, SOON).expect_failure().stderr;
    assert!(said.contains("it has more than 16777216 bytes"), "{said}");
}

#[test]
fn a_descriptor_that_is_neither_a_pipe_nor_a_file_is_an_error() {
    let standalone = Standalone::of_a_user();
    for (redirection, reason) in [
        ("<.", "it is a directory, expected a pipe or a regular file"),
        (
            "</dev/zero",
            "it is a device, expected a pipe or a regular file",
        ),
        ("<&-", "Bad file descriptor"),
    ] {
        let mut command = with_descriptor(&standalone, redirection);
        let said = run(&mut command, SOON).expect_failure().stderr;
        let expected = format!("fatal: read the service table from /dev/fd/9: {reason}");
        assert!(said.contains(&expected), "{said}");
    }
}
