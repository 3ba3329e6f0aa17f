//! Wake-ups of all types of services.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Instant;

use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::layout::mail_owner;
use testkit::poll::until;
use testkit::puppet::Puppet;
use testkit::puppet_service::{PuppetService, one_service};
use testkit::{needs_root, test};

use crate::lines::Line;

/// `W` and a null byte, as the puppet prints them.
const WAKEUP: &str = "5700";

/// Asserts that a child's next client is a wake-up, and closes it.
#[track_caller]
fn expect_wakeup(puppet: &mut Puppet) {
    puppet.take_client();
    assert_eq!(puppet.tell("receive"), WAKEUP);
    puppet.finish_client();
}

/// "First one at start-up", "The byte `W` (unix [...]: connect, write `W` and a zero byte [...])"
#[test]
fn a_unix_service_is_woken_up_at_the_start() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n 1000 1");
    expect_wakeup(&mut service.next());
}

/// "(unix, pass and inet: connect, write `W` and a zero byte, wait for the peer to close)"
#[test]
fn an_inet_service_is_woken_up_at_the_start() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("inet n - n 1000 1");
    expect_wakeup(&mut service.next());
}

/// "pass: one end of a pipe is passed over the connection, and the byte goes through the pipe"
#[test]
fn a_pass_service_is_woken_up_through_a_pipe_that_is_passed_to_it() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("pass - - n 1000 1");
    let mut puppet = service.next();
    puppet.take_client();
    puppet.tell("adopt");
    assert_eq!(puppet.tell("receive-passed"), WAKEUP);
}

/// "fifo: opened as mail_owner without following links": `W` alone.
#[test]
fn a_fifo_service_is_woken_up_at_the_start() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("fifo n - n 1000 1");
    assert_eq!(service.next().tell("receive-from 6"), "57");
}

/// "Wake-ups [...] then every wake-up time"
#[test]
fn wakeups_come_again_and_again() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n 1 1");
    let mut puppet = service.next();
    for _ in 0..3 {
        expect_wakeup(&mut puppet);
    }
    service.expect_no_child();
}

/// "fifo": again and again, too.
#[test]
fn a_fifo_service_is_woken_up_again_and_again() {
    needs_root("to run a master");
    let begin = Instant::now();
    let (_postfix, service) = one_service("fifo n - n 1 1");
    let mut puppet = service.next();
    puppet.tell("report taken");
    let mut wakeups = 0;
    while wakeups < 3 {
        // On a busy machine, two may be waiting.
        let bytes = puppet.tell("receive-from 6");
        let count = usize::max(1, bytes.len() / 2);
        assert_eq!(bytes, "57".repeat(count));
        wakeups += count;
        // One at the start and one per second, which the original counts by the clock's seconds.
        let due = begin.elapsed().as_secs() as usize + 2;
        assert!(wakeups <= due, "{wakeups} wake-ups where {due} are due");
    }
}

/// "(default [...] wakeup 0 [...])": none.
#[test]
fn a_service_without_a_wakeup_time_is_not_woken_up() {
    needs_root("to run a master");
    for wakeup in ["-", "0", "0?"] {
        let (_postfix, service) = one_service(&format!("unix - - n {wakeup} 1"));
        service.expect_no_child();
    }
}

/// "A `?` after the wake-up time: only once the service has been used."
#[test]
fn conditional_wakeups_wait_for_the_first_use() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n 1000? 1");
    service.expect_no_child();
    let (client, mut puppet) = service.serve();
    puppet.finish_client();
    drop(client);
    expect_wakeup(&mut puppet);
}

/// Conditional wake-ups, once begun, come again and again.
#[test]
fn conditional_wakeups_go_on_after_the_first_use() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n 1? 1");
    let (client, mut puppet) = service.serve();
    puppet.finish_client();
    drop(client);
    for _ in 0..2 {
        expect_wakeup(&mut puppet);
    }
}

/// "wait for the peer to close": the connection stays open until then.
#[test]
fn a_wakeup_waits_in_the_queue_of_a_service_that_is_busy() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n 1000? 1");
    let (client, mut puppet) = service.serve();
    // The wake-up came when the child was started, and is in the queue behind the client.
    let mut second = service.connect();
    drop(client);
    puppet.finish_client();
    expect_wakeup(&mut puppet);
    puppet.take_client();
    puppet.tell("write hello");
    assert_eq!(second.line(), "hello");
}

/// "Not while throttled."
#[test]
fn a_throttled_service_is_not_woken_up() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n 1 1");
    postfix.set("service_throttle_time", "4s");
    postfix.start();
    let mut puppet = service.next();
    puppet.take_client();
    puppet.exit(1);
    Line::BadStartup.wait(&postfix, &[""; 0]);
    // While the service is throttled, the master does not connect; so there is one wake-up
    // afterwards, not four.
    let mut puppet = service.next();
    expect_wakeup(&mut puppet);
    let begin = std::time::Instant::now();
    expect_wakeup(&mut puppet);
    let pause = begin.elapsed();
    assert!(
        pause.as_millis() > 100,
        "wake-ups have queued up: {pause:?}"
    );
}

/// "restarted by reload"
#[test]
fn a_reload_begins_with_a_wakeup() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n 1000 -");
    for _ in 0..3 {
        expect_wakeup(&mut service.next());
        postfix.reload();
    }
}

/// "Kept services: [...] wake-up [...] replaced"
#[test]
fn a_reload_begins_and_ends_wakeups() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 1");
    service.expect_no_child();
    service.set(&mut postfix, "unix - - n 1 1");
    postfix.reload();
    let mut puppet = service.next();
    expect_wakeup(&mut puppet);
    expect_wakeup(&mut puppet);
    service.set(&mut postfix, "unix - - n - 1");
    postfix.reload();
    puppet.wait_for_end();
    // One may have been sent before; another second is enough for a further one.
    if let Some(mut puppet) = service.next_within(std::time::Duration::from_millis(100)) {
        puppet.tell("accept");
    }
    let another = service.next_within(std::time::Duration::from_millis(1500));
    assert!(another.is_none(), "a wake-up");
}

/// After a reload, `?` applies again.
#[test]
fn conditional_wakeups_wait_again_after_a_reload() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n 1000? 1");
    let (client, mut puppet) = service.serve();
    puppet.finish_client();
    drop(client);
    expect_wakeup(&mut puppet);
    postfix.reload();
    puppet.wait_for_end();
    service.expect_no_child();
}

/// "fifo: opened [...] without following links"
#[test]
fn a_fifo_that_was_replaced_by_a_link_is_not_written_to() {
    needs_root("to run a master");
    let (postfix, service) = one_service("fifo n - n 1? 1");
    let target = postfix.path().join("target");
    fs::write(&target, "").expect("a file");
    let (uid, gid) = mail_owner();
    chown(&target, Some(uid), Some(gid)).expect("an owner");
    fs::write(&service.address, "x").expect("a reader");
    fs::remove_file(&service.address).expect("a fifo");
    symlink(&target, &service.address).expect("a link");
    service.next();
    let warning = postfix.wait_for_log("warning: ");
    assert!(warning.contains("service "), "{warning}");
    assert_eq!(fs::read(&target).expect("a file"), b"");
}

/// "fifo: opened as mail_owner"
#[test]
fn a_fifo_that_mail_owner_may_not_write_to_is_not_written_to() {
    needs_root("to run a master");
    let (postfix, service) = one_service("fifo n - n 1? 1");
    chown(&service.address, Some(0), Some(0)).expect("root's");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&service.address, mode).expect("a mode");
    fs::write(&service.address, "x").expect("a reader");
    let mut puppet = service.next();
    puppet.tell("report taken");
    assert_eq!(puppet.tell("receive-from 6"), "78");
    postfix.wait_for_log("Permission denied");
}

/// A service is woken up as mail_owner, to whom its directory belongs.
#[test]
fn a_socket_that_was_replaced_by_a_link_to_roots_is_not_connected_to() {
    needs_root("to run a master");
    differs(
        "A wake-up does not follow a link to a socket that mail_owner may not use.",
        Observed {
            ours: "a warning",
            original: "a connection",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix n - n 1 1");
            let target = postfix.path().join("target");
            let roots = UnixListener::bind(&target).expect("a socket");
            roots.set_nonblocking(true).expect("a socket");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&target, mode).expect("a mode");
            postfix.start();
            fs::remove_file(&service.address).expect("a socket");
            symlink(&target, &service.address).expect("a link");
            until(SOON, "a wake-up", || {
                let refused = !postfix.log_lines("Permission denied").is_empty();
                let connected = roots.accept().is_ok();
                let found = [(refused, "a warning"), (connected, "a connection")];
                found.iter().find_map(|(seen, what)| seen.then_some(*what))
            })
        },
    );
}

/// Wake-ups are for services with connections, and for FIFOs.
#[test]
fn a_datagram_service_cannot_be_woken_up() {
    needs_root("to run a master");
    differs(
        "A wake-up time of a unix-dgram service, which cannot be woken up, is warned of.",
        Observed {
            ours: "a warning",
            original: "silence",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix-dgram n - n 1000 1");
            postfix.start();
            service.expect_no_child();
            // Otherwise it works normally.
            let client = UnixDatagram::unbound().expect("a socket");
            client.send_to(b"x", &service.address).expect("a reader");
            assert_eq!(service.next().tell("receive-from 6"), "78");
            if postfix.log_lines("warning: ").is_empty() {
                "silence"
            } else {
                "a warning"
            }
        },
    );
}

/// A wake-up of a service whose socket was removed fails; others are not affected.
#[test]
fn a_wakeup_that_finds_no_socket_is_warned_of() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n 1 1");
    let other = PuppetService::add(&mut postfix, "b", "unix - - n - 1");
    postfix.start();
    expect_wakeup(&mut service.next());
    fs::remove_file(&service.address).expect("a socket");
    let warning = postfix.wait_for_log("No such file or directory");
    assert!(warning.contains("warning: "), "{warning}");
    other.serve();
}

/// "With -v, further lines tell [...] of wake-ups."
#[test]
fn a_verbose_master_tells_of_wakeups() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n 1 1");
    postfix.start_in_foreground(&["-v"]);
    // The original writes nothing to this log during the start, so the first wake-up is not in it.
    let mut puppet = service.next();
    expect_wakeup(&mut puppet);
    expect_wakeup(&mut puppet);
    Line::Waking.wait(&postfix, &[""; 0]);
}
