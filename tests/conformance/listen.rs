//! Listeners of all types.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;

use testkit::client::Client;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::layout::mail_owner;
use testkit::network::{LOOPBACK_2, in_own_network};
use testkit::process::{Kind, Socket, socket_inode};
use testkit::puppet_service::{PuppetService, one_service};
use testkit::run::run;
use testkit::{needs_root, test};

/// The owner and the mode of a service's file.
fn owner_and_mode(service: &PuppetService) -> ((u32, u32), u32) {
    let facts = fs::symlink_metadata(&service.address).expect("a path");
    ((facts.uid(), facts.gid()), facts.mode() & 0o7777)
}

/// The maximum length of a listener's queue, by the kernel's name of its address.
#[track_caller]
fn backlog(postfix: &Instance, local: &str) -> u32 {
    let descriptors = postfix.master_process().descriptors();
    let named = |kind: &Kind| matches!(kind, Kind::Socket(socket) if socket.local == local);
    let listener = descriptors.values().find(|one| named(&one.kind));
    let inode = socket_inode(&listener.expect(local).target).expect("a socket");
    // ss(8) shows all listeners; its name of a socket's path depends on the process that created
    // it.
    let said = run(Command::new("ss").arg("-Hlntxe"), SOON).expect_success();
    let inode = format!("{inode}");
    let is_ours = |word: &str| word == inode || word.strip_prefix("ino:") == Some(&inode);
    let line = said
        .stdout
        .lines()
        .find(|line| line.split_whitespace().any(is_ours))
        .unwrap_or_else(|| panic!("{local} is not in {}", said.stdout));
    let number = line.split_whitespace().nth(3);
    number.and_then(|word| word.parse().ok()).expect("a number")
}

// ---- with a path

/// "unix and pass: [...] created as mail_owner under `private/` or `public/`, mode 0666"
#[test]
fn sockets_belong_to_mail_owner_and_are_open_to_all() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let services = [
        PuppetService::add(&mut postfix, "a", "unix y - n - -"),
        PuppetService::add(&mut postfix, "b", "unix n - n - -"),
        PuppetService::add(&mut postfix, "c", "pass y - n - -"),
        PuppetService::add(&mut postfix, "d", "unix-dgram n - n - -"),
        PuppetService::add(&mut postfix, "e", "unix - - n - -"),
    ];
    postfix.start();
    for service in &services {
        assert_eq!(
            owner_and_mode(service),
            (mail_owner(), 0o666),
            "{}",
            service.address
        );
        let kind = fs::symlink_metadata(&service.address)
            .expect("a path")
            .file_type();
        assert!(kind.is_socket(), "{}", service.address);
    }
}

/// "fifo: mode 0622"
#[test]
fn fifos_belong_to_mail_owner_and_can_be_written_to_by_all() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("fifo n - n - -");
    assert_eq!(owner_and_mode(&service), (mail_owner(), 0o622));
    let kind = fs::symlink_metadata(&service.address)
        .expect("a path")
        .file_type();
    assert!(kind.is_fifo());
}

/// "unix and pass: removed first": the socket of a killed master is replaced.
#[test]
fn what_stands_in_the_way_of_a_socket_is_removed() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let socket = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let file = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    let datagram = PuppetService::add(&mut postfix, "c", "unix-dgram n - n - -");
    let link = PuppetService::add(&mut postfix, "d", "unix n - n - -");
    drop(UnixListener::bind(&socket.address).expect("a socket"));
    drop(UnixDatagram::bind(&datagram.address).expect("a socket"));
    fs::write(&file.address, "").expect("a file");
    let target = postfix.path().join("target");
    fs::write(&target, "precious").expect("a file");
    symlink(&target, &link.address).expect("a link");
    postfix.start();
    for service in [&socket, &file, &link] {
        service.serve();
    }
    assert_eq!(fs::read_to_string(&target).expect("a file"), "precious");
    let kind = fs::symlink_metadata(&link.address)
        .expect("a path")
        .file_type();
    assert!(kind.is_socket(), "the link's target is a stranger's");
}

/// "fifo: [...] opened read-write and drained": data from before the start starts no child.
#[test]
fn what_was_written_to_a_fifo_before_the_start_starts_nobody() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "fifo n - n - 1");
    let path = Path::new(&service.address);
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let (uid, gid) = mail_owner();
    chown(path, Some(uid), Some(gid)).expect("an owner");
    let mut before = fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .expect("a fifo");
    std::io::Write::write_all(&mut before, b"before").expect("a reader");
    postfix.start();
    service.expect_no_child();
    assert_eq!(owner_and_mode(&service).1, 0o622);
    fs::write(path, "after").expect("a reader");
    assert_eq!(service.next().tell("receive-from 6"), "6166746572");
}

/// "opened read-write": a FIFO without writers does not report end of file.
#[test]
fn a_fifo_is_open_for_reading_and_writing() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("fifo n - n - 1");
    fs::write(&service.address, "x").expect("a reader");
    let mut puppet = service.next();
    let flags = puppet.process.descriptors()[&6].flags;
    assert_eq!(
        flags & nix::libc::O_ACCMODE as u32,
        nix::libc::O_RDWR as u32
    );
    puppet.tell("report taken");
    assert_eq!(puppet.tell("receive-from 6"), "78");
    // Another child, for the next data.
    fs::write(&service.address, "y").expect("a reader");
    puppet.exit(0);
    assert_eq!(service.next().tell("receive-from 6"), "79");
}

/// "unix-dgram: the same, without listen."
#[test]
fn a_datagram_service_gets_its_messages_whole() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix-dgram n - n - 1");
    let client = UnixDatagram::unbound().expect("a socket");
    for message in ["one", "two"] {
        let sent = client.send_to(message.as_bytes(), &service.address);
        sent.expect("a reader");
    }
    let mut puppet = service.next();
    let kind = puppet.process.descriptors()[&6].kind.clone();
    let Kind::Socket(Socket {
        kind, listening, ..
    }) = kind
    else {
        panic!("{kind:?}");
    };
    assert_eq!((kind, listening), ("dgram", false));
    assert_eq!(puppet.tell("receive-from 6"), "6f6e65");
    assert_eq!(puppet.tell("receive-from 6"), "74776f");
}

/// "backlog max(maxproc, default_process_limit)": for sockets with a path, too.
#[test]
fn as_many_connections_wait_as_processes_may_run() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let address = postfix.address();
    PuppetService::add(&mut postfix, "a", "unix - - n - 3");
    PuppetService::add(&mut postfix, "b", "unix - - n - 77");
    PuppetService::add(&mut postfix, "c", "pass - - n - 0");
    PuppetService::add(&mut postfix, &address, "inet n - n - 88");
    postfix.set("default_process_limit", "50");
    postfix.start();
    let expected = [
        ("private/a", 50),
        ("private/b", 77),
        ("private/c", 50),
        (&address, 88),
    ];
    for (local, expected) in expected {
        assert_eq!(backlog(&postfix, local), expected, "{local}");
    }
}

// ---- inet

/// "inet: SO_REUSEADDR, SO_REUSEPORT"
#[test]
fn an_inet_listener_shares_its_address_and_port() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("inet n - n - -");
    let (_client, mut puppet) = service.serve();
    assert_eq!(puppet.tell("option reuseaddr"), "1");
    assert_eq!(puppet.tell("option reuseport"), "1");
}

/// "IPV6_V6ONLY", "inet names: `[v6]:port`"
#[test]
fn an_ipv6_listener_is_for_ipv6_only() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let (port, address) = (postfix.port(), postfix.address());
    postfix.set("inet_protocols", "all");
    let six = PuppetService::add(&mut postfix, &format!("[::1]:{port}"), "inet n - n - -");
    let four = PuppetService::add(&mut postfix, &address, "inet n - n - -");
    postfix.start();
    let (_client, mut puppet) = six.serve();
    assert_eq!(puppet.tell("option v6only"), "1");
    four.serve();
}

/// "inet names: `port`": all addresses of inet_interfaces, and no others.
#[test]
fn a_port_alone_is_that_of_all_interfaces_in_main_cf() {
    needs_root("to run a master");
    in_own_network(|| {
        let mut postfix = Instance::bare();
        let port = postfix.port();
        let service = PuppetService::add(&mut postfix, &port.to_string(), "inet n - n - -");
        postfix.start();
        let second = format!("{LOOPBACK_2}:{port}");
        assert!(Client::try_connect(&second).is_err(), "another address");
        let _client = Client::connect(&postfix.address());
        service.next();
    });
}

/// "`host:port`": the host's own addresses, whatever inet_interfaces contains.
#[test]
fn a_host_in_the_table_counts_more_than_the_interfaces_in_main_cf() {
    needs_root("to run a master");
    in_own_network(|| {
        let mut postfix = Instance::bare();
        let name = format!("{LOOPBACK_2}:{}", postfix.port());
        let service = PuppetService::add(&mut postfix, &name, "inet n - n - -");
        postfix.start();
        assert!(Client::try_connect(&postfix.address()).is_err());
        service.serve();
    });
}

/// "`host:port`": a host by its name.
#[test]
fn a_host_can_be_named() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let address = postfix.address();
    let name = format!("localhost:{}", postfix.port());
    let service = PuppetService::add(&mut postfix, &name, "inet n - n - -");
    postfix.start();
    let _client = Client::connect(&address);
    service.next();
}

/// "service names through known_tcp_ports and services(5)"
#[test]
fn a_port_can_be_named_in_main_cf_or_in_services() {
    needs_root("to run a master");
    in_own_network(|| {
        let mut postfix = Instance::bare();
        let port = postfix.port();
        postfix.set(
            "known_tcp_ports",
            format!("mine={port}, other = more = {}", port),
        );
        let known = PuppetService::add(&mut postfix, "127.0.0.1:mine", "inet n - n - -");
        let submission = PuppetService::add(&mut postfix, "127.0.0.1:submission", "inet n - n - -");
        postfix.start();
        for (port, service) in [(port, &known), (587, &submission)] {
            let _client = Client::connect(&format!("127.0.0.1:{port}"));
            service.next();
        }
    });
}

/// "Types inet": such a service has no directory, so it cannot be private.
#[test]
fn an_inet_service_cannot_be_private() {
    needs_root("to start a master");
    let mut postfix = Instance::bare();
    let address = postfix.address();
    PuppetService::add(&mut postfix, &address, "inet - - n - -");
    postfix.write_configuration();
    run(&mut postfix.master(&["-w"]), SOON).expect_failure();
    assert!(Client::try_connect(&address).is_err());
}

/// An address of a VPN or of DHCP, say, comes later than the master's start.
///
/// Without the fix: ours, too, "the master does not start".
#[test]
fn an_address_that_comes_later_is_served_as_soon_as_it_is_there() {
    needs_root("to have a network of its own");
    differs(
        "With bind_missing_addresses, a master listens on addresses before an interface has them.",
        Observed {
            ours: "other addresses are served at once, and this one as soon as it is there",
            original: "the master does not start",
        },
        |postfix| {
            let mut observed = "the master does not start";
            in_own_network(|| {
                let later = PuppetService::add(postfix, "192.0.2.77:7070", "inet n - n - -");
                let address = postfix.address();
                let other = PuppetService::add(postfix, &address, "inet n - n - -");
                postfix.write_configuration();
                run(&mut postfix.master(&["-w"]), SOON).expect_failure();
                postfix
                    .set("bind_missing_addresses", "yes")
                    .write_configuration();
                if !run(&mut postfix.master(&["-w"]), SOON).success() {
                    return;
                }
                other.serve();
                assert!(Client::try_connect(&later.address).is_err());
                let mut ip = Command::new("ip");
                ip.args(["address", "add", "192.0.2.77/32", "dev", "lo"]);
                run(&mut ip, SOON).expect_success();
                later.serve();
                observed =
                    "other addresses are served at once, and this one as soon as it is there";
            });
            observed
        },
    );
}

/// "::1 localhost" in /etc/hosts, on a machine without IPv6 addresses.
///
/// Without the fix: ours, too, "the master does not start".
#[test]
fn an_address_of_localhost_that_the_machine_does_not_have_is_left_out() {
    needs_root("to have a network and files of its own");
    differs(
        "Addresses of a host name that the machine does not have are left out with a warning, if \
         others are left.",
        Observed {
            ours: "127.0.0.1 of localhost is served where ::1 is missing",
            original: "the master does not start",
        },
        |postfix| {
            let mut observed = "the master does not start";
            in_own_network(|| {
                let hosts = postfix.path().join("hosts");
                fs::write(&hosts, "127.0.0.1 localhost\n::1 localhost\n").expect("a file");
                let script = format!(
                    "mount --bind {} /etc/hosts; \
                     echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; exec \"$@\"",
                    hosts.display()
                );
                let address = format!("localhost:{}", postfix.port());
                let service = PuppetService::add(postfix, &address, "inet n - n - -");
                let under = Path::new("unshare");
                postfix.set("inet_protocols", "all").write_configuration();
                let mut command = postfix.under(under, &["--mount", "sh", "-ec", &script, "sh"]);
                if !run(command.arg("-w"), SOON).success() {
                    return;
                }
                let _client = Client::connect(&postfix.address());
                service.next();
                let warnings = postfix.log_lines("warning: ");
                assert!(
                    warnings[0].contains("not listening on ::1: "),
                    "{warnings:?}"
                );
                observed = "127.0.0.1 of localhost is served where ::1 is missing";
            });
            observed
        },
    );
}

/// "tcp_windowsize": the size of a listener's buffers, in bytes.
#[test]
fn tcp_windowsize_sets_the_size_of_buffers() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let address = postfix.address();
    let service = PuppetService::add(&mut postfix, &address, "inet n - n - -");
    postfix.set("tcp_windowsize", "30000");
    postfix.start();
    let (_client, mut puppet) = service.serve();
    // The kernel doubles the value for its own data.
    assert_eq!(puppet.tell("option sndbuf"), "60000");
}

/// Services with the same name in different directories are different services.
#[test]
fn services_of_one_name_and_different_types_are_different() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let unix = PuppetService::add(&mut postfix, "a", "unix y - n - -");
    let pass = PuppetService::add(&mut postfix, "a", "pass n - n - -");
    postfix.start();
    let (_one, first) = unix.serve();
    let (_two, second) = pass.serve();
    assert!(first.given().contains("-t unix"), "{}", first.given());
    assert!(second.given().contains("-t pass"), "{}", second.given());
}
