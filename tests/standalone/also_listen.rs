//! Services that listen at several endpoints.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use nix::sys::signal::Signal;
use testkit::client::{Client, expect_refusal};
use testkit::instance::SOON;
use testkit::operator;
use testkit::poll::until;
use testkit::ports::Port;
use testkit::process::Process;
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

/// The program of the services: its first line is the number of the listener, and its pid.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/endpoints.py");

/// A master with the service `127.0.0.1:PORT/inet`, which listens at a second port and a path, too.
struct Endpoints {
    standalone: Standalone,
    ports: [Port; 2],
}

impl Endpoints {
    fn new(standalone: Standalone) -> Self {
        let ports = [Port::reserve(), Port::reserve()];
        Self { standalone, ports }
    }

    fn addresses(&self) -> [String; 3] {
        let [first, second] = self
            .ports
            .each_ref()
            .map(|port| format!("127.0.0.1:{port}"));
        [first, second, self.path()]
    }

    fn path(&self) -> String {
        self.standalone
            .path()
            .join("run/extra.sock")
            .display()
            .to_string()
    }

    /// Configures the service with at most `max` children, and what it listens at besides.
    fn configure(&mut self, max: u32, also: &[&str], settings: &str) -> &mut Self {
        let [first, ..] = self.addresses();
        let program = self.standalone.install(Path::new(PROGRAM));
        self.standalone.write_table(&format!(
            "{first} inet n - - - {max} {}\n",
            program.display()
        ));
        let also: Vec<_> = also.iter().map(|item| format!("\"{item}\"")).collect();
        self.standalone.write_toml(&format!(
            "[service.\"{first}/inet\"]\nalso_listen = [{}]\n{settings}",
            also.join(", ")
        ));
        self
    }

    fn all(&mut self, settings: &str) -> &mut Self {
        let [_, second, path] = self.addresses();
        self.configure(5, &[&second, &format!("unix:{path}")], settings)
    }
}

/// A client that is served, by which process, at the listener with this number.
#[track_caller]
fn served(address: &str, number: usize) -> (Client, Process) {
    answered(Client::connect(address), number)
}

#[track_caller]
fn answered(mut client: Client, number: usize) -> (Client, Process) {
    let line = client.line_within(SOON).expect("a line");
    let (found, pid) = line.trim().split_once(' ').expect("a number and a pid");
    assert_eq!(found, number.to_string());
    (client, Process(pid.parse().expect("a pid")))
}

#[test]
fn a_service_is_served_at_all_of_its_endpoints() {
    let mut endpoints = Endpoints::new(Standalone::of_a_user());
    endpoints.all("").standalone.start();
    let addresses = endpoints.addresses();
    let clients: Vec<_> = (0..3).map(|n| served(&addresses[n], n)).collect();
    let service = &operator::read_document(&endpoints.standalone).services[0];
    assert_eq!(service.listeners, addresses);
    assert_eq!((service.total, service.busy), (3, 3));
    drop(clients);
}

/// Each of the endpoints alone has the master start a child.
#[test]
fn a_client_at_any_endpoint_has_a_child_started() {
    for number in 0..3 {
        let mut endpoints = Endpoints::new(Standalone::of_a_user());
        endpoints.all("").standalone.start();
        served(&endpoints.addresses()[number], number);
    }
}

#[test]
fn an_ordered_pool_serves_all_of_its_endpoints() {
    let mut endpoints = Endpoints::new(Standalone::of_a_user());
    endpoints.all("accept = \"ordered\"\nmin_children = 1\n");
    let pool = concat!(env!("CARGO_MANIFEST_DIR"), "/services/examples/ordered.py");
    let program = endpoints.standalone.install(Path::new(pool));
    let [first, ..] = endpoints.addresses();
    let line = format!("{first} inet n - - - 5 {}\n", program.display());
    endpoints.standalone.write_table(&line).start();
    for address in endpoints.addresses() {
        let mut client = Client::connect(&address);
        client.say("hello");
        assert!(client.line_within(SOON).is_some(), "{address}");
    }
}

#[test]
fn a_sockets_mode_and_owner_are_those_that_are_set() {
    needs_root("to give a socket to another user");
    let mut endpoints = Endpoints::new(Standalone::new());
    let settings = "socket_mode = \"0640\"\nsocket_user = \"daemon\"\nsocket_group = \"mail\"\n";
    // Only root may change the directory of such a socket.
    let path = format!("/run/master-test-{}.sock", std::process::id());
    endpoints.configure(5, &[&format!("unix:{path}")], settings);
    endpoints.standalone.start();
    let metadata = fs::metadata(&path).expect("a socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    let owners = std::os::unix::fs::MetadataExt::uid(&metadata);
    assert_ne!(owners, 0);
    served(&path, 1);
    // Other rights are another socket; the former one stays until that is there.
    endpoints.configure(5, &[&format!("unix:{path}")], "socket_mode = \"0600\"\n");
    let said = endpoints.standalone.reload();
    assert!(said.contains("reload done"), "{said}");
    let mode = fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    served(&path, 1);
    fs::remove_file(&path).expect("a socket");
}

#[test]
fn a_reload_adds_and_removes_endpoints_and_keeps_the_clients_of_the_others() {
    let mut endpoints = Endpoints::new(Standalone::of_a_user());
    let [first, second, path] = endpoints.addresses();
    endpoints.configure(1, &[&second], "").standalone.start();
    let (client, child) = served(&first, 0);
    // They wait while the only child is busy.
    let waiting = Client::connect(&second);
    let also = format!("unix:{path}");
    endpoints.configure(1, &[&second, &also], "");
    assert!(endpoints.standalone.reload().contains("reload done"));
    let added = Client::connect(&path);
    client.finish();
    let (waiting, other) = answered(waiting, 1);
    assert_ne!(other, child, "the reload replaces the children");
    waiting.finish();
    answered(added, 2).0.finish();
    // The second is removed: the path becomes the second.
    let waiting = Client::connect(&path);
    answered(waiting, 2).0.finish();
    endpoints.configure(1, &[&also], "");
    assert!(endpoints.standalone.reload().contains("reload done"));
    served(&path, 1).0.finish();
    served(&first, 0).0.finish();
    expect_refusal(&second);
}

#[test]
fn a_reload_may_exchange_endpoints() {
    let mut endpoints = Endpoints::new(Standalone::of_a_user());
    let [first, second, path] = endpoints.addresses();
    let also = format!("unix:{path}");
    endpoints
        .configure(5, &[&second, &also], "")
        .standalone
        .start();
    served(&second, 1).0.finish();
    let waiting = Client::connect(&path);
    answered(waiting, 2).0.finish();
    endpoints.configure(5, &[&also, &second], "");
    assert!(endpoints.standalone.reload().contains("reload done"));
    served(&path, 1).0.finish();
    served(&second, 2).0.finish();
    served(&first, 0).0.finish();
}

#[test]
fn an_endpoint_that_cannot_be_opened_leaves_all_as_it_was() {
    let mut endpoints = Endpoints::new(Standalone::of_a_user());
    let [_, second, path] = endpoints.addresses();
    endpoints.configure(5, &[&second], "").standalone.start();
    let missing = format!(
        "unix:{}/missing/a.sock",
        endpoints.standalone.path().display()
    );
    endpoints.configure(5, &[&second, &format!("unix:{path}"), &missing], "");
    let said = endpoints.standalone.reload();
    assert!(said.contains("reload failed"), "{said}");
    assert!(said.contains("missing/a.sock: No such file"), "{said}");
    assert!(!Path::new(&path).exists(), "what was opened is taken back");
    served(&second, 1);
}

#[test]
fn an_endpoint_that_a_child_shuts_down_listens_again_and_the_others_are_not_touched() {
    for number in 1..3 {
        let mut endpoints = Endpoints::new(Standalone::of_a_user());
        endpoints.all("").standalone.start();
        let addresses = endpoints.addresses();
        let (mut client, _) = served(&addresses[number], number);
        client.say("shutdown");
        assert_eq!(client.line(), "done");
        let words = "a child has shut down the listener -- it listens again";
        endpoints.standalone.wait_for_line(words);
        for (n, address) in addresses.iter().enumerate() {
            until(SOON, format_args!("{address} to be served"), || {
                let mut client = Client::try_connect(address).ok()?;
                let line = client.line_within(SOON)?;
                line.starts_with(&format!("{n} ")).then_some(())
            });
        }
    }
}

#[test]
fn what_a_killed_master_left_at_an_endpoint_is_taken_over() {
    let mut endpoints = Endpoints::new(Standalone::of_a_user());
    endpoints.all("").standalone.start();
    let addresses = endpoints.addresses();
    let (_client, _child) = served(&addresses[1], 1);
    endpoints.standalone.process().signal(Signal::SIGKILL);
    until(SOON, "the master's end", || {
        endpoints.standalone.running().has_ended()
    });
    endpoints.standalone.start();
    for _ in 0..10 {
        for (number, address) in addresses.iter().enumerate() {
            served(address, number).0.finish();
        }
    }
}

#[test]
fn a_plan_shows_the_endpoints_that_change() {
    let mut endpoints = Endpoints::new(Standalone::of_a_user());
    let [_, second, path] = endpoints.addresses();
    endpoints.configure(5, &[&second], "").standalone.start();
    endpoints.configure(5, &[&second, &format!("unix:{path}")], "");
    let plan = operator::told(&endpoints.standalone, &["plan"]);
    assert!(
        plan.contains(&format!("also_listen: {second} -> {second}, {path}")),
        "{plan}"
    );
}
