//! Starting children: when, and with which command line, descriptors and credentials.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use testkit::client::Client;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::network::{LOOPBACK_2, in_own_network};
use testkit::poll::until;
use testkit::process::Kind;
use testkit::puppet::Puppet;
use testkit::puppet_service::{PuppetService, one_service};
use testkit::{is_original, needs_root, test};

/// The arguments of the first child of a service with these columns, up to the table's arguments.
#[track_caller]
fn given(columns: &str) -> String {
    let (_postfix, service) = one_service(columns);
    let _client = service.connect();
    service.next().given()
}

// ---- when

/// "opens the listeners of all services [...] and starts their programs when clients come"
#[test]
fn a_child_is_started_when_a_client_comes_and_not_before() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - -");
    service.expect_no_child();
    let _client = service.connect();
    service.next();
}

/// "A new child counts as available from the moment it is started."
#[test]
fn a_second_client_waits_for_a_child_that_has_just_been_started() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - -");
    let _first = service.connect();
    let mut puppet = service.next();
    let mut second = service.connect();
    service.expect_no_child();
    puppet.tell("accept");
    puppet.tell("accept");
    puppet.tell("write hello");
    assert_eq!(second.line(), "hello");
}

/// "watches the listeners and starts one child for the next connection"
#[test]
fn a_busy_child_is_joined_by_one_more_for_the_next_client() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - -");
    let (_first, _busy) = service.serve();
    let mut second = service.connect();
    let mut next = service.next();
    next.take_client();
    next.tell("write hello");
    assert_eq!(second.line(), "hello");
    service.expect_no_child();
}

/// "While avail is above 0, the children accept connections by themselves and [the master] does
/// not look at the listeners."
#[test]
fn a_child_that_is_available_again_takes_the_next_client_itself() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - -");
    let (_first, mut puppet) = service.serve();
    puppet.finish_client();
    puppet.wait_until_heard();
    let mut second = service.connect();
    service.expect_no_child();
    puppet.take_client();
    puppet.tell("write hello");
    assert_eq!(second.line(), "hello");
}

/// "A child that ends abnormally with use count 0 throttles its service": a child that ends
/// normally does not.
#[test]
fn a_child_that_leaves_without_a_client_is_replaced_at_once() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let _client = service.connect();
    for _ in 0..5 {
        service.next().exit(0);
    }
    let mut puppet = service.next();
    puppet.take_client();
    assert_eq!(postfix.log_lines("throttling"), [""; 0]);
}

/// "Children share listeners": clients in the queue are not lost when the child dies.
#[test]
fn the_clients_of_a_child_that_died_are_served_by_the_next() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - -");
    let mut clients = [service.connect(), service.connect(), service.connect()];
    service.next().exit(0);
    let mut puppet = service.next();
    for client in &mut clients {
        puppet.tell("accept");
        puppet.tell("write hello");
        assert_eq!(client.line(), "hello");
    }
}

// ---- the command line

/// "argv[0] is the command as written [...] Path: daemon_directory/command"
#[test]
fn the_command_is_run_from_the_daemon_directory_under_the_name_in_the_table() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    fs::create_dir(postfix.daemons().join("more")).expect("a directory");
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let path = postfix.daemons().join("more/puppet");
    fs::hard_link(postfix.daemons().join("puppet"), &path).expect("a puppet");
    service.set_command(&mut postfix, "unix - - n - -", "more/puppet");
    postfix.start();
    let _client = service.connect();
    let puppet = service.next();
    assert_eq!(puppet.arguments[0], "more/puppet");
    assert_eq!(puppet.process.executable(), path);
}

/// "`-n name` when the command's base name differs from the service name"
#[test]
fn a_service_with_the_name_of_its_command_is_given_no_name() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "puppet", "unix - - n - -");
    postfix.start();
    let _client = service.connect();
    assert_eq!(service.next().given(), "puppet -t unix -u");
}

/// "`-l` when maxproc is 1; `-z` when 0"
#[test]
fn a_limit_of_one_is_l_and_no_limit_is_z() {
    needs_root("to run a master");
    assert_eq!(given("unix - n n - 1"), "puppet -l -n a -t unix");
    assert_eq!(given("unix - n n - 0"), "puppet -z -n a -t unix");
    assert_eq!(given("unix - n n - 2"), "puppet -n a -t unix");
}

/// "`-u` when unprivileged; `-c` when chrooted", "`-` takes the default (private y, unprivileged
/// y, chroot n from compatibility_level 1 and y before)"
#[test]
fn unprivileged_is_u_and_chroot_is_c() {
    needs_root("to run a master");
    assert_eq!(given("unix - n n - -"), "puppet -n a -t unix");
    assert_eq!(given("unix - y n - -"), "puppet -n a -t unix -u");
    assert_eq!(given("unix - n y - -"), "puppet -n a -t unix -c");
    assert_eq!(given("unix - - - - -"), "puppet -n a -t unix -u");
}

/// "chroot n from compatibility_level 1 and y before"
#[test]
fn before_compatibility_level_1_chroot_is_the_default() {
    needs_root("to run a master");
    for (level, expected) in [
        ("0", "puppet -n a -t unix -u -c"),
        ("1", "puppet -n a -t unix -u"),
        ("2", "puppet -n a -t unix -u"),
    ] {
        let mut postfix = Instance::bare();
        let service = PuppetService::add(&mut postfix, "a", "unix - - - - -");
        postfix.set("compatibility_level", level);
        postfix.start();
        let _client = service.connect();
        assert_eq!(service.next().given(), expected, "level {level}");
    }
}

/// "`-t type`"
#[test]
fn the_type_is_t() {
    needs_root("to run a master");
    assert_eq!(given("pass - n n - 1"), "puppet -l -n a -t pass");
    let (_postfix, service) = one_service("fifo n n n - 1");
    fs::write(&service.address, "x").expect("a reader");
    assert_eq!(service.next().given(), "puppet -l -n a -t fifo");
    let (_postfix, service) = one_service("unix-dgram n n n - 1");
    let client = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    client.send_to(b"x", &service.address).expect("a reader");
    assert_eq!(service.next().given(), "puppet -l -n a -t unix-dgram");
    let (postfix, service) = one_service("inet n n n - 1");
    let _client = service.connect();
    let expected = format!("puppet -l -n {} -t inet", postfix.address());
    assert_eq!(service.next().given(), expected);
}

/// "`-o stress=` for services that remote clients can reach (any address that is not loopback,
/// and type pass) with maxproc above 1"
#[test]
fn stress_is_told_to_services_of_strangers_with_more_than_one_process() {
    needs_root("to run a master");
    assert_eq!(given("pass - n n - 1"), "puppet -l -n a -t pass");
    assert_eq!(given("pass - n n - 0"), "puppet -z -n a -t pass");
    assert_eq!(given("pass - n n - 3"), "puppet -n a -t pass -o stress=");
    assert_eq!(given("unix n n n - 3"), "puppet -n a -t unix");
}

/// "any address that is not loopback": a service of all addresses is one.
#[test]
fn stress_is_told_to_services_of_all_addresses_and_not_to_those_of_loopback() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let local = postfix.address();
    let port = postfix.port();
    postfix.set("inet_interfaces", "all");
    let wide = PuppetService::add(&mut postfix, &format!("0.0.0.0:{port}"), "inet n n n - 3");
    postfix.start();
    let _client = Client::connect(&local);
    let expected = format!("puppet -n 0.0.0.0:{port} -t inet -o stress=");
    assert_eq!(wide.next().given(), expected);

    let (postfix, service) = one_service("inet n n n - 3");
    let _client = service.connect();
    let expected = format!("puppet -n {} -t inet", postfix.address());
    assert_eq!(service.next().given(), expected);
}

/// "`-s n` with more than one listener", "several addresses give several listeners"
#[test]
fn several_addresses_are_several_listeners_and_s() {
    needs_root("to run a master");
    in_own_network(|| {
        let mut postfix = Instance::bare();
        let port = postfix.port();
        postfix.set("inet_interfaces", format!("127.0.0.1, {LOOPBACK_2}"));
        let service = PuppetService::add(&mut postfix, &port.to_string(), "inet n n n - 1");
        postfix.start();
        let mut clients =
            [LOOPBACK_2, "127.0.0.1"].map(|address| Client::connect(&format!("{address}:{port}")));
        let mut puppet = service.next();
        assert_eq!(puppet.given(), format!("puppet -l -n {port} -t inet -s 2"));
        let listeners = puppet.process.descriptors();
        let listeners = listeners.iter().filter(|(_, one)| one.kind.is_listener());
        let numbers: Vec<i32> = listeners.map(|(number, _)| *number).collect();
        assert_eq!(numbers, [6, 7]);
        for _ in &clients {
            puppet.tell("accept");
            puppet.tell("write hello");
        }
        for client in &mut clients {
            assert_eq!(client.line(), "hello");
        }
    });
}

/// "then the table's arguments", "Arguments in `{ braces }` keep their spaces."
#[test]
fn the_tables_arguments_come_last_and_braces_keep_spaces() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - n n - 1");
    let arguments = "first  { -o name = two words } {} { {inner} } $dollar #mark";
    postfix.service(&format!(
        "a unix - n n - 1 puppet {} {arguments}",
        service.arguments()
    ));
    postfix.start();
    let _client = service.connect();
    let puppet = service.next();
    let given = &puppet.arguments;
    let control = given.iter().position(|text| text.starts_with("control="));
    let last: Vec<&str> = given[control.expect("control=PATH") + 1..]
        .iter()
        .map(String::as_str)
        .collect();
    let expected = [
        "first",
        "-o name = two words",
        "",
        "{inner}",
        "$dollar",
        "#mark",
    ];
    assert_eq!(last, expected);
}

// ---- what it finds

/// "3 read and 4 write end of one non-blocking pipe [...]; 5 the status channel [...]; 6.. the
/// listeners, non-blocking. Nothing else is open above 2."
#[test]
fn a_child_has_the_pipe_the_channel_and_the_listener_and_nothing_else() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - 1");
    let _client = service.connect();
    let mut puppet = service.next();
    let descriptors = puppet.process.descriptors();
    // Descriptors that the puppet itself has opened are close-on-exec.
    let given: BTreeSet<i32> = descriptors
        .iter()
        .filter(|(_, descriptor)| !descriptor.close_on_exec())
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(given, (0..=6).collect());
    assert_eq!(
        (&descriptors[&3].kind, &descriptors[&4].kind),
        (&Kind::Pipe, &Kind::Pipe)
    );
    assert_eq!(descriptors[&3].target, descriptors[&4].target, "one pipe");
    assert!(descriptors[&6].kind.is_listener(), "{:?}", descriptors[&6]);
    for number in [3, 4, 6] {
        assert!(descriptors[&number].non_blocking(), "{number}");
    }
    puppet.tell("report taken");
}

/// "5 the status channel, the child's own" (in the original, the children of a service share one).
#[test]
fn the_status_channel_is_shared_with_no_other_service_nor_under_ours_with_siblings() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let a = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let b = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.start();
    let children = [a.serve(), a.serve(), b.serve()];
    let channel = |puppet: &Puppet| puppet.process.descriptors()[&5].target.clone();
    let [first, second, other] = children.each_ref().map(|(_, puppet)| channel(puppet));
    assert_eq!(first == second, is_original());
    assert_ne!(first, other);
}

/// "Start-up [...] chdir to `queue_directory`", "umask 077"
#[test]
fn a_child_begins_in_the_queue_directory_as_root_with_a_tight_umask() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - y - 1");
    let _client = service.connect();
    let puppet = service.next();
    let child = puppet.process;
    assert_eq!(child.cwd(), postfix.queue());
    assert_eq!(
        child.root(),
        Path::new("/"),
        "the child itself calls chroot"
    );
    assert_eq!(child.umask(), "0077");
    assert_eq!((child.uids(), child.gids()), ([0; 4], [0; 4]));
    let master = postfix.master_process();
    assert_eq!((child.group(), child.session()), (master.0, master.0));
}

/// "file size limit lifted"
#[test]
fn the_limit_on_file_sizes_is_lifted() {
    needs_root("to run a master");
    differs(
        "A limit on file sizes that the master is started with is lifted.",
        Observed {
            ours: "children have none",
            original: "children have it",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - 1");
            let limit = ["--fsize=1000000:unlimited"];
            let mut limited = postfix.under(Path::new("prlimit"), &limit);
            postfix.run_in_foreground(&mut limited);
            let _client = service.connect();
            let limits = service.next().process.limits();
            let sizes = limits.iter().find(|line| line.starts_with("Max file size"));
            let soft = sizes.and_then(|line| line.split_whitespace().nth(3));
            match soft.expect("a limit") {
                "1000000" => "children have it",
                _ => "children have none",
            }
        },
    );
}

/// No zombie remains.
#[test]
fn every_child_is_reaped() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let _client = service.connect();
    for _ in 0..50 {
        service.next().exit(0);
    }
    let next = service.next();
    let master = postfix.master_pid();
    // A zombie's parent is the process that must reap it.
    until(SOON, "one child", || {
        let path = format!("/proc/{master}/task/{master}/children");
        let children = fs::read_to_string(path).expect("children");
        children.trim() == next.process.0.to_string()
    });
}
