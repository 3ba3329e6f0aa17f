//! TCP addresses at which something listens already: children of a former master, other programs, and
//! other masters.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, listen,
    setsockopt, shutdown, socket, sockopt,
};
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::network::{LOOPBACK_2, in_own_network};
use testkit::poll::until;
use testkit::ports::Port;
use testkit::process::Process;
use testkit::programs::{example, service};
use testkit::run::{Finished, run};
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

/// A line of the table for this name and port, whose children serve a client as long as it likes.
fn line(standalone: &Standalone, name: &str) -> String {
    let hello = standalone.install(&example("hello"));
    format!("{name} inet n - - - 50 {} serve\n", hello.display())
}

/// A client that has been served, and the child that has it.
#[track_caller]
fn served(address: &str) -> (Client, Process) {
    let client = Client::connect(address);
    answered(client).unwrap_or_else(|| panic!("{address}: no first line"))
}

/// The same for a client that has connected before.
fn answered(mut client: Client) -> Option<(Client, Process)> {
    let line = client.line_within(SOON)?;
    let pid = line.split_whitespace().next()?.parse().ok()?;
    Some((client, Process(pid)))
}

/// Many clients, of which another listener would get half, are all served by children of the master.
#[track_caller]
fn expect_all(standalone: &mut Standalone, address: &str) {
    let master = standalone.process().0;
    let clients: Vec<_> = (0..20).map(|_| served(address)).collect();
    for (_, child) in &clients {
        assert_eq!(child.parent(), master, "a client's child");
    }
}

/// A listener that would share its clients with other listeners of its user.
fn shared_listener(address: &str) -> OwnedFd {
    let address: SocketAddr = address.parse().expect("an address");
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let listener = socket(family, SockType::Stream, flags, None).expect("a socket");
    setsockopt(&listener, sockopt::ReuseAddr, &true).expect("SO_REUSEADDR");
    setsockopt(&listener, sockopt::ReusePort, &true).expect("SO_REUSEPORT");
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address)).expect("an address");
    listen(&listener, Backlog::MAXCONN).expect("a listener");
    listener
}

/// The error of a start names the process and its program.
#[track_caller]
fn expect_named(finished: &Finished, address: &str, process: Process) {
    let pid = process.0;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("a process");
    let words = format!(
        "cannot listen on {address}: Address already in use: process {pid} ({}) listens on {address}",
        name.trim_end()
    );
    assert!(finished.stderr.contains(&words), "{words}: {finished:?}");
}

/// Without the fix: "127.0.0.1:PORT: no first line", of half of them.
#[test]
fn clients_that_wait_for_a_killed_masters_child_are_served_by_the_next_master() {
    for mut standalone in Standalone::all() {
        let port = Port::reserve();
        let address = format!("127.0.0.1:{port}");
        let table = line(&standalone, &address);
        standalone.write_table(&table).start();
        let (_client, child) = served(&address);
        standalone.stop_by(Signal::SIGKILL);
        let waiting: Vec<_> = (0..5).map(|_| Client::connect(&address)).collect();
        standalone.start();
        standalone.wait_for_line(&format!(
            "took over the listener on {address} that a former master left to process {} (hello)",
            child.0
        ));
        for client in waiting {
            let (_client, other) = answered(client).expect("a child of the next master");
            assert_eq!(other.parent(), standalone.process().0);
        }
        expect_all(&mut standalone, &address);
        // It is the master's like any other: it goes with the service.
        standalone.write_table("a unix n - - - - true\n").reload();
        assert!(TcpStream::connect(&address).is_err(), "it still listens");
    }
}

/// The bundled services keep what a former master's children are known by.
///
/// Without the fix: "process PID (echo) listens on 127.0.0.1:PORT: end it", and no start.
#[test]
fn the_next_master_takes_over_what_a_killed_one_has_left_to_a_bundled_service() {
    for mut standalone in Standalone::all() {
        let echo = standalone.install(&service("echo"));
        for host in ["127.0.0.1", "[::1]"] {
            let port = Port::reserve();
            let address = format!("{host}:{port}");
            standalone.write_table(&format!("{address} inet n - - - 5 {}\n", echo.display()));
            standalone.start();
            let mut former = Client::connect(&address);
            former.say("hello");
            assert_eq!(former.line(), "hello");
            standalone.stop_by(Signal::SIGKILL);
            let waiting = Client::connect(&address);
            standalone.start();
            standalone.wait_for_line(&format!("took over the listener on {address}"));
            let more = (0..20).map(|_| Client::connect(&address));
            for mut client in std::iter::once(waiting).chain(more) {
                client.say("hello");
                assert_eq!(client.line(), "hello");
            }
            former.say("still");
            assert_eq!(former.line(), "still");
            standalone.stop_by(Signal::SIGTERM);
        }
    }
}

#[test]
fn a_reload_takes_over_what_a_killed_master_has_left() {
    let port = Port::reserve();
    let address = format!("127.0.0.1:{port}");
    let mut former = Standalone::of_a_user();
    let table = line(&former, &address);
    former.write_table(&table).start();
    let (_client, _child) = served(&address);
    former.stop_by(Signal::SIGKILL);
    let waiting = Client::connect(&address);
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - - true\n").start();
    let table = line(&standalone, &address);
    // Not by one that fails.
    let unusable = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = unusable.local_addr().expect("an address");
    let both = table.clone() + &line(&standalone, &taken.to_string());
    let said = standalone.write_table(&both).reload();
    assert!(said.contains("reload failed"), "{said}");
    let said = standalone.write_table(&table).reload();
    assert!(said.contains("took over the listener"), "{said}");
    answered(waiting).expect("a child");
    expect_all(&mut standalone, &address);
}

#[test]
fn another_program_at_the_address_is_named() {
    let mut standalone = Standalone::new();
    let port = Port::reserve();
    let address = format!("127.0.0.1:{port}");
    let _listener = shared_listener(&address);
    let table = line(&standalone, &address);
    let own = Process(std::process::id() as i32);
    standalone.write_table(&table);
    expect_named(&standalone.fail(&["-d"]), &address, own);
    standalone.write_table("a unix n - - - - true\n").start();
    let said = standalone.write_table(&table).reload();
    assert!(said.contains(&format!("process {} (", own.0)), "{said}");
    assert!(said.contains("reload failed"), "{said}");
}

#[test]
fn a_second_master_does_not_take_clients_of_the_first() {
    let port = Port::reserve();
    let address = format!("127.0.0.1:{port}");
    let (mut first, mut second) = (Standalone::of_a_user(), Standalone::of_a_user());
    let table = line(&first, &address);
    first.write_table(&table).start();
    let (_client, _child) = served(&address);
    second.write_table(&table);
    expect_named(&second.fail(&["-d"]), &address, first.process());
    // Also where its children are told to leave, as the killed master's were.
    first.reload();
    expect_named(&second.fail(&["-d"]), &address, first.process());
    expect_all(&mut first, &address);
}

#[test]
fn masters_at_different_addresses_of_a_port_do_not_disturb_each_other() {
    needs_root("a network of its own");
    in_own_network(|| {
        let names = ["127.0.0.1:7979", "0.0.0.0:7979", "127.0.0.2:7979"];
        let mut masters: Vec<_> = names
            .iter()
            .map(|name| {
                let mut standalone = Standalone::of_a_user();
                let table = line(&standalone, name);
                standalone.write_table(&table).start();
                standalone
            })
            .collect();
        let addresses = [
            "127.0.0.1:7979",
            "127.0.0.3:7979",
            &format!("{LOOPBACK_2}:7979"),
        ];
        for (standalone, address) in masters.iter_mut().zip(addresses) {
            expect_all(standalone, address);
        }
    });
}

/// A process that does not end with its master: nothing may outlast its test.
struct Orphan(Process);

impl Drop for Orphan {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGKILL);
    }
}

#[test]
fn a_listener_that_another_process_has_too_is_not_taken_over() {
    let mut standalone = Standalone::of_a_user();
    let port = Port::reserve();
    let address = format!("127.0.0.1:{port}");
    let keeper = standalone.script("keeper", "exec 3<&- 4<&- 5<&-; exec sleep 1000");
    let started = standalone.path().join("started");
    let script = standalone.script(
        "script",
        &format!(
            "{} & echo $! >{started}.new; mv {started}.new {started}; exec sleep 1000",
            keeper.display(),
            started = started.display()
        ),
    );
    standalone.write_table(&format!("{address} inet n - - - 1 {}\n", script.display()));
    standalone.start();
    let _client = TcpStream::connect(&address).expect("a listener");
    let pid = until(SOON, "the keeper", || {
        std::fs::read_to_string(&started).ok()?.trim().parse().ok()
    });
    let keeper = Process(pid);
    let _end = standalone
        .process()
        .children()
        .into_iter()
        .chain([keeper])
        .map(Orphan)
        .collect::<Vec<_>>();
    until(SOON, "its program", || {
        keeper.executable().ends_with("sleep") || keeper.executable().ends_with("coreutils")
    });
    standalone.stop_by(Signal::SIGKILL);
    expect_named(&standalone.fail(&["-d"]), &address, keeper);
    keeper.signal(Signal::SIGKILL);
    until(SOON, "its end", || !keeper.runs());
    // The script itself is a child like others.
    standalone.start();
    standalone.wait_for_line("took over the listener");
}

/// One that no process listens with does not matter.
#[test]
fn a_listener_that_is_shut_down_is_not_in_the_way() {
    let mut standalone = Standalone::new();
    let port = Port::reserve();
    let address = format!("127.0.0.1:{port}");
    let listener = shared_listener(&address);
    shutdown(listener.as_raw_fd(), Shutdown::Read).expect("a listener");
    let table = line(&standalone, &address);
    standalone.write_table(&table).start();
    expect_all(&mut standalone, &address);
    assert!(!standalone.said().contains("took over"));
}

/// 192.0.2.77 is for documentation: no machine has it.
#[test]
fn a_reload_changes_whether_an_address_may_be_missing() {
    let mut standalone = Standalone::of_a_user();
    let port = Port::reserve();
    let name = format!("192.0.2.77:{port}");
    standalone.write_table("a unix n - - - - true\n").start();
    let table = line(&standalone, &name);
    let said = standalone.write_table(&table).reload();
    assert!(said.contains("reload failed"), "{said}");
    assert!(said.contains("set bind_missing_addresses to yes"), "{said}");
    standalone.write_toml("bind_missing_addresses = 2\n");
    let said = standalone.reload();
    assert!(said.contains("master.toml: line 1: column "), "{said}");
    standalone.write_toml("bind_missing_addresses = true\n");
    let said = standalone.reload();
    assert!(said.contains("reload done"), "{said}");
    // What listens goes on.
    standalone.write_toml("bind_missing_addresses = false\n");
    let said = standalone.reload();
    assert!(said.contains("reload done"), "{said}");
}

#[test]
fn check_warns_of_places_where_a_start_could_not_listen() {
    let mut standalone = Standalone::of_a_user();
    let (port, other) = (Port::reserve(), Port::reserve());
    let table = ["127.0.0.1", "192.0.2.77", "[2001:db8::77]"]
        .map(|host| line(&standalone, &format!("{host}:{port}")));
    standalone.write_table(&table.concat());
    let also = |toml: &str| {
        let key = format!("[service.\"127.0.0.1:{port}/inet\"]");
        let missing = standalone.path().join("missing/a.sock");
        let places = format!(
            "\"127.0.0.1:{other}\", \"192.0.2.78:{other}\", \"unix:{}\"",
            missing.display()
        );
        standalone.write_toml(&format!("{toml}{key}\nalso_listen = [{places}]\n"));
        let checked = run(&mut standalone.masterctl(&["check"]), SOON).expect_success();
        let lines = checked
            .stdout
            .lines()
            .filter(|l| l.contains("cannot listen on "));
        let places = lines.map(|l| {
            let (place, rest) = l
                .split_once(": column 1: cannot listen on ")
                .expect("a column");
            assert!(rest.contains("a start fails"), "{l}");
            let (_, line) = place.split_once("line ").expect("a line");
            format!("{line} {}", rest.split_once(": ").expect("a reason").0)
        });
        places.collect::<Vec<_>>()
    };
    let path = standalone.path().join("missing/a.sock");
    let path = format!("1 {}", path.display());
    assert_eq!(
        also(""),
        [
            format!("1 192.0.2.78:{other}"),
            path.clone(),
            format!("2 192.0.2.77:{port}"),
            format!("3 [2001:db8::77]:{port}"),
        ]
    );
    assert_eq!(also("bind_missing_addresses = true\n"), [path]);
}
