//! The child for services of type fifo, which runs a command when something is written to the FIFO.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use testkit::instance::{Instance, SOON};
use testkit::layout::mail_owner;
use testkit::poll::until;
use testkit::process::Process;
use testkit::{needs_root, test};

use crate::examples::{TRIGGERED, expect_no_complaint};

/// Writes the user, the groups and unwanted descriptors to a file, one per line.
const NOTE: &str = r#"
for descriptor in 3 4 5 6; do
    if [ -e /proc/$$/fd/$descriptor ]; then echo "has $descriptor" >>"$1"; fi
done
id -u >>"$1"
"#;

/// A running master with such a service.
struct Fifo {
    postfix: Instance,
    path: PathBuf,
    notes: PathBuf,
}

impl Fifo {
    /// Starts it with the columns from `unpriv` to `maxproc`, and the child's own options.
    #[track_caller]
    fn new(columns: &str, options: &str) -> Self {
        TRIGGERED.needs_language();
        let mut postfix = Instance::bare();
        let notes = postfix.path().join("mail/notes");
        fs::write(&notes, "").expect("a file");
        let (uid, gid) = mail_owner();
        std::os::unix::fs::chown(&notes, Some(uid), Some(gid)).expect("an owner");
        postfix.install_script("note", NOTE);
        let command = postfix.daemons().join("note").display().to_string();
        let arguments = format!("{options} {command} {}", notes.display());
        TRIGGERED.add(&mut postfix, "a", &format!("fifo n {columns}"), &arguments);
        postfix.start();
        Self {
            path: postfix.socket("public", "a"),
            postfix,
            notes,
        }
    }

    fn write(&self) {
        fs::write(&self.path, "x").expect("a FIFO");
    }

    /// Waits until the command has run `times` times, and returns its output.
    #[track_caller]
    fn noted(&self, times: usize) -> Vec<String> {
        until(
            SOON,
            format_args!("the command to run {times} times"),
            || {
                let notes: Vec<String> = fs::read_to_string(&self.notes)
                    .expect("notes")
                    .lines()
                    .map(str::to_owned)
                    .collect();
                (notes.len() >= times).then_some(notes)
            },
        )
    }

    #[track_caller]
    fn child(&self) -> Process {
        self.postfix.children()[0]
    }

    #[track_caller]
    fn expect_gone(&self, child: Process) {
        until(SOON, "the child to leave", || !child.runs());
    }
}

#[test]
fn the_command_runs_each_time_that_somebody_writes() {
    needs_root("to run a master");
    let fifo = Fifo::new("n n - 1", "");
    fifo.write();
    assert_eq!(fifo.noted(1), ["0"]);
    let child = fifo.child();
    for times in 2..4 {
        fifo.write();
        assert_eq!(fifo.noted(times), vec!["0"; times]);
    }
    assert_eq!(fifo.child(), child);
    expect_no_complaint(&fifo.postfix);
}

#[test]
fn an_unprivileged_child_runs_the_command_as_mail_owner() {
    needs_root("to run a master");
    let fifo = Fifo::new("y n - 1", "");
    fifo.write();
    let (uid, _) = mail_owner();
    assert_eq!(fifo.noted(1), [uid.to_string()]);
    assert_eq!(fifo.child().uids(), [uid; 4]);
    expect_no_complaint(&fifo.postfix);
}

#[test]
fn a_wakeup_runs_the_command_too() {
    needs_root("to run a master");
    let fifo = Fifo::new("n n 1 1", "");
    fifo.noted(3);
    expect_no_complaint(&fifo.postfix);
}

#[test]
fn the_child_leaves_on_reload_and_when_the_master_was_killed() {
    needs_root("to run a master");
    let mut fifo = Fifo::new("n n - 1", "");
    fifo.write();
    fifo.noted(1);
    let first = fifo.child();
    fifo.postfix.reload();
    fifo.expect_gone(first);
    fifo.write();
    fifo.noted(2);
    let second = fifo.child();
    fifo.postfix.master_process().signal(Signal::SIGKILL);
    fifo.expect_gone(second);
    expect_no_complaint(&fifo.postfix);
}

#[test]
fn the_child_leaves_when_its_time_or_its_number_of_uses_has_come() {
    needs_root("to run a master");
    // 11 children, so that generations reach two digits.
    for (options, many) in [("-o max_idle=1", 2), ("-o max_use=1", 11)] {
        let fifo = Fifo::new("n n - 1", options);
        for times in 1..=many {
            fifo.write();
            fifo.noted(times);
            until(SOON, "the child to leave", || {
                fifo.postfix.children().is_empty()
            });
        }
        expect_no_complaint(&fifo.postfix);
    }
}

/// "A child that fails [...] is taken for broken": a failing command is no such child.
#[test]
fn a_command_that_fails_does_not_end_the_child() {
    needs_root("to run a master");
    TRIGGERED.needs_language();
    let mut postfix = Instance::bare();
    TRIGGERED.add(&mut postfix, "a", "fifo n n n 1 1", "-o max_use=2 false");
    postfix.start();
    let child = until(SOON, "a child", || postfix.children().first().copied());
    until(SOON, "the child to leave", || !child.runs());
    expect_no_complaint(&postfix);
}

/// A shell script cannot change its root directory.
#[test]
fn a_chroot_is_refused() {
    needs_root("to run a master");
    let fifo = Fifo::new("n y - 1", "");
    fifo.write();
    fifo.postfix
        .wait_for_log("bad command startup -- throttling");
}
