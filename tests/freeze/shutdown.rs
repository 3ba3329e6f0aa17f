//! A child shuts a listener down, shutdown(2), for all processes that share it.

use std::time::{Duration, Instant};

use crate::manager::Socket;
use crate::stage::Stage;
use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::poll::{until, within};
use testkit::ports::Port;
use testkit::vitals::expect_rest;
use testkit::{needs_root, test};

/// Maximum time until the master has repaired it.
const MENDED: Duration = Duration::from_secs(2);

/// The child's command.
const BOTH: &str = "shutdown";
const READING: &str = "stop-reading";

/// The child that does it.
#[derive(Clone, Copy, PartialEq)]
enum Culprit {
    /// The only child, which is idle then.
    Only,
    /// A busy child, while another one is idle.
    Busy,
}

/// A running service `shut` whose children do what their clients say.
struct Shut {
    stage: Stage,
    /// The service's name in the log.
    name: String,
    address: String,
    _port: Option<Port>,
}

impl Shut {
    fn unix(arguments: &str, settings: &str) -> Self {
        let mut stage = Stage::new();
        let address = stage.address("shut");
        let command = format!("{} {arguments}", stage.hello());
        if !settings.is_empty() {
            stage.configure(&format!("[service.\"shut/unix\"]\n{settings}"));
        }
        stage.service("shut unix n", "5", &command).start();
        Self {
            stage,
            name: "shut".into(),
            address,
            _port: None,
        }
    }

    fn inet(arguments: &str, settings: &str) -> Self {
        let mut stage = Stage::new();
        let port = Port::reserve();
        let address = format!("127.0.0.1:{port}");
        let command = format!("{} {arguments}", stage.hello());
        if !settings.is_empty() {
            stage.configure(&format!("[service.\"{address}/inet\"]\n{settings}"));
        }
        let columns = format!("{address} inet n");
        stage.service(&columns, "5", &command).start();
        Self {
            stage,
            name: address.clone(),
            address,
            _port: Some(port),
        }
    }

    /// Lets a child shut the listener down. Returns the client that it still has.
    #[track_caller]
    fn break_listener(&self, how: &str, culprit: Culprit) -> Option<Client> {
        let mut first = Client::connect(&self.address);
        first.line();
        if culprit == Culprit::Busy {
            let mut second = Client::connect(&self.address);
            second.line();
            second.finish();
            until(SOON, "a child to be idle", || {
                self.stage.status(&self.name).available > 0
            });
        }
        first.say(how);
        assert_eq!(first.line(), "done");
        match culprit {
            Culprit::Busy => Some(first),
            Culprit::Only => {
                first.finish();
                None
            }
        }
    }

    /// Asserts that the shutdown is noticed, and repaired at little cost.
    #[track_caller]
    fn expect_mended(mut self, how: &str, culprit: Culprit) {
        let begun = Instant::now();
        let client = self.break_listener(how, culprit);
        let served = within(MENDED, || is_served(&self.address));
        assert!(served.is_some(), "no client is served within {MENDED:?}");
        println!("mended after {:?}", begun.elapsed());
        let name = format!("service \"{}\"", self.name);
        self.stage.wait_for_line(&["warning: ", &name, "shut down"]);
        expect_rest(self.stage.master(), Duration::from_secs(1));
        self.stage.expect_first_byte(Duration::from_secs(1));
        // It works more than once.
        assert!(is_served(&self.address), "the client after that");
        drop(client);
    }
}

/// Whether a new client is served. A client that is refused, or that waits in the queue of a closed
/// listener, is not.
fn is_served(address: &str) -> bool {
    let client = Client::try_connect(address);
    client.is_ok_and(|mut client| {
        let line = client.line_within(MENDED / 4);
        line.is_some_and(|line| !line.is_empty())
    })
}

const SHARED: &str = "serve";
const ORDERED: &str = "ordered";
const POOL: &str = "accept = \"ordered\"\nmin_children = 1\nmin_idle = 1\nmax_idle = 2\n";

/// No client ever waits for such a service, and the poller is never asked for one.
const WARM: &str = "min_idle = 3\n";

macro_rules! mended {
    ($($name:ident: $kind:ident($arguments:expr, $settings:expr), $how:expr, $culprit:ident;)*) => {
        $(
            #[test]
            fn $name() {
                needs_root("a master that keeps to itself");
                Shut::$kind($arguments, $settings).expect_mended($how, Culprit::$culprit);
            }
        )*
    };
}

// Without the fix: each says "no client is served within 2s".
mended! {
    a_tcp_listener_that_the_only_child_shuts_down_is_mended: inet(SHARED, ""), BOTH, Only;
    a_tcp_listener_that_a_busy_child_shuts_down_is_mended: inet(SHARED, ""), BOTH, Busy;
    a_tcp_listener_that_the_only_child_stops_reading_is_mended: inet(SHARED, ""), READING, Only;
    a_tcp_listener_that_a_busy_child_stops_reading_is_mended: inet(SHARED, ""), READING, Busy;
    a_unix_listener_that_the_only_child_shuts_down_is_mended: unix(SHARED, ""), BOTH, Only;
    a_unix_listener_that_a_busy_child_shuts_down_is_mended: unix(SHARED, ""), BOTH, Busy;
    a_unix_listener_that_the_only_child_stops_reading_is_mended: unix(SHARED, ""), READING, Only;
    a_unix_listener_that_a_busy_child_stops_reading_is_mended: unix(SHARED, ""), READING, Busy;
    a_tcp_listener_of_a_pool_that_the_only_child_shuts_down_is_mended: inet(ORDERED, POOL), BOTH, Only;
    a_tcp_listener_of_a_pool_that_a_busy_child_shuts_down_is_mended: inet(ORDERED, POOL), BOTH, Busy;
    a_unix_listener_of_a_pool_that_the_only_child_shuts_down_is_mended: unix(ORDERED, POOL), BOTH, Only;
    a_unix_listener_of_a_pool_that_a_busy_child_shuts_down_is_mended: unix(ORDERED, POOL), BOTH, Busy;
    a_tcp_listener_of_a_service_whose_children_all_wait_is_mended: inet(SHARED, WARM), BOTH, Only;
    a_unix_listener_of_a_service_whose_children_all_wait_is_mended: unix(SHARED, WARM), BOTH, Only;
}

/// The child makes a connection of the listener before the master has looked, with an error that the
/// poller reports for ever.
///
/// Without the fix: "no client is served within 2s", and the master turns without a rest.
#[test]
fn a_tcp_listener_that_a_child_has_connected_is_mended() {
    needs_root("a master that keeps to itself");
    let shut = Shut::inet(SHARED, "");
    let mut first = Client::connect(&shut.address);
    first.line();
    shut.stage.master().signal(Signal::SIGSTOP);
    first.say("connect");
    assert_eq!(first.line(), "done");
    shut.stage.master().signal(Signal::SIGCONT);
    let served = within(MENDED, || is_served(&shut.address));
    assert!(served.is_some(), "no client is served within {MENDED:?}");
    expect_rest(shut.stage.master(), Duration::from_secs(1));
}

/// A service with a socket of the service manager.
#[track_caller]
fn handed_over(make: impl FnOnce(&Stage) -> Socket) -> (Socket, Shut) {
    let mut stage = Stage::new();
    let socket = make(&stage);
    let command = format!("{} serve", stage.hello());
    socket.hand_over(&mut stage, &command);
    let shut = Shut {
        stage,
        name: socket.name.clone(),
        address: socket.addresses[0].clone(),
        _port: None,
    };
    (socket, shut)
}

/// The manager's socket stays the same and listens again.
///
/// Without the fix: "no client is served within 2s".
#[test]
fn a_tcp_listener_of_a_manager_that_a_child_shuts_down_listens_again() {
    needs_root("a master that keeps to itself");
    let (socket, shut) = handed_over(|_| Socket::tcp());
    shut.expect_mended(BOTH, Culprit::Only);
    socket.expect_listening();
}

/// A shut-down socket in the file system cannot listen again, and a new one would not be the
/// manager's. So the master logs it and leaves it unchanged.
///
/// Without the fix: "waited 20s in vain for a line".
#[test]
fn a_unix_listener_of_a_manager_that_a_child_shuts_down_is_reported_and_stays_where_it_is() {
    needs_root("a master that keeps to itself");
    let (socket, mut shut) = handed_over(Socket::unix);
    let client = shut.break_listener(BOTH, Culprit::Busy);
    let name = format!("service \"{}\"", shut.name);
    shut.stage.wait_for_line(&["warning: ", &name, "shut down"]);
    socket.expect_at_its_path();
    expect_rest(shut.stage.master(), Duration::from_secs(1));
    shut.stage.expect_first_byte(Duration::from_secs(1));
    drop(client);
}
