//! Descriptors do not accumulate.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use testkit::client::Client;
use testkit::instance::{Instance, SOON};
use testkit::poll::{until, within};
use testkit::programs::example;
use testkit::vitals::kinds_at_rest;
use testkit::{needs_root, test};

/// Reloads, and waits until the old logger is replaced: its number of processes varies, and the
/// master keeps descriptors for it.
#[track_caller]
fn reload_and_log(postfix: &mut Instance) {
    let former = postfix.children_named("postlogd");
    postfix.reload();
    let log = UnixDatagram::unbound().expect("a socket");
    until(SOON, "another logger", || {
        let _ = log.send_to(b"a line", postfix.queue().join("public/postlog"));
        let loggers = postfix.children_named("postlogd");
        loggers.iter().any(|logger| !former.contains(logger))
    });
}

#[test]
fn a_hundred_reloads_leave_the_masters_descriptors_as_they_were() {
    needs_root("to run a mail system");
    let mut postfix = Instance::new();
    let address = postfix.address();
    postfix.install_script("inert", "exec sleep 1000");
    postfix
        .service(&format!("{address} inet n - n - - inert"))
        .service("stream unix - - n - - inert")
        .service("pass pass - - n - - inert")
        .service("fifo fifo n - n - 1 inert")
        .service("datagram unix-dgram n - n - 1 inert");
    postfix.start();
    let master = postfix.master_process();
    reload_and_log(&mut postfix);
    let before = kinds_at_rest(master);
    for reload in 0..100 {
        // Every second time there is one service more.
        if reload % 2 == 0 {
            postfix.service("sometimes unix - - n - - inert");
        } else {
            postfix.without("sometimes", "unix");
        }
        postfix.reload();
    }
    // The logger has a socket for its last words if few were started in the second before.
    let mut after = BTreeMap::new();
    within(SOON, || {
        reload_and_log(&mut postfix);
        after = kinds_at_rest(master);
        after == before
    });
    assert_eq!(after, before);
    assert_eq!(postfix.master_process(), master);
}

#[test]
fn thousands_of_children_leave_the_masters_descriptors_as_they_were() {
    needs_root("to run a mail system");
    let children = match std::env::var_os("MASTER_TEST_LONG") {
        Some(_) => 10_000,
        None => 2_000,
    };
    let mut postfix = Instance::new();
    postfix.install(&example("puppet"), "puppet");
    let address = postfix.address();
    let tally = postfix.path().join("tally");
    let line = format!(
        "{address} inet n - n - - puppet -o tally={} once",
        tally.display()
    );
    postfix.service(&line);
    postfix.start();
    let master = postfix.master_process();
    reload_and_log(&mut postfix);
    let before = kinds_at_rest(master);

    // Each child takes one client.
    let started = || fs::metadata(&tally).map_or(0, |facts| facts.len());
    let limit = Duration::from_secs(300);
    until(limit, format_args!("{children} children"), || {
        let _clients: Vec<_> = (0..20).map(|_| Client::connect(&address)).collect();
        started() >= children
    });

    // Without the waiting client the master becomes idle.
    postfix.without(&address, "inet");
    postfix.reload();
    postfix.service(&line);
    reload_and_log(&mut postfix);
    until(SOON, "the last child's end", || {
        postfix.children_named("puppet").is_empty()
    });
    assert_eq!(kinds_at_rest(master), before);
    assert_eq!(postfix.master_process(), master);
}
