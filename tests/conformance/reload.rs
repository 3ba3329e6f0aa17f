//! Changes of a running system.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::layout::replace;
use testkit::network::{LOOPBACK_2, in_own_network};
use testkit::poll::{until, within};
use testkit::ports::Port;
use testkit::process::Process;
use testkit::puppet::Puppet;
use testkit::puppet_service::{PuppetService, one_service};
use testkit::run::run;
use testkit::{is_original, needs_root, test};

use crate::lines::Line;

// ---- services that are kept

/// "Kept services: [...] arguments [...] replaced"
#[test]
fn a_reload_replaces_the_arguments() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 1");
    let (_client, first) = service.serve();
    assert_eq!(first.given(), "puppet -l -n a -t unix -u");
    service.set_command(&mut postfix, "unix - n y - 5", "puppet -o x=y");
    postfix.reload();
    first.wait_for_end();
    let (_client, second) = service.serve();
    assert_eq!(second.given(), "puppet -n a -t unix -c -o x=y");
}

/// "Kept services: [...] command [...] replaced"
#[test]
fn a_reload_replaces_the_command() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 1");
    let (_client, first) = service.serve();
    let other = postfix.daemons().join("other");
    fs::hard_link(postfix.daemons().join("puppet"), &other).expect("a puppet");
    service.set_command(&mut postfix, "unix - - n - 1", "other");
    postfix.reload();
    first.wait_for_end();
    let (_client, second) = service.serve();
    assert_eq!(second.process.executable(), other);
}

/// "Path: daemon_directory/command", with the new daemon_directory
#[test]
fn a_reload_replaces_the_daemon_directory() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 1");
    let directory = postfix.path().join("libexec");
    fs::create_dir(&directory).expect("a directory");
    let other = directory.join("puppet");
    fs::hard_link(postfix.daemons().join("puppet"), &other).expect("a puppet");
    postfix.set("daemon_directory", directory.display());
    postfix.reload();
    let (_client, child) = service.serve();
    assert_eq!(child.process.executable(), other);
}

/// "the status channel renewed (children finish their client and leave)"
#[test]
fn a_busy_child_finishes_its_client_and_leaves_after_a_reload() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 1");
    let (mut client, mut puppet) = service.serve();
    puppet.tell("stay");
    postfix.reload();
    puppet.tell("dismissal");
    assert!(!puppet.process.has_pending(Signal::SIGTERM));
    puppet.tell("write hello");
    assert_eq!(client.line(), "hello");
    let _waiting = service.connect();
    puppet.exit(0);
    service.serve();
}

/// "the status channel renewed": an idle child leaves at once.
#[test]
fn an_idle_child_leaves_after_a_reload() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 1");
    let (_client, mut puppet) = service.serve();
    puppet.finish_client();
    puppet.wait_until_heard();
    postfix.reload();
    puppet.wait_for_end();
    // It ended without a signal and without an error.
    assert_eq!(Line::Ended.count(&postfix), 0);
    service.serve();
}

/// "If it does not go, other children are started for the clients that wait."
#[test]
fn a_child_that_was_told_to_leave_is_not_counted_on() {
    needs_root("to run a master");
    differs(
        "A child that was told to leave is no longer counted on.",
        Observed {
            ours: "another child is started",
            original: "the client waits for a child that does not come",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let (_client, mut puppet) = service.serve();
            puppet.tell("stay");
            puppet.finish_client();
            puppet.wait_until_heard();
            postfix.reload();
            puppet.tell("dismissal");
            let _client = service.connect();
            if service.starts_a_child() {
                "another child is started"
            } else {
                "the client waits for a child that does not come"
            }
        },
    );
}

/// "A service that stays, by type and address, keeps its listeners and the clients that wait
/// there."
#[test]
fn a_reload_keeps_listeners_of_all_types_and_who_waits_there() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let address = postfix.address();
    let services = [
        PuppetService::add(&mut postfix, "a", "unix - - n - 1"),
        PuppetService::add(&mut postfix, "b", "pass n - n - 1"),
        PuppetService::add(&mut postfix, &address, "inet n - n - 1"),
    ];
    let fifo = PuppetService::add(&mut postfix, "c", "fifo n - n - 1");
    let datagram = PuppetService::add(&mut postfix, "d", "unix-dgram n - n - 1");
    postfix.start();
    let before = listeners(postfix.master_process());
    assert_eq!(before.len(), 5, "{before:?}");
    let paths = [&services[0], &services[1], &fifo, &datagram];
    let inode = |service: &PuppetService| fs::metadata(&service.address).expect("a path").ino();
    let inodes = paths.map(inode);
    let served = services.each_ref().map(PuppetService::serve);
    let waiting = services.each_ref().map(PuppetService::connect);

    postfix.reload();
    assert_eq!(listeners(postfix.master_process()), before);
    assert_eq!(paths.map(inode), inodes);
    drop(served);
    for (service, mut client) in services.iter().zip(waiting) {
        let mut puppet = service.next();
        puppet.take_client();
        puppet.tell("write hello");
        assert_eq!(client.line(), "hello");
    }
}

/// The listeners among a master's descriptors, with inode numbers of sockets.
fn listeners(master: Process) -> Vec<String> {
    let descriptors = master.descriptors();
    let listeners = descriptors.values().filter(|one| {
        let name = one.kind.to_string();
        one.kind.is_listener() || name.contains("public/")
    });
    let mut targets: Vec<String> = listeners.map(|one| one.target.clone()).collect();
    targets.sort();
    // What a child was given just now is there twice.
    targets.dedup();
    targets
}

/// "`25` and `smtp` are the same service."
#[test]
fn another_name_of_the_same_port_keeps_the_listener_and_who_waits_there() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let (address, port) = (postfix.address(), postfix.port());
    postfix.set("known_tcp_ports", format!("testsmtp={port}"));
    let service = PuppetService::add(&mut postfix, &address, "inet n - n - 1");
    postfix.start();
    let before = listeners(postfix.master_process());
    let renamed = "127.0.0.1:testsmtp";
    let line = |name: &str| format!("{name} inet n - n - 1 puppet {}", service.arguments());

    let (mut first, mut puppet) = service.serve();
    for (from, to) in [(address.as_str(), renamed), (renamed, address.as_str())] {
        // The only child is busy, so this client waits in the listener's queue.
        let waiting = service.connect();
        postfix.without(from, "inet").service(&line(to));
        postfix.reload();
        let after = listeners(postfix.master_process());
        assert_eq!(after, before, "the listener of {from}, now {to}");
        // The busy child is told to leave, and the next child accepts the waiting client.
        first.wait_for_end();
        puppet.wait_for_end();
        puppet = service.next();
        puppet.take_client();
        puppet.tell("write hello");
        first = waiting;
        assert_eq!(first.line(), "hello");
    }
}

/// "Kept services: [...] listeners kept": also when two services listen on the same address, which
/// the kernel allows, and one of them gets a second address.
#[test]
fn services_that_share_an_address_keep_a_listener_each() {
    needs_root("to run a master");
    in_own_network(|| {
        let mut postfix = Instance::bare();
        let (address, port) = (postfix.address(), postfix.port());
        postfix.set("inet_interfaces", "127.0.0.1");
        let _one = PuppetService::add(&mut postfix, &port.to_string(), "inet n - n - 1");
        let _other = PuppetService::add(&mut postfix, &address, "inet n - n - 1");
        postfix.start();
        let before = listeners(postfix.master_process());
        assert_eq!(before.len(), 2);
        postfix.set("inet_interfaces", format!("127.0.0.1, {LOOPBACK_2}"));
        postfix.reload();
        let after = listeners(postfix.master_process());
        assert!(before.iter().all(|one| after.contains(one)), "{after:?}");
    });
}

// ---- services that come and go

/// "Removed: children get SIGTERM, listeners close."
#[test]
fn a_removed_services_children_get_sigterm() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - -");
    let other = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.reload();
    let (_client, mut removed) = service.serve();
    let (_other, mut kept) = other.serve();
    for puppet in [&mut removed, &mut kept] {
        puppet.tell("block SIGTERM");
        puppet.tell("stay");
    }
    postfix.without("a", "unix");
    postfix.write_configuration();
    postfix.hang_up();
    until(SOON, "SIGTERM", || {
        removed.process.has_pending(Signal::SIGTERM)
    });
    removed.exit(0);
    kept.tell("dismissal");
    assert!(!kept.process.has_pending(Signal::SIGTERM));
}

/// "Removed: [...] listeners close."
#[test]
fn a_removed_services_clients_are_refused() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let address = postfix.address();
    let inet = PuppetService::add(&mut postfix, &address, "inet n - n - -");
    let unix = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let kept = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.start();
    postfix
        .without(&address, "inet")
        .without("a", "unix")
        .reload();
    for service in [&inet, &unix] {
        assert!(
            Client::try_connect(&service.address).is_err(),
            "{}",
            service.address
        );
    }
    kept.serve();
}

/// "a removed child that does not end in time, sending SIGKILL"
#[test]
fn removing_a_service_whose_child_does_not_leave_delays_nobody() {
    needs_root("to run a master");
    differs(
        "A removed service whose child ignores SIGTERM delays no client, and the child is \
         killed after service_kill_time.",
        Observed {
            ours: "others are served, and the child is killed",
            original: "no client is served while the child is there",
        },
        |postfix| {
            postfix.set("service_kill_time", "3s");
            let stubborn = PuppetService::add(postfix, "a", "unix - - n - -");
            let other = PuppetService::add(postfix, "b", "unix - - n - -");
            postfix.start();
            let (_client, mut child) = stubborn.serve();
            child.tell("ignore SIGTERM");
            child.tell("stay");
            postfix.without("a", "unix").write_configuration();
            postfix.hang_up();
            child.tell("dismissal"); // the reload is under way
            let _other = other.connect();
            if !other.starts_a_child() {
                assert!(child.process.runs(), "the original kills");
                child.process.signal(Signal::SIGKILL);
                other.next();
                return "no client is served while the child is there";
            }
            assert!(child.process.runs(), "it was killed too early");
            child.wait_for_end();
            let said = postfix.wait_for_log(Line::Killing.ours());
            let pid = format!(" pid {} ", child.process.0);
            assert!(said.contains(&pid), "{said}");
            "others are served, and the child is killed"
        },
    );
}

/// More children than are told to leave in one turn, and another reload in the meantime.
#[test]
fn a_service_with_many_children_that_is_removed_can_be_back_at_once() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let address = postfix.address();
    let service = PuppetService::add(&mut postfix, &address, "inet n - n - 0");
    let other = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.start();
    let (_clients, former): (Vec<_>, Vec<_>) = (0..300).map(|_| service.serve()).unzip();
    postfix.without(&address, "inet");
    if is_original() {
        postfix.reload();
    } else {
        postfix.write_configuration();
        postfix.hang_up();
        Line::Removed.wait(&postfix, &["total 300"]);
    }
    service.set(&mut postfix, "inet n - n - 0");
    postfix.reload();
    former.iter().for_each(Puppet::wait_for_end);
    let (mut client, mut next) = service.serve();
    next.tell("write hello");
    assert_eq!(client.line(), "hello");
    let (_other, _child) = other.serve();
    assert_eq!(postfix.log_lines("warning: "), [""; 0]);
}

/// "One that is given up refuses clients at once, also while children that inherited it still
/// serve."
#[test]
fn a_removed_address_refuses_clients_while_its_children_serve() {
    needs_root("to run a master");
    differs(
        "An address that is given up refuses clients at once, also while a child that inherited it \
         still serves.",
        Observed {
            ours: "clients are refused",
            original: "clients wait for a child that does not take them",
        },
        |postfix| {
            let address = postfix.address();
            let service = PuppetService::add(postfix, &address, "inet n - n - -");
            PuppetService::add(postfix, "other", "unix - - n - -");
            postfix.start();
            let (mut client, mut puppet) = service.serve();
            puppet.tell("ignore SIGTERM");
            puppet.tell("stay");
            postfix.without(&address, "inet").write_configuration();
            postfix.hang_up();
            puppet.tell("dismissal");
            let listens = || puppet.process.descriptors()[&6].kind.is_listener();
            let refused = within(SOON / 10, || !listens());
            puppet.tell("write hello");
            assert_eq!(client.line(), "hello");
            match refused {
                Some(()) => "clients are refused",
                None => "clients wait for a child that does not take them",
            }
        },
    );
}

/// Services that a reload adds serve like others.
#[test]
fn an_added_service_serves() {
    needs_root("to run a master");
    let (mut postfix, first) = one_service("unix - - n - -");
    let port = Port::reserve();
    let inet = PuppetService::add(&mut postfix, &format!("127.0.0.1:{port}"), "inet n - n - -");
    let unix = PuppetService::add(&mut postfix, "b", "unix n - n - -");
    postfix.reload();
    for service in [&first, &inet, &unix] {
        service.serve();
    }
}

/// A service that was removed can come back.
#[test]
fn a_service_that_comes_back_serves() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 1");
    PuppetService::add(&mut postfix, "other", "unix - - n - -");
    for _ in 0..3 {
        let (_client, puppet) = service.serve();
        postfix.without("a", "unix").reload();
        puppet.wait_for_end();
        service.set(&mut postfix, "unix - - n - 1");
        postfix.reload();
    }
    service.serve();
}

/// "Identity of a service across reloads is its canonical endpoint and type"
#[test]
fn a_service_of_another_type_is_another_service() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - -");
    let (_client, mut puppet) = service.serve();
    puppet.tell("stay");
    puppet.tell("block SIGTERM");
    postfix.without("a", "unix");
    let pass = PuppetService::add(&mut postfix, "a", "pass - - n - -");
    postfix.write_configuration();
    postfix.hang_up();
    until(SOON, "SIGTERM", || {
        puppet.process.has_pending(Signal::SIGTERM)
    });
    puppet.exit(0);
    until(SOON, "the new listener", || {
        Client::try_connect(&pass.address).is_ok()
    });
    assert!(pass.next().given().contains("-t pass"));
}

/// "created [...] under `private/` or `public/`"
#[test]
fn a_service_can_move_from_private_to_public() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix y - n - -");
    postfix.without("a", "unix");
    let arguments = service.arguments();
    postfix.service(&format!("a unix n - n - - puppet {arguments}"));
    postfix.reload();
    assert!(
        Client::try_connect(&service.address).is_err(),
        "the private one"
    );
    let public = postfix.socket("public", "a").display().to_string();
    let _client = Client::connect(&public);
    service.next();
}

/// "A duplicate warns, and the last wins.", "`duplicate master.cf entry for service`"
#[test]
fn of_two_lines_for_one_service_the_last_wins() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - n n - 1");
    postfix.write_configuration();
    let mut table = fs::read_to_string(postfix.master_cf()).expect("a table");
    let line = table.clone();
    table.push_str(&line.replace("- 1 puppet", "- 7 puppet"));
    let write = |postfix: &Instance, table: &str| {
        replace(&postfix.master_cf(), table);
    };
    write(&postfix, &table);
    let mut start = postfix.master(&["-w"]);
    run(&mut start, SOON).expect_success();
    let (_client, child) = service.serve();
    assert_eq!(child.given(), "puppet -n a -t unix");

    let mark = postfix.log().len();
    write(&postfix, &format!("{table}{line}"));
    postfix.hang_up();
    postfix.wait_for_reload_after(mark);
    let warning = postfix.wait_for_log_after(mark, "duplicate master.cf entry for service \"a\" (");
    assert!(warning.contains("warning: "), "{warning}");
    child.wait_for_end();
    let (_client, child) = service.serve();
    assert_eq!(child.given(), "puppet -l -n a -t unix");
}

/// "`master_service_disable` takes `name/type`, `type`, `!` negation, case-insensitively."
#[test]
fn disabled_services_do_not_listen() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let address = postfix.address();
    let names = ["a", "b"].map(|name| PuppetService::add(&mut postfix, name, "unix - - n - -"));
    let inet = PuppetService::add(&mut postfix, &address, "inet n - n - -");
    let listen = |service: &PuppetService| Client::try_connect(&service.address).is_ok();
    postfix.set("master_service_disable", "A/unix");
    postfix.start();
    assert_eq!(names.each_ref().map(listen), [false, true]);
    assert!(listen(&inet));
    for (disabled, expected) in [
        ("INET", [true, true, false]),
        ("!b/unix, unix", [false, true, true]),
        ("", [true, true, true]),
    ] {
        postfix.set("master_service_disable", disabled);
        postfix.reload();
        let found = [&names[0], &names[1], &inet].map(listen);
        assert_eq!(found, expected, "{disabled:?}");
    }
}

// ---- the reload itself

/// "`reload -- version`", by the same master.
#[test]
fn many_hangups_are_no_more_than_one() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let master = postfix.master_process();
    let mark = postfix.log().len();
    for _ in 0..50 {
        postfix.hang_up();
    }
    postfix.wait_for_reload_after(mark);
    service.serve();
    assert_eq!(postfix.master_process(), master);
}

/// "Changes to config_directory, queue_directory [...] on reload are refused with a warning, and
/// the rest of the reload goes on."
#[test]
fn the_queue_directory_cannot_change_and_the_rest_is_reloaded() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - 1");
    let elsewhere = postfix.path().join("elsewhere");
    postfix.set("queue_directory", elsewhere.display());
    service.set(&mut postfix, "unix - - n - 5");
    postfix.reload();
    let warning = postfix.wait_for_log("ignoring queue_directory parameter value change");
    assert!(warning.contains("warning: "), "{warning}");
    let (_client, child) = service.serve();
    assert_eq!(child.given(), "puppet -n a -t unix -u");
    assert_eq!(child.process.cwd(), postfix.queue());
}

/// "children finish their client and leave": also children from before several reloads.
#[test]
fn children_of_several_reloads_finish_their_clients() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - -");
    let mut children = Vec::new();
    for _ in 0..4 {
        let (client, mut puppet) = service.serve();
        puppet.tell("stay");
        puppet.wait_until_heard();
        postfix.reload();
        children.push((client, puppet));
    }
    for (client, puppet) in &mut children {
        puppet.tell("dismissal");
        puppet.tell("write hello");
        assert_eq!(client.line(), "hello");
    }
    for (_, puppet) in children {
        puppet.exit(0);
    }
    until(SOON, "their end", || {
        postfix.children_named("puppet").is_empty()
    });
}
