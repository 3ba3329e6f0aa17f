//! A log that goes nowhere: what can be seen beforehand is an error, and what is lost is reported.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::instance::SOON;
use testkit::operator::{masterctl, read_document, told};
use testkit::poll::until;
use testkit::run::{contents, run};
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

const TABLE: &str = "a unix n - - - 1 /bin/cat\n";

/// The settings for a log file, and for root's directories.
fn set_log(standalone: &Standalone, file: &Path) {
    let (queue, data) = (standalone.queue(), standalone.path().join("data"));
    standalone.write_toml(&format!(
        "maillog_file = \"{}\"\nmaillog_file_prefixes = \"/\"\nqueue_directory = \"{}\"\n\
         data_directory = \"{}\"\n",
        file.display(),
        queue.display(),
        data.display()
    ));
}

/// Problems of a log file that can be seen beforehand: the file's path, and what is said of it.
fn problems(standalone: &Standalone) -> Vec<(std::path::PathBuf, &'static str)> {
    let path = |name: &str| standalone.path().join(name);
    fs::write(path("file"), "").expect("a file");
    fs::write(path("named"), "").expect("a file");
    fs::hard_link(path("named"), path("twice")).expect("a link");
    std::os::unix::fs::symlink(path("file"), path("link")).expect("a link");
    std::os::unix::fs::symlink(path("nowhere/x"), path("dangling")).expect("a link");
    vec![
        (
            path("missing/log"),
            "missing: No such file or directory: make the directory",
        ),
        (
            path("directory/"),
            "a slash at its end, expected the name of a file",
        ),
        (path("file/log"), "is a regular file, expected a directory"),
        (
            path("twice"),
            "it has other names, expected a file with one name or /dev/stdout",
        ),
        (
            path("link"),
            "it is a symbolic link, expected a regular file or /dev/stdout",
        ),
        (
            path("dangling"),
            "it is a symbolic link, expected a regular file or /dev/stdout",
        ),
    ]
}

#[test]
fn a_log_file_that_cannot_be_written_is_an_error_of_start_check_and_reload() {
    for mut standalone in Standalone::all() {
        standalone.write_table(TABLE);
        let problems = problems(&standalone);
        for (file, problem) in problems {
            let expected = format!(
                "master.toml: line 1: column 17: parameter maillog_file: {}: ",
                file.display()
            );
            let is_told = |text: &str| text.contains(&expected) && text.contains(problem);
            set_log(&standalone, &file);
            let said = standalone.fail(&[]);
            assert!(is_told(&said.stderr), "{expected}{problem}: {said:?}");
            let said = masterctl(&standalone, &["check"]);
            assert!(
                !said.success() && is_told(&said.stdout),
                "{expected}: {said:?}"
            );
        }
    }
}

#[test]
fn a_reload_to_a_log_file_in_a_missing_directory_changes_nothing() {
    for mut standalone in Standalone::all() {
        standalone.write_table(TABLE).start();
        let file = standalone.path().join("missing/log");
        set_log(&standalone, &file);
        let said = standalone.reload();
        assert!(
            said.contains("missing: No such file or directory"),
            "{said}"
        );
        assert!(said.contains("reload failed and changed nothing"), "{said}");
    }
}

/// Only the user who runs the master can tell what that user may do.
#[test]
fn a_log_file_that_the_user_may_not_write_is_an_error() {
    needs_root("to make a file of root's");
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE);
    for (name, problem) in [("own", "cannot write to it"), ("new", "cannot make it")] {
        let directory = standalone.path().join("roots");
        let _ = fs::create_dir(&directory);
        fs::write(directory.join("own"), "").expect("a file");
        set_log(&standalone, &directory.join(name));
        let said = standalone.fail(&["-d"]).stderr;
        assert!(
            said.contains(&format!("{problem}: Permission denied")),
            "{said}"
        );
        assert!(said.contains("line 1: column 17"), "{said}");
    }
}

/// Runs the master with a `/dev` that has no more than it needs.
fn without_dev_log(standalone: &Standalone, options: &[&str]) -> Command {
    hide_dev_log(standalone, &standalone.master(options))
}

/// Runs a program with such a `/dev`.
fn hide_dev_log(standalone: &Standalone, program: &Command) -> Command {
    let dev = standalone.path().join("dev");
    fs::create_dir_all(&dev).expect("a directory");
    fs::write(dev.join("null"), "").expect("a mount point");
    let script = format!(
        "mount --bind /dev/null {0}/null && mount --rbind {0} /dev && exec \"$@\"",
        dev.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    command
}

#[test]
fn a_start_without_a_way_out_for_log_lines_says_so_and_the_document_counts_them() {
    needs_root("to make a mount namespace");
    let mut standalone = Standalone::new();
    standalone.write_table(TABLE).start();
    standalone.stop_by(nix::sys::signal::Signal::SIGTERM);
    let mut command = without_dev_log(&standalone, &["-w"]);
    let said = run(&mut command, SOON).expect_success().stderr;
    let expected = "warning: log lines are lost: /dev/log: No such file or directory: start a \
                    process that takes them, or set maillog_file";
    assert!(said.contains(expected), "{said}");
    // The warning itself is lost, too.
    let lost = read_document(&standalone).log;
    assert_eq!(lost, "lost 2 lines: /dev/log: No such file or directory");
    let status = told(&standalone, &["status"]);
    assert!(status.contains(&format!("log: {lost}\n")), "{status}");
    let file = standalone.path().join("log");
    set_log(&standalone, &file);
    assert!(!told(&standalone, &["reload"]).contains("log: lost"));
    assert_eq!(read_document(&standalone).log, "ok");
    assert!(contents(&file).contains("log lines before this one could not be written"));
    told(&standalone, &["stop"]);
}

#[test]
fn a_system_without_a_log_is_a_finding_of_check_and_reload_unless_there_is_a_log_file() {
    needs_root("to make a mount namespace");
    let mut standalone = Standalone::new();
    standalone.write_table(TABLE).start();
    standalone.stop_by(nix::sys::signal::Signal::SIGTERM);
    run(&mut standalone.master(&["-w"]), SOON).expect_success();
    let reload = || {
        let mut command = hide_dev_log(&standalone, &standalone.masterctl(&["reload"]));
        run(&mut command, SOON).expect_success().stdout
    };
    let check = || {
        let mut command = hide_dev_log(&standalone, &standalone.masterctl(&["check"]));
        run(&mut command, SOON).expect_success().stdout
    };
    let expected = "log lines are lost, unless the master runs with -d: /dev/log: No such file or \
                    directory: start a process that takes them, or set maillog_file";
    let said = check();
    assert!(
        said.contains(&format!(
            "warning: {}: {expected}",
            standalone.table().display()
        )),
        "{said}"
    );
    let said = reload();
    assert!(
        said.contains(expected) && said.ends_with("reloaded\n"),
        "{said}"
    );
    set_log(&standalone, &standalone.path().join("log"));
    let said = reload() + &check();
    assert!(!said.contains("lost"), "{said}");
    let toml = fs::read_to_string(standalone.path().join("master.toml")).expect("settings");
    let journal = toml.lines().skip(1).collect::<Vec<_>>().join("\n");
    standalone.write_toml(&format!("log_format = \"journal\"\n{journal}\n"));
    let said = check();
    assert!(said.contains(expected), "{said}");
    told(&standalone, &["stop"]);
}

/// Without `-s`, standard output is /dev/null.
#[test]
fn a_log_on_standard_output_that_is_not_kept_is_a_warning_of_the_start() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE);
    set_log(&standalone, Path::new("/dev/stdout"));
    let said = run(&mut standalone.master(&["-w"]), SOON).expect_success();
    let expected =
        "warning: maillog_file is /dev/stdout, which is /dev/null without -s: start with -s";
    assert!(said.stderr.contains(expected), "{said:?}");
    told(&standalone, &["stop"]);
}

/// What the log of a master is worth whose postlogd does not start.
#[test]
fn a_master_whose_postlogd_cannot_run_writes_the_log_by_itself() {
    let mut standalone = Standalone::of_a_user();
    let broken = standalone.script("broken", "exit 3");
    standalone.write_table(&format!(
        "{TABLE}postlog unix-dgram n - - - 1 {}\n",
        broken.display()
    ));
    let file = standalone.path().join("log");
    set_log(&standalone, &file);
    run(&mut standalone.master(&["-w"]), SOON).expect_success();
    for line in [
        "daemon started -- version",
        "exit status 3",
        "bad command startup -- throttling",
    ] {
        until(SOON, line, || contents(&file).contains(line));
    }
    told(&standalone, &["reload"]);
    until(SOON, "the reload's line", || {
        contents(&file).contains("reload done")
    });
    assert_eq!(read_document(&standalone).log, "ok");
    told(&standalone, &["stop"]);
    until(SOON, "the last line", || {
        contents(&file).contains("terminating on signal")
    });
}

#[test]
fn a_log_file_as_large_as_a_file_may_be_does_not_end_the_master() {
    let mut standalone = Standalone::of_a_user();
    let (file, script) = (
        standalone.path().join("log"),
        standalone.script(
            "say",
            "echo from a child\nulimit -f 0\necho x >\"$0.out\"\nexit 0",
        ),
    );
    set_log(&standalone, &file);
    let key = "[service.\"a/unix\"]\nmin_idle = 1\ncapture_output = true\n";
    let toml = fs::read_to_string(standalone.path().join("master.toml")).expect("settings");
    standalone.write_toml(&format!("{toml}{key}"));
    standalone.write_table(&format!("a unix n - - - 1 {}\n", script.display()));
    standalone.start();
    let process = standalone.process();
    let mut command = standalone.as_user(Path::new("/usr/bin/prlimit"));
    let size = fs::metadata(&file).expect("a log").len();
    command.args(["--pid", &process.0.to_string(), &format!("--fsize={size}")]);
    run(&mut command, SOON).expect_success();
    for _ in 0..3 {
        told(&standalone, &["reload"]);
    }
    let lost = read_document(&standalone).log;
    assert!(lost.ends_with(": File too large"), "{lost}");
    assert_eq!(standalone.process().0, process.0);
    // A child that writes too much ends, as anywhere else.
    until(SOON, "a child that ends by SIGXFSZ", || {
        read_document(&standalone).services[0].killed > 0
    });
}
