//! The disk is full, for the log or for the lock files.

use nix::sys::signal::Signal;
use testkit::differs::{Observed, differs};
use testkit::disk::Disk;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::puppet_service::PuppetService;
use testkit::run::run;
use testkit::vitals::Vitals;
use testkit::{is_original, needs_root, test};

/// "N log lines before this one could not be written"
#[test]
fn a_full_disk_for_the_log_stops_nobody() {
    needs_root("to mount a small disk");
    differs(
        "A log file that the disk has no room for does not end the master that writes to it.",
        Observed {
            ours: "clients are served, and the log says how many lines are missing",
            original: "the master exits",
        },
        |postfix| {
            let log = postfix.path().join("log");
            let mut observed = "";
            Disk::mount(&log, 64, |disk| observed = without_room(postfix, &disk));
            observed
        },
    );
}

fn without_room(postfix: &mut Instance, disk: &Disk) -> &'static str {
    let service = PuppetService::add(postfix, "a", "unix - - n - -");
    postfix.start();
    // Of the first child of a service, the master has its descriptor 2, too.
    let (client, early) = service.serve();
    drop(client);
    early.exit(0);
    let (_client, first) = service.serve();
    let vitals = Vitals::of(postfix);
    let master = postfix.master_process();
    disk.fill();
    // The file's last block may have room for about forty lines.
    for _ in 0..100 {
        postfix.hang_up();
        until(SOON, "the end of a reload, or of the master", || {
            let is_idle = || master.is_idle() && !master.has_pending(Signal::SIGHUP);
            !master.runs() || (is_idle() && master.copies().is_empty() && is_idle())
        });
        if !master.runs() {
            return "the master exits";
        }
    }
    first.wait_for_end();
    let (_client, second) = service.serve();
    disk.free();
    postfix.reload();
    second.wait_for_end();
    postfix.wait_for_log(" log lines before this one could not be written");
    for line in postfix.log().lines() {
        // A line that was cut by the full disk is terminated.
        assert!(line.matches("host postfix/master[").count() <= 1, "{line}");
    }
    let (_client, _third) = service.serve();
    vitals.expect_again(postfix);
    "clients are served, and the log says how many lines are missing"
}

/// "cannot update lock file FILE: REASON"
#[test]
fn a_full_disk_for_a_lock_file_keeps_the_master_from_starting() {
    needs_root("to mount a small disk");
    for (directory, name) in [("queue/pid", "master.pid"), ("data", "master.lock")] {
        let mut postfix = Instance::bare();
        let directory = postfix.path().join(directory);
        Disk::mount(&directory, 64, |disk| {
            let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
            postfix.write_configuration();
            disk.fill();
            let refused = run(&mut postfix.master(&["-w"]), SOON).expect_failure();
            if !is_original() {
                let path = directory.join(name).display().to_string();
                let what = format!("cannot update lock file {path}: No space left on device");
                assert!(refused.stderr.contains(&what), "{}", refused.stderr);
            }
            disk.free();
            postfix.start();
            service.serve();
            postfix.stop();
        });
    }
}
