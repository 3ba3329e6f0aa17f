//! Configuration files that are not regular files are errors; the master never blocks on them.

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{fchown, mkfifo, pipe};

use crate::stage::{NOTICED, Stage, first_byte};
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::programs::example;
use testkit::run::Running;
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

/// Maximum time until the error.
const SECOND: Duration = Duration::from_secs(1);

/// Replaces a file by something else.
type Replace = fn(&Path);

const IRREGULAR: [(&str, Replace); 4] = [
    ("a FIFO", |path| {
        mkfifo(path, Mode::from_bits_truncate(0o644)).expect("a FIFO");
    }),
    ("an empty device", |path| {
        symlink("/dev/null", path).expect("a link");
    }),
    ("an endless device", |path| {
        symlink("/dev/zero", path).expect("a link");
    }),
    ("a directory", |path| {
        fs::create_dir(path).expect("a directory");
    }),
];

/// The configuration directory of a stand-alone installation, and a master that root runs.
struct Directory {
    stage: Stage,
    path: PathBuf,
}

impl Directory {
    fn new() -> Self {
        let stage = Stage::new();
        let path = stage.standalone.path().join("etc");
        fs::create_dir(&path).expect("a directory");
        let directory = Self { stage, path };
        let root = directory.stage.standalone.path();
        for (from, to) in [("services.cf", "master.cf"), ("master.toml", "master.toml")] {
            fs::copy(root.join(from), directory.path.join(to)).expect("a copy");
        }
        directory
    }

    fn master(&self) -> Command {
        let mut master = Command::new(self.stage.standalone.path().join("master"));
        master.args(["-d", "-c"]).arg(&self.path);
        master.env_clear().process_group(0);
        master
    }
}

/// Replaces a file, which may be missing.
fn replace(path: &Path, replace: Replace) {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir(path).expect("an empty directory"),
        Ok(_) => fs::remove_file(path).expect("a file"),
        Err(_) => {}
    }
    replace(path);
}

#[track_caller]
fn a_start_fails_at_once(name: &str) {
    for (what, irregular) in IRREGULAR {
        let directory = Directory::new();
        let path = directory.path.join(name);
        replace(&path, irregular);
        let mut master = Running::start(&mut directory.master());
        until(
            SECOND,
            format!("{name} that is {what} to be an error"),
            || master.has_ended(),
        );
        let said = master.finish(SOON).expect_failure().stderr;
        let named = said.contains(&path.display().to_string());
        assert!(named, "{name} is {what}, and it is said: {said}");
    }
}

/// Without the fix, with a FIFO: "waited 1s in vain for master.toml that is a FIFO to be an error".
#[test]
fn a_start_does_not_wait_for_a_master_toml_that_is_no_file() {
    needs_root("a master that keeps to itself");
    a_start_fails_at_once("master.toml");
}

/// Without the fix: as above.
#[test]
fn a_start_does_not_wait_for_a_master_cf_that_is_no_file() {
    needs_root("a master that keeps to itself");
    a_start_fails_at_once("master.cf");
}

/// Without the fix: as above.
#[test]
fn a_start_does_not_wait_for_a_main_cf_that_is_no_file() {
    needs_root("a master that keeps to itself");
    a_start_fails_at_once("main.cf");
}

#[track_caller]
fn a_reload_fails_at_once(name: &str) {
    let mut directory = Directory::new();
    let mut master = directory.master();
    directory.stage.start_as(&mut master);
    for (what, irregular) in IRREGULAR {
        let path = directory.path.join(name);
        replace(&path, irregular);
        let said = directory.stage.reload_within(SECOND);
        let failed = said.contains("reload failed and changed nothing");
        let named = said.contains(&path.display().to_string());
        assert!(failed && named, "{name} is {what}, and it is said: {said}");
        let waited = first_byte(&directory.stage.address("hello"), SOON);
        assert!(waited <= NOTICED, "{name} is {what}: waited {waited:?}");
    }
}

/// Without the fix, with a FIFO: "waited 1s in vain for the end of a reload".
#[test]
fn a_reload_does_not_wait_for_a_master_toml_that_is_no_file() {
    needs_root("a master that keeps to itself");
    a_reload_fails_at_once("master.toml");
}

/// Without the fix: as above.
#[test]
fn a_reload_does_not_wait_for_a_master_cf_that_is_no_file() {
    needs_root("a master that keeps to itself");
    a_reload_fails_at_once("master.cf");
}

/// Without the fix: as above.
#[test]
fn a_reload_does_not_wait_for_a_main_cf_that_is_no_file() {
    needs_root("a mail system");
    let mut postfix = Instance::bare_with(Path::new(env!("CARGO_BIN_EXE_master")));
    postfix.install(&example("hello"), "hello");
    postfix.service("hello unix n n n - 50 hello").start();
    let path = postfix.configuration().join("main.cf");
    let hello = postfix.socket("public", "hello").display().to_string();
    for (what, irregular) in IRREGULAR {
        replace(&path, irregular);
        let mark = postfix.log().len();
        postfix.hang_up();
        let said = until(SECOND, format!("{what} to be an error"), || {
            let news = postfix.log().split_off(mark);
            let over = news.contains("reload failed and changed nothing");
            over.then_some(news)
        });
        let named = said.contains(&path.display().to_string());
        assert!(named, "main.cf is {what}, and it is said: {said}");
        let waited = first_byte(&hello, SOON);
        assert!(waited <= NOTICED, "main.cf is {what}: waited {waited:?}");
    }
}

/// An ordinary user's master whose table comes from a pipe of the shell, `-c <(...)`.
fn with_a_table_in_a_pipe() -> Stage {
    let mut stage = Stage::on(Standalone::of_a_user());
    let table = format!("hello unix n - n - 5 {}\n", stage.hello());
    let (read, mut write) = pipe()
        .map(|(read, write)| (read, fs::File::from(write)))
        .expect("a pipe");
    write.write_all(table.as_bytes()).expect("room in the pipe");
    drop(write);
    fcntl(&read, FcntlArg::F_SETFD(FdFlag::empty())).expect("a descriptor");
    let configured = stage.standalone.master(&["-d"]);
    let mut master = Command::new(configured.get_program());
    let number = read.as_raw_fd();
    master.args(["-d", "-c", &format!("/dev/fd/{number}")]);
    master.env_clear().current_dir("/").process_group(0);
    for (name, value) in configured.get_envs() {
        master.env(name, value.unwrap_or_default());
    }
    if nix::unistd::geteuid().is_root() {
        let user = stage.standalone.uid();
        master.uid(user).gid(user);
        // A pipe of the shell belongs to the shell's user.
        fchown(&read, Some(user.into()), None).expect("an owner");
    }
    stage.start_as(&mut master);
    stage
}

/// Without the fix: "hello: No such file or directory", because the table is empty.
#[test]
fn a_table_may_come_through_a_pipe_at_the_start() {
    with_a_table_in_a_pipe().expect_first_byte(SECOND);
}

/// Without the fix: "reload done", of an empty table.
#[test]
fn a_reload_says_that_the_table_came_through_a_pipe_and_changes_nothing() {
    let mut stage = with_a_table_in_a_pipe();
    let said = stage.reload_within(SECOND);
    assert!(said.contains("reload failed and changed nothing"), "{said}");
    assert!(said.contains("pipe"), "{said}");
    stage.expect_first_byte(SECOND);
}
