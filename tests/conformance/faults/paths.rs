//! Sockets are replaced by other files, or removed.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use testkit::client::Client;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::puppet_service::PuppetService;
use testkit::run::run;
use testkit::vitals::Vitals;
use testkit::{needs_ours, needs_root, test};

/// Replaces a socket by a directory that is not empty.
fn put_directory(at: &Path) {
    let _ = fs::remove_file(at);
    fs::create_dir(at).expect("a directory");
    fs::write(at.join("file"), "precious").expect("a file");
}

/// The directory is still there, under another name.
#[track_caller]
fn expect_aside(postfix: &Instance, at: &Path) {
    let name = at.file_name().expect("a name").to_string_lossy();
    let name = format!("{name}.replaced-");
    let all = fs::read_dir(at.parent().expect("a directory")).expect("a directory");
    let aside = all.flatten().find(|entry| {
        let found = entry.file_name();
        found.to_string_lossy().starts_with(&name)
    });
    let aside = aside.expect("the directory").path();
    let text = fs::read_to_string(aside.join("file")).expect("the file");
    assert_eq!(text, "precious");
    let warnings = postfix.log_lines("a directory was in the place of ");
    let name = aside
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    assert!(
        warnings.iter().any(|line| line.contains(&name)),
        "{warnings:?}"
    );
}

/// The user who owns the directories of sockets must not be able to keep the master from starting.
///
/// Without the fix: ours, too, "the master does not start".
#[test]
fn a_directory_in_the_place_of_a_socket_does_not_keep_the_master_from_starting() {
    needs_root("to start a master");
    differs(
        "A directory in the place of a socket is renamed at the start.",
        Observed {
            ours: "the service is served",
            original: "the master does not start",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            let fifo = PuppetService::add(postfix, "b", "fifo n - n - 1");
            let paths = [&service, &fifo].map(|service| Path::new(&service.address));
            postfix.write_configuration();
            paths.into_iter().for_each(put_directory);
            if !run(&mut postfix.master(&["-w"]), SOON).success() {
                return "the master does not start";
            }
            service.serve();
            fs::write(&fifo.address, "x").expect("a reader");
            fifo.next();
            paths
                .into_iter()
                .for_each(|path| expect_aside(postfix, path));
            "the service is served"
        },
    );
}

/// The mode of a directory is its owner's to choose, and a way to keep the master from starting.
///
/// Without the fix: ours, too, "the master does not start".
#[test]
fn a_directory_that_its_owner_has_locked_does_not_keep_the_master_from_starting() {
    needs_root("to start a master");
    differs(
        "A directory of sockets or a lock that mail_owner has locked by its mode is unlocked at the start.",
        Observed {
            ours: "the services are served",
            original: "the master does not start",
        },
        |postfix| {
            let private = PuppetService::add(postfix, "a", "unix - - n - -");
            let public = PuppetService::add(postfix, "b", "unix n - n - -");
            postfix.start();
            postfix.stop();
            let queue = postfix.queue();
            let data = postfix.data();
            let locked = [
                queue.join("private"),
                queue.join("public"),
                data.join("master.lock"),
                data,
            ];
            for path in &locked {
                fs::set_permissions(path, fs::Permissions::from_mode(0o0)).expect("a mode");
            }
            if !run(&mut postfix.master(&["-w"]), SOON).success() {
                return "the master does not start";
            }
            private.serve();
            public.serve();
            for path in &locked {
                let path = format!("{}: its mode, 000, kept ", path.display());
                let relative = path.replace(&format!("{}/", queue.display()), "");
                let lines = postfix.log_lines("its mode, 000, kept");
                let is_told = |line: &String| line.contains(&path) || line.contains(&relative);
                assert!(lines.iter().any(is_told), "{path}: {lines:?}");
            }
            "the services are served"
        },
    );
}

/// A service that a reload adds is in a directory that its owner has locked.
#[test]
fn a_directory_that_its_owner_has_locked_does_not_fail_a_reload_with_a_new_service() {
    needs_root("to run a master");
    needs_ours("Postfix's master exits");
    let mut postfix = Instance::bare();
    let old = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.start();
    let directory = Path::new(&old.address).parent().expect("a directory");
    fs::set_permissions(directory, fs::Permissions::from_mode(0o0)).expect("a mode");
    let new = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.reload();
    postfix.wait_for_log("its mode, 000, kept its owner from making sockets in it");
    old.serve();
    new.serve();
}

/// Also of a service that is there.
#[test]
fn a_directory_in_the_place_of_a_socket_does_not_fail_a_reload() {
    needs_root("to run a master");
    differs(
        "A directory in the place of a socket does not end a running mail system on reload.",
        Observed {
            ours: "the directory is renamed, and the service is served",
            original: "the master exits",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let (_client, mut busy) = service.serve();
            busy.tell("stay");
            let master = postfix.master_process();
            let new = PuppetService::add(postfix, "b", "unix - - n - -");
            postfix.write_configuration();
            let paths = [&service, &new].map(|service| Path::new(&service.address));
            paths.into_iter().for_each(put_directory);
            postfix.hang_up();
            until(SOON, "the reload or the end", || {
                !master.runs() || !postfix.log_lines("reload done").is_empty()
            });
            if !master.runs() {
                return "the master exits";
            }
            assert!(busy.process.runs(), "a child that has a client");
            service.serve();
            new.serve();
            paths
                .into_iter()
                .for_each(|path| expect_aside(postfix, path));
            "the directory is renamed, and the service is served"
        },
    );
}

/// A new socket cannot be made, which is no reason to refuse other changes, or to end this service.
///
/// Without the fix: "reload failed and changed nothing".
#[test]
fn a_service_whose_directory_is_locked_keeps_its_listener_on_reload() {
    needs_root("to run a master");
    needs_ours("Postfix's master makes no socket anew");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let other = PuppetService::add(&mut postfix, "b", "unix n - n - -");
    postfix.start();
    let path = Path::new(&service.address);
    let directory = path.parent().expect("a directory");
    let moved = postfix.path().join("moved");
    fs::rename(path, &moved).expect("a socket");
    fs::set_permissions(directory, fs::Permissions::from_mode(0o0)).expect("a mode");
    other.set(&mut postfix, "unix n - n - 7");
    postfix.reload();
    postfix.wait_for_log("it keeps its former listener");
    postfix.wait_for_log("reload done");
    let _client = Client::connect(&moved.display().to_string());
    let mut puppet = service.next();
    puppet.take_client();
    puppet.exit(0);
    // The next reload makes it again.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).expect("a mode");
    postfix.reload();
    service.serve();
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
