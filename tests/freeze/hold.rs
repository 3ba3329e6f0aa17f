//! A child, or a local user, holds the lock of something that it shares with the master, for as long
//! as it likes: see `tests/programs/hold.rs`.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use crate::manager::Socket;
use crate::stage::Stage;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator;
use testkit::poll::until;
use testkit::ports::Port;
use testkit::programs::example;
use testkit::{needs_root, test};

/// How long clients are measured after the lock is held.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// A master with a service whose child holds a lock, once it was started.
struct Held {
    stage: Stage,
    program: PathBuf,
    sign: PathBuf,
}

impl Held {
    fn new() -> Self {
        let stage = Stage::new();
        Self {
            program: stage.standalone.install(&example("hold")),
            sign: stage.standalone.path().join("held"),
            stage,
        }
    }

    fn command(&self, call: &str) -> String {
        let (program, sign) = (self.program.display(), self.sign.display());
        format!("{program} call={call} sign={sign}")
    }

    /// A service of which a client has a child hold the lock of the TCP listener.
    fn inet(call: &str, settings: &str) -> (Self, String, Port) {
        let mut held = Self::new();
        let port = Port::reserve();
        let address = format!("127.0.0.1:{port}");
        let command = held.command(call);
        if !settings.is_empty() {
            let table = format!("[service.\"{address}/inet\"]\n{settings}");
            held.stage.configure(&table);
        }
        held.stage
            .service(&format!("{address} inet n"), "5", &command);
        (held, address, port)
    }

    /// Asserts that a reload which removes the service is done in time, and that clients of another
    /// service notice nothing.
    #[track_caller]
    fn expect_removal(&mut self, name: &str) {
        self.stage.remove(name);
        let said = self.stage.reload_within(Duration::from_secs(2));
        assert!(said.contains("1 removed"), "{said}");
        self.expect_unnoticed(|| {});
    }

    fn wait_until_held(&self) {
        until(SOON, "the call to wait", || self.sign.exists());
    }

    /// Asserts that clients of another service notice nothing while this happens, and after it.
    #[track_caller]
    fn expect_unnoticed(&self, happens: impl FnOnce() + Send) {
        self.stage.expect_unnoticed(AFTERWARDS, happens);
        // A process that waits for the lock has nothing of other services, such as the channel of a
        // child, which would not read its end.
        until(SOON, "few descriptors of such a process", || {
            let copies = self.stage.master().copies().into_iter();
            copies.map(|copy| copy.descriptors().len()).max() <= Some(6)
        });
        // It still does all else.
        operator::read_document(&self.stage.standalone);
        self.stage.expect_first_byte(Duration::from_secs(1));
    }
}

/// Without the fix: "a client of another service waited 5s".
#[test]
fn the_lock_of_a_listener_that_a_child_has_shut_down_stops_no_other_service() {
    needs_root("a master that keeps to itself");
    let (mut held, address, _port) = Held::inet("shutdown", "");
    held.stage.start();
    held.expect_unnoticed(|| {
        let _client = Client::try_connect(&address);
        held.wait_until_held();
    });
    held.stage
        .wait_for_line(&["warning: ", &address, "shut down", "it listens again"]);
}

/// Without the fix: "a client of another service waited 5s".
#[test]
fn the_lock_of_a_pools_listener_that_a_child_has_shut_down_stops_no_other_service() {
    needs_root("a master that keeps to itself");
    let pool = "accept = \"ordered\"\nmin_children = 1\nmin_idle = 1\nmax_idle = 2\n";
    let (mut held, _, _port) = Held::inet("order", pool);
    held.stage.start();
    held.expect_unnoticed(|| held.wait_until_held());
}

/// Without the fix: "a client of another service waited 5s".
#[test]
fn the_lock_of_a_listener_of_a_manager_stops_no_other_service() {
    needs_root("a master that keeps to itself");
    let mut held = Held::new();
    let socket = Socket::tcp();
    let command = held.command("shutdown");
    socket.hand_over(&mut held.stage, &command);
    held.expect_unnoticed(|| {
        let _client = Client::try_connect(&socket.addresses[0]);
        held.wait_until_held();
    });
}

/// Without the fix: "waited 2s in vain for the end of a reload".
#[test]
fn the_lock_of_a_listener_that_a_reload_closes_delays_no_reload() {
    needs_root("a master that keeps to itself");
    let (mut held, address, _port) = Held::inet("options", "");
    held.stage.start();
    let _client = Client::connect(&address);
    held.wait_until_held();
    held.expect_removal(&address);
}

/// Without the fix: "waited 2s in vain for the end of a reload".
#[test]
fn the_lock_of_a_queue_of_datagrams_that_a_reload_closes_delays_no_reload() {
    needs_root("a master that keeps to itself");
    let mut held = Held::new();
    let command = held.command("queue");
    held.stage
        .service("held unix-dgram n", "5", &command)
        .start();
    let sender = UnixDatagram::unbound().expect("a socket");
    let sent = sender.send_to(b"x", held.stage.path("held"));
    sent.expect("a datagram sent");
    held.wait_until_held();
    held.expect_removal("held");
}

/// Without the fix: "a client of another service waited 5s".
#[test]
fn the_lock_of_the_output_that_the_master_reads_stops_no_other_service() {
    needs_root("a master that keeps to itself");
    let (mut held, address, _port) = Held::inet("output", "capture_output = true\n");
    held.stage.start();
    held.expect_unnoticed(|| {
        let _client = Client::try_connect(&address);
        held.wait_until_held();
    });
}

/// The service reads what was passed to it, and closes the connection: the master closes its end.
///
/// Without the fix: "a client of another service waited 5s".
#[test]
fn the_lock_of_what_a_wake_up_has_passed_stops_no_other_service() {
    needs_root("a master that keeps to itself");
    let mut held = Held::new();
    let command = held.command("passed");
    held.stage
        .line(&format!("held pass n n n 1 5 {command}"))
        .start();
    held.expect_unnoticed(|| held.wait_until_held());
}

/// What the kernel does for the child, and at the end of the channel in another process, is not the
/// master's: it can take a processor for a second.
///
/// Without the fix: "waited 20s in vain for the end of the child".
#[test]
fn a_child_that_makes_each_report_slow_to_read_loses_its_channel() {
    needs_root("a master that keeps to itself");
    let mut stage = Stage::new();
    let command = format!("{} serve", stage.hello());
    stage.service("waits unix n", "5", &command).start();
    let mut client = Client::connect(&stage.address("waits"));
    client.line();
    let child = stage.children()[0];
    client.say("wait");
    until(SOON, "the end of the child", || !child.runs());
    stage.wait_for_line(&["warning: ", "waits", "its channel is closed"]);
    stage.expect_first_byte(SOON);
}

/// The process of a local user, who may write to the fifo.
struct User(Child);

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Only one process waits for the lock, however often the service is to be woken up.
///
/// Without the fix: "a client of another service waited 5s".
#[test]
fn the_lock_of_a_fifo_that_is_woken_up_stops_no_other_service() {
    needs_root("a master that keeps to itself");
    let mut held = Held::new();
    let idle = held.stage.standalone.script("idle", "exec sleep 60");
    held.stage
        .line(&format!("fifo fifo n n n 1 0 {}", idle.display()))
        .start();
    let mut hold = Command::new(&held.program);
    let (fifo, sign) = (held.stage.path("fifo"), &held.sign);
    hold.arg(format!("call={}", fifo.display()));
    hold.arg(format!("sign={}", sign.display()));
    let user = User(hold.spawn().expect("a process"));
    let waiting = || held.stage.master().copies().len();
    held.expect_unnoticed(|| {
        held.wait_until_held();
        until(SOON, "a wake-up to wait for the lock", || waiting() == 1);
    });
    // Meanwhile the service was to be woken up several times.
    held.expect_unnoticed(|| {});
    held.expect_unnoticed(|| {});
    assert_eq!(waiting(), 1);
    drop(user);
}
