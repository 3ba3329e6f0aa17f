//! One master at a time.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::layout::mail_owner;
use testkit::poll::until;
use testkit::process::Process;
use testkit::programs;
use testkit::puppet_service::one_service;
use testkit::run::run;
use testkit::{is_original, needs_root, original, test};

/// The two lock files of a running master.
fn locks(postfix: &Instance) -> [PathBuf; 2] {
    [
        postfix.queue().join("pid/master.pid"),
        postfix.data().join("master.lock"),
    ]
}

#[track_caller]
fn expect_no_start(postfix: &Instance) {
    let refused = run(&mut postfix.master(&["-w"]), SOON).expect_failure();
    assert!(refused.status.code().is_some(), "killed: {refused:?}");
}

/// "exclusive, flock on Linux: the original and ours must exclude each other"
#[test]
fn each_of_the_two_masters_keeps_the_other_from_starting() {
    needs_root("to run a master");
    let ours = programs::master();
    for (first, second) in [(ours.clone(), original()), (original(), ours)] {
        let mut postfix = Instance::bare();
        postfix.use_master(&first);
        postfix.start();
        let master = postfix.master_process();
        postfix.use_master(&second);
        expect_no_start(&postfix);
        let test = run(&mut postfix.master(&["-t"]), SOON);
        assert_eq!(test.status.code(), Some(1), "{second:?} sees {first:?}");
        assert!(master.runs());
    }
}

/// "`pid/master.pid` locked (exclusive, flock on Linux [...])", "`$data_directory/master.lock`
/// likewise"
#[test]
fn a_lock_that_somebody_holds_keeps_the_master_from_starting() {
    needs_root("to run a master");
    for which in 0..2 {
        let mut postfix = Instance::bare();
        postfix.write_configuration();
        let path = &locks(&postfix)[which];
        let file = fs::File::create(path).expect("a lock file");
        let (uid, gid) = mail_owner();
        let owner = if which == 0 { (0, 0) } else { (uid, gid) };
        chown(path, Some(owner.0), Some(owner.1)).expect("an owner");
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, why)| why)
            .expect("a lock");
        expect_no_start(&postfix);
        drop(lock);
        postfix.start();
    }
}

/// An unlocked lock file means that no master runs, whatever it contains.
#[test]
fn what_a_dead_master_left_in_its_lock_files_is_overwritten() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    postfix.start();
    let first = postfix.master_process();
    first.signal(Signal::SIGKILL);
    until(SOON, "its end", || !first.runs());
    for path in locks(&postfix) {
        let file = fs::File::options().append(true).open(path);
        let junk = "1\nand much more than any process id\n".repeat(10);
        std::io::Write::write_all(&mut file.expect("a lock file"), junk.as_bytes()).expect("junk");
    }
    postfix.start();
    for path in locks(&postfix) {
        let text = fs::read_to_string(&path).expect("a lock file");
        let line = text.lines().next().expect("a line").trim();
        let pid = line.parse().expect("a process id");
        assert_ne!(pid, first.0);
        assert!(Process(pid).executable().starts_with(postfix.path()));
    }
}

/// "the process ID and newline": a reader can rely on that.
#[test]
fn a_lock_file_has_nothing_but_the_process_id() {
    needs_root("to run a master");
    differs(
        "A lock file has nothing but the process ID, whatever was in it.",
        Observed {
            ours: "one line",
            original: "one line, and what was left behind it",
        },
        |postfix| {
            let path = &locks(postfix)[0];
            fs::write(path, "1\nand much more than any process id\n".repeat(10)).expect("junk");
            postfix.start();
            let text = fs::read_to_string(path).expect("a lock file");
            match text.lines().count() {
                1 => "one line",
                _ => "one line, and what was left behind it",
            }
        },
    );
}

/// "`$data_directory/master.lock` likewise, created as `mail_owner`"
#[test]
fn the_lock_files_belong_to_root_and_to_mail_owner() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    postfix.start();
    let facts = locks(&postfix).map(|path| fs::metadata(path).expect("a lock file"));
    let owners = facts.each_ref().map(|facts| (facts.uid(), facts.gid()));
    assert_eq!(owners, [(0, 0), mail_owner()]);
    let modes = facts.each_ref().map(|facts| facts.mode() & 0o7777);
    assert_eq!(modes, [0o600, 0o600]);
}

/// Does something to the lock file of data_directory, and tells whether a master starts all the same.
fn starts_in_spite_of(postfix: &mut Instance, act: impl Fn(&Path)) -> &'static str {
    let path = locks(postfix)[1].clone();
    postfix.write_configuration();
    act(&path);
    if !run(&mut postfix.master(&["-w"]), SOON).success() {
        return "the master does not start";
    }
    postfix.wait_for_log("has put it in the way of the master: it is ");
    assert!(fs::symlink_metadata(path).expect("a lock file").is_file());
    "the file is renamed, and the master starts"
}

/// Without the fix: ours, too, "the master does not start".
#[test]
fn mail_owner_cannot_keep_the_master_from_starting_by_a_lock() {
    needs_root("to run a master");
    differs(
        "A lock on the lock file of data_directory by a process that is not root's does not keep the \
         master from starting.",
        Observed {
            ours: "the file is renamed, and the master starts",
            original: "the master does not start",
        },
        |postfix| {
            let (uid, gid) = mail_owner();
            let data = postfix.data();
            starts_in_spite_of(postfix, |path| {
                let script = "touch locked; exec sleep 1000";
                let mut command = Command::new("flock");
                command
                    .arg(path)
                    .args(["sh", "-c", script])
                    .current_dir(&data);
                let mut holder = command.uid(uid).gid(gid).spawn().expect("flock(1)");
                until(SOON, "the lock", || data.join("locked").exists());
                // The instance kills what uses its directories.
                thread::spawn(move || holder.wait());
            })
        },
    );
}

/// Without the fix: ours, too, "the master does not start".
#[test]
fn mail_owner_cannot_keep_the_master_from_starting_by_another_file() {
    needs_root("to run a master");
    differs(
        "A directory or a link in the place of the lock file of data_directory does not keep the \
         master from starting.",
        Observed {
            ours: "the file is renamed, and the master starts",
            original: "the master does not start",
        },
        |postfix| {
            let target = postfix.path().join("target");
            fs::write(&target, "precious").expect("a file");
            let acts: [&dyn Fn(&Path); 3] = [
                &|path| fs::create_dir(path).expect("a directory"),
                &|path| symlink(&target, path).expect("a link"),
                &|path| fs::hard_link(&target, path).expect("a link"),
            ];
            let mut observed = "";
            for act in acts {
                observed = starts_in_spite_of(postfix, |path| {
                    let _ = fs::remove_file(path);
                    act(path);
                });
                if observed == "the master does not start" {
                    return observed;
                }
                let text = fs::read_to_string(&target).expect("a file");
                assert_eq!(text, "precious");
                postfix.stop();
            }
            observed
        },
    );
}

/// "not a regular file with one link": nobody must be able to make root write elsewhere.
#[test]
fn a_lock_file_that_is_a_link_is_refused() {
    needs_root("to run a master");
    let (uid, gid) = mail_owner();
    for which in 0..2 {
        if which == 1 && !is_original() {
            // See above: it is renamed.
            continue;
        }
        for hard in [true, false] {
            let postfix = Instance::bare();
            postfix.write_configuration();
            let path = &locks(&postfix)[which];
            let target = postfix.path().join("target");
            fs::write(&target, "precious").expect("a file");
            chown(&target, Some(uid), Some(gid)).expect("an owner");
            if hard {
                fs::hard_link(&target, path).expect("a link")
            } else {
                symlink(&target, path).expect("a link")
            }
            // As if mail_owner had created it.
            lchown(path, Some(uid), Some(gid)).expect("an owner");
            expect_no_start(&postfix);
            let text = fs::read_to_string(&target).expect("a file");
            assert_eq!(text, "precious", "{path:?}, hard: {hard}");
        }
    }
}

/// The lock belongs to the master; children do not inherit it.
#[test]
fn a_child_that_survives_the_master_does_not_hold_its_locks() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - -");
    let (_client, mut puppet) = service.serve();
    puppet.tell("stay");
    puppet.tell("grandchild");
    let first = postfix.master_process();
    first.signal(Signal::SIGKILL);
    until(SOON, "its end", || !first.runs());
    postfix.start();
    assert!(puppet.process.runs());
}

/// "`pid/master.pid` locked" precedes "service table" in the order of the start: a start that fails
/// changes nothing of the running master.
#[test]
fn a_second_master_leaves_the_firsts_lock_files_and_listeners_alone() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let (_client, puppet) = service.serve();
    let read = || locks(&postfix).map(|path| fs::read_to_string(path).expect("a lock file"));
    let before = read();
    expect_no_start(&postfix);
    assert_eq!(read(), before);
    service.serve();
    assert!(puppet.process.runs());
}
