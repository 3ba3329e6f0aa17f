//! Further tables in `master.cf.d`, and further settings in `master.toml.d`.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use master::status::Document;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::programs;
use testkit::run::{Finished, run};
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

/// A configuration directory: its `master.cf` is the table of the standalone.
struct Directory(Standalone);

impl Directory {
    fn new(mut standalone: Standalone) -> Self {
        standalone.unwatched("the services are counted");
        standalone.write_table(&line("main"));
        symlink("services.cf", standalone.path().join("master.cf")).expect("a link");
        Self(standalone)
    }

    fn of_a_user() -> Self {
        Self::new(Standalone::of_a_user())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and its directory if there is none.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let directory = path.parent().expect("a directory");
        fs::create_dir_all(directory).expect("a directory");
        fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("a mode");
        fs::write(&path, text).expect("a file");
        path
    }

    fn start(&mut self) {
        let mut master = self.0.master(&["-d", "-c"]);
        master.arg(self.0.path());
        self.0.start_as(&mut master);
    }

    /// Runs a command of masterctl for the directory.
    fn ctl(&self, arguments: &[&str]) -> Finished {
        let masterctl = self.0.install(&programs::masterctl());
        let mut command = self.0.as_user(&masterctl);
        command.arg("-c").arg(self.0.path()).args(arguments);
        run(&mut command, SOON)
    }

    /// Checks that this error keeps a master from starting, and that `check` tells it, too.
    #[track_caller]
    fn expect_refused(&self, error: &str) {
        let mut master = self.0.master(&["-d", "-c"]);
        let started = run(master.arg(self.0.path()), SOON).expect_failure();
        assert!(started.stderr.contains(error), "{error}\n{started:?}");
        let checked = self.ctl(&["check"]);
        let said = format!("{}{}", checked.stdout, checked.stderr);
        assert!(!checked.status.success(), "{checked:?}");
        assert!(said.contains(error), "{error}\n{checked:?}");
    }

    fn document(&self) -> Document {
        let json = self.ctl(&["status", "--json"]).expect_success();
        serde_json::from_str(&json.stdout).expect("a document")
    }

    /// The names of the services, in their order.
    fn services(&self) -> Vec<String> {
        let services = self.document().services.into_iter();
        services.map(|service| service.name).collect()
    }

    /// Checks that a reload is refused with this error, and that the services stay.
    #[track_caller]
    fn expect_reload_refused(&mut self, error: &str) {
        let said = self.0.reload();
        assert!(said.contains(error), "{error}\n{said}");
        assert!(said.contains("reload failed and changed nothing"), "{said}");
        assert!(self.0.queue().join("public/main").exists());
    }
}

fn line(name: &str) -> String {
    format!("{name} unix n - - - - true\n")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn tables_are_read_after_the_first_in_the_order_of_their_names() {
    for standalone in Standalone::all() {
        let mut directory = Directory::new(standalone);
        if directory.0.uid() == 0 {
            directory.write(
                "master.toml",
                "queue_directory = \"run/master\"\ndata_directory = \"data\"\nmail_owner = \"nobody\"\n",
            );
        }
        directory.write("master.cf.d/b.cf", &line("second"));
        directory.write("master.cf.d/10-x.cf", &line("first"));
        directory.write("master.cf.d/é.cf", &line("third"));
        for ignored in ["c.cf~", "c.cf.dpkg-old", ".c.cf", "c.conf"] {
            directory.write(&format!("master.cf.d/{ignored}"), "not a service\n");
        }
        directory.start();
        assert_eq!(directory.services(), ["main", "first", "second", "third"]);
    }
}

#[test]
fn a_mistake_is_told_with_its_file_and_line() {
    let directory = Directory::of_a_user();
    let table = directory.write("master.cf.d/a.cf", "# comment\nb unix n - - - x true\n");
    let place = format!("{}: line 2: column 16: ", shown(&table));
    directory.expect_refused(&place);
    fs::remove_file(table).expect("a file");
    let toml = directory.write("master.toml.d/a.toml", "# comment\nmail_owner = 5x\n");
    directory.expect_refused(&format!("{}: line 2: ", shown(&toml)));
    directory.write("master.toml.d/a.toml", "\nservice_kill_time = \"5x\"\n");
    directory.expect_refused(&format!("{}: line 2: column 22: ", shown(&toml)));
    directory.write(
        "master.toml.d/a.toml",
        "[service.\"main/unix\"]\nmax_use = true\n",
    );
    directory.expect_refused(&format!("{}: line 2: column ", shown(&toml)));
}

#[test]
fn a_key_in_two_files_is_an_error_that_names_both() {
    let directory = Directory::of_a_user();
    let first = directory.write("master.toml.d/a.toml", "service_kill_time = \"5s\"\n");
    let second = directory.write("master.toml.d/b.toml", "\nservice_kill_time = \"6s\"\n");
    let expected = |first: &Path, second: &Path| {
        format!(
            "{}: line 2: column 1: \"service_kill_time\" is also set in {}: line 1: column 22",
            shown(second),
            shown(first)
        )
    };
    directory.expect_refused(&expected(&first, &second));
    fs::remove_file(&first).expect("a file");
    let toml = directory.write("master.toml", "service_kill_time = \"5s\"\n");
    directory.expect_refused(&expected(&toml, &second));
    fs::remove_file(&toml).expect("a file");
    directory.write("master.cf.d/a.cf", &line("main"));
    directory.expect_refused(&format!(
        "{}: line 1: column 1: the service \"main\" (public/main) is also on line 1 of {}",
        shown(&directory.path("master.cf.d/a.cf")),
        shown(&directory.path("master.cf")),
    ));
}

#[test]
fn a_table_that_is_named_has_no_drop_in_directories() {
    let mut directory = Directory::of_a_user();
    directory.write("master.cf.d/a.cf", "not a service\n");
    directory.write("master.toml.d/a.toml", "nonsense\n");
    directory.write("master.toml", "\ntable_directory = \"master.cf.d\"\n");
    directory.0.start();
    let warning = "line 2: column 20: \"table_directory\" has no effect";
    let said = directory.0.said();
    assert!(said.contains(warning), "{said}");
    let status = run(&mut directory.0.masterctl(&["status"]), SOON).expect_success();
    assert!(status.stdout.contains("main"), "{status:?}");
    let checked = run(&mut directory.0.masterctl(&["check"]), SOON).expect_success();
    assert!(checked.stdout.contains(warning), "{checked:?}");
}

#[test]
fn a_postfix_directory_has_further_tables_only_where_table_directory_is_set() {
    needs_root("to check a Postfix installation");
    let directory = Directory::new(Standalone::new());
    directory.write("main.cf", "maillog_file = /dev/stdout\n");
    let table = directory.write("master.cf.d/a.cf", "not a service\n");
    let checked = directory.ctl(&["check"]);
    assert!(!checked.stdout.contains("a.cf"), "{checked:?}");
    for (file, text) in [
        (
            "main.cf",
            "table_directory = $config_directory/master.cf.d\n",
        ),
        ("master.toml", "table_directory = \"master.cf.d\"\n"),
        (
            "master.toml.d/t.toml",
            "table_directory = \"master.cf.d\"\n",
        ),
    ] {
        let before = fs::read_to_string(directory.path(file)).unwrap_or_default();
        directory.write(file, &format!("{before}{text}"));
        let checked = directory.ctl(&["check"]);
        assert_eq!(checked.status.code(), Some(1), "{file}: {checked:?}");
        assert!(
            checked.stdout.contains(&shown(&table)),
            "{file}: {checked:?}"
        );
        directory.write(file, &before);
    }
}

#[test]
fn a_reload_takes_new_files_and_gives_up_removed_ones() {
    let mut directory = Directory::of_a_user();
    directory.start();
    let table = directory.write("master.cf.d/a.cf", &line("added"));
    let plan = directory.ctl(&["plan"]).expect_success();
    assert!(plan.stdout.contains("+ added"), "{plan:?}");
    assert!(directory.0.reload().contains("reload done"));
    assert_eq!(directory.services(), ["main", "added"]);
    let toml = directory.write(
        "master.toml.d/a.toml",
        "service_kill_time = \"7s\"\n[service.\"added/unix\"]\nstop_timeout = \"9s\"\n",
    );
    let plan = directory.ctl(&["plan"]).expect_success();
    assert!(plan.stdout.contains("service_kill_time"), "{plan:?}");
    assert!(plan.stdout.contains("~ added"), "{plan:?}");
    assert!(directory.0.reload().contains("reload done"));
    let document = directory.document();
    assert_eq!(document.settings["service_kill_time"], "7s");
    fs::remove_file(table).expect("a file");
    fs::remove_file(toml).expect("a file");
    let plan = directory.ctl(&["plan"]).expect_success();
    assert!(plan.stdout.contains("- added"), "{plan:?}");
    assert!(directory.0.reload().contains("reload done"));
    assert_eq!(directory.services(), ["main"]);
    assert_ne!(directory.document().settings["service_kill_time"], "7s");
}

#[test]
fn what_is_no_file_in_a_directory_freezes_nothing() {
    let mut directory = Directory::of_a_user();
    directory.start();
    for name in ["master.cf.d/a.cf", "master.toml.d/a.toml"] {
        let path = directory.write(name, "");
        fs::remove_file(&path).expect("a file");
        mkfifo(&path, Mode::from_bits_truncate(0o666)).expect("a FIFO");
        let fifo = format!("open {}: it is a FIFO", shown(&path));
        directory.expect_reload_refused(&fifo);
        for command in ["check", "plan", "reload"] {
            let said = directory.ctl(&[command]).expect_failure().stderr;
            assert!(said.contains(&fifo), "{command}: {said}");
        }
        fs::remove_file(&path).expect("a FIFO");
        let parent = path.parent().expect("a directory");
        fs::remove_dir(parent).expect("a directory");
        mkfifo(parent, Mode::from_bits_truncate(0o666)).expect("a FIFO");
        directory.expect_reload_refused(&format!("read directory {}: Not a dir", shown(parent)));
        fs::remove_file(parent).expect("a FIFO");
    }
    assert!(directory.0.reload().contains("reload done"));
}

#[test]
fn the_number_and_size_of_files_have_limits() {
    let mut directory = Directory::of_a_user();
    directory.start();
    for ending in ["cf", "toml"] {
        let parent = directory.path(&format!("master.{ending}.d"));
        let fill = |names: std::ops::Range<u32>, ending: &str| {
            fs::create_dir_all(&parent).expect("a directory");
            for n in names {
                File::create(parent.join(format!("{n}.{ending}"))).expect("a file");
            }
        };
        fill(0..1000, ending);
        assert!(directory.0.reload().contains("reload done"));
        fill(1000..1001, ending);
        directory.expect_reload_refused(&format!("more than 1000 files *.{ending}"));
        fs::remove_dir_all(&parent).expect("a directory");
        fill(0..10_001, "other");
        directory.expect_reload_refused("more than 10000 files: expected a directory for files");
        fs::remove_dir_all(&parent).expect("a directory");
        fill(0..3, ending);
        for n in 0..3 {
            let file = File::create(parent.join(format!("{n}.{ending}"))).expect("a file");
            file.set_len(6 << 20).expect("a size");
        }
        directory.expect_reload_refused("more than 16777216 bytes");
        fs::remove_dir_all(&parent).expect("a directory");
    }
    assert!(directory.0.reload().contains("reload done"));
}

#[test]
fn files_and_directories_that_others_can_change_are_refused() {
    needs_root("its files must be its own");
    let directory = Directory::new(Standalone::new());
    directory.write(
        "master.toml",
        "queue_directory = \"run/master\"\ndata_directory = \"data\"\nmail_owner = \"nobody\"\n",
    );
    let expect = |path: &Path, error: &str| {
        let mut master = directory.0.master(&["-w", "-c"]);
        let started = run(master.arg(directory.0.path()), SOON).expect_failure();
        let expected = format!("{}: root reads this {error}", shown(path));
        assert!(
            started.stderr.contains(&expected),
            "{expected}\n{started:?}"
        );
        let checked = directory.ctl(&["check"]);
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        assert!(
            checked.stdout.contains(&expected),
            "{expected}\n{checked:?}"
        );
    };
    for (name, text) in [
        ("master.cf.d/a.cf", line("a")),
        ("master.toml.d/a.toml", String::new()),
    ] {
        let path = directory.write(name, &text);
        let parent = path.parent().expect("a directory");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("a mode");
        expect(&path, "file, and users other than root may write to");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a mode");
        chown(&path, Some(47_111), None).expect("an owner");
        expect(&path, &format!("file, and {} belongs", shown(&path)));
        chown(&path, Some(0), None).expect("an owner");
        chown(parent, Some(47_111), None).expect("an owner");
        expect(&path, &format!("file, and {} belongs", shown(parent)));
        // A file can be added to it.
        fs::remove_file(&path).expect("a file");
        expect(parent, &format!("directory, and {} belongs", shown(parent)));
        chown(parent, Some(0), None).expect("an owner");
        fs::set_permissions(parent, Permissions::from_mode(0o777)).expect("a mode");
        expect(parent, "directory, and users other than root may write to");
        fs::set_permissions(parent, Permissions::from_mode(0o755)).expect("a mode");
    }
    directory.ctl(&["check"]).expect_success();
}

/// masterctl finds the master, and a service its log, by settings of a drop-in directory.
#[test]
fn all_programs_read_the_same_settings() {
    let directory = Directory::of_a_user();
    let mut copy = Command::new("cp");
    let trigger_log = programs::service("trigger-log");
    run(copy.arg(trigger_log).arg(directory.0.path()), SOON).expect_success();
    let (queue, log) = (directory.path("elsewhere"), directory.path("maillog"));
    directory.write(
        "master.toml.d/directories.toml",
        &format!("queue_directory = {queue:?}\nmaillog_file = {log:?}\n"),
    );
    directory.write("master.cf.d/tick.cf", "tick unix n - n 1 1 trigger-log\n");
    let mut master = directory.0.master(&["-w", "-c"]);
    run(master.arg(directory.0.path()), SOON).expect_success();
    assert_eq!(directory.services(), ["main", "tick"]);
    assert_eq!(directory.document().queue_directory, shown(&queue));
    until(SOON, "the service's line in the file", || {
        let lines = fs::read_to_string(&log).unwrap_or_default();
        lines.contains("tick: woken up")
    });
    directory.ctl(&["stop"]).expect_success();
}
