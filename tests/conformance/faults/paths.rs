//! Sockets are replaced by other files, or removed.

use std::fs;
use std::os::unix::fs::{FileTypeExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use testkit::client::Client;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::puppet_service::PuppetService;
use testkit::run::run;
use testkit::vitals::Vitals;
use testkit::{is_original, needs_root, test};

/// Replaces a socket by a directory that is not empty.
fn put_directory(at: &Path) {
    let _ = fs::remove_file(at);
    fs::create_dir(at).expect("a directory");
    fs::write(at.join("file"), "precious").expect("a file");
}

#[track_caller]
fn remove_directory(at: &Path) {
    let text = fs::read_to_string(at.join("file")).expect("the file");
    assert_eq!(text, "precious");
    fs::remove_dir_all(at).expect("the directory");
}

/// A directory may contain data, so only its owner may remove it.
#[test]
fn a_directory_in_the_place_of_a_socket_keeps_the_master_from_starting() {
    needs_root("to start a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let path = Path::new(&service.address);
    postfix.write_configuration();
    put_directory(path);
    let refused = run(&mut postfix.master(&["-w"]), SOON).expect_failure();
    if !is_original() {
        let said = refused.stderr;
        let what = "cannot listen on private/a: Is a directory; remove";
        assert!(said.contains(what), "{said}");
    }
    remove_directory(path);
    postfix.start();
    service.serve();
}

/// A reload requires the same as a start, as a transaction: all or nothing.
#[test]
fn a_directory_in_the_place_of_a_socket_fails_a_reload_that_needs_it() {
    needs_root("to run a master");
    differs(
        "A directory in the place of a socket does not end a running mail system on reload.",
        Observed {
            ours: "a line says what to remove, and the master serves on",
            original: "the master exits",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let (_client, busy) = service.serve();
            let vitals = Vitals::of(postfix);
            let master = postfix.master_process();
            // A successful reload would have replaced this.
            let first = Path::new(&service.address);
            fs::remove_file(first).expect("a socket");
            fs::write(first, "precious").expect("a file");
            let new = PuppetService::add(postfix, "b", "unix - - n - -");
            postfix.write_configuration();
            let path = Path::new(&new.address);
            put_directory(path);
            postfix.hang_up();
            let failed = "cannot listen on private/b: Is a directory; remove";
            until(SOON, "an error or the end", || {
                !master.runs() || !postfix.log_lines(failed).is_empty()
            });
            if !master.runs() {
                return "the master exits";
            }
            assert!(busy.process.runs(), "a child of before");
            let text = fs::read_to_string(first).expect("the file");
            assert_eq!(text, "precious");
            vitals.expect_again(postfix);
            remove_directory(path);
            postfix.reload();
            new.serve();
            service.serve();
            "a line says what to remove, and the master serves on"
        },
    );
}

/// Changes a socket's path; the second path is a file that must not be changed.
type Fault = fn(&Path, &Path);

/// Changes to a socket's path while the master runs.
const FAULTS: [(&str, Fault); 4] = [
    ("removed", |at, _| fs::remove_file(at).expect("a socket")),
    ("another's socket", |at, _| {
        fs::remove_file(at).expect("a socket");
        drop(UnixListener::bind(at).expect("another socket"));
    }),
    ("another's file", |at, target| {
        fs::hard_link(target, at.with_extension("new")).expect("a file");
        fs::rename(at.with_extension("new"), at).expect("another file");
    }),
    ("a link", |at, target| {
        fs::remove_file(at).expect("a socket");
        symlink(target, at).expect("a link");
    }),
];

/// "A socket or FIFO that was removed or replaced meanwhile is made anew."
#[test]
fn a_socket_that_was_removed_or_replaced_is_back_after_a_reload() {
    needs_root("to run a master");
    differs(
        "A socket that was removed or replaced is made anew by a reload.",
        Observed {
            ours: "clients are served again",
            original: "no client is served until the master is restarted",
        },
        |postfix| {
            postfix.unwatched("the sockets are counted");
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            let fifo = PuppetService::add(postfix, "b", "fifo n - n - 1");
            postfix.start();
            let mut vitals = None;
            let target = postfix.path().join("target");
            fs::write(&target, "precious").expect("a file");
            chown(&target, Some(0), Some(0)).expect("root's file");
            for (fault, act) in FAULTS {
                act(Path::new(&service.address), &target);
                act(Path::new(&fifo.address), &target);
                postfix.reload();
                let text = fs::read_to_string(&target).expect("the file");
                assert_eq!(text, "precious", "{fault}");
                let Ok(_client) = Client::try_connect(&service.address) else {
                    return "no client is served until the master is restarted";
                };
                let mut puppet = service.next();
                puppet.take_client();
                puppet.exit(0);
                let kind = fs::symlink_metadata(&fifo.address).expect("a path");
                assert!(kind.file_type().is_fifo(), "{fault}");
                fs::write(&fifo.address, "x").expect("a reader");
                let mut puppet = fifo.next();
                assert_eq!(puppet.tell("receive-from 6"), "78", "{fault}");
                puppet.exit(0);
                // Nothing else is left in the directory.
                assert_eq!(postfix.queued("private").len(), 1, "{fault}");
                let vitals = vitals.get_or_insert_with(|| Vitals::of(postfix));
                vitals.expect_again(postfix);
            }
            "clients are served again"
        },
    );
}
