//! What ours promises and the original does not. Each test shows the difference: on the original
//! it checks what that does instead, where this is safe and cheap.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::client::{Client, expect_greeting, expect_refusal};
use crate::common::instance::{Instance, SOON};
use crate::common::layout::replace;
use crate::common::network::{LOOPBACK_2, in_own_network};
use crate::common::ours_promises;
use crate::common::poll::until;
use crate::common::ports::Port;
use crate::common::puppet::{Puppet, Puppets};
use crate::common::run::run;
use crate::needs_root;

/// A promise: a reload that cannot be done changes nothing. `spoil` makes it so; the log must
/// then have a line with all of `complaint`; `repair` undoes it.
fn a_failed_reload_changes_nothing(
    mut postfix: Instance,
    complaint: &[&str],
    spoil: impl FnOnce(&mut Instance),
    repair: impl FnOnce(&mut Instance),
) {
    // A daemon that starts while main.cf is broken fails, which is not the master's business.
    postfix.set("service_throttle_time", "1s");
    postfix.start();
    drop(expect_greeting(&postfix.address()));
    let master = postfix.master_process();
    let mark = postfix.log().len();
    spoil(&mut postfix);
    postfix.hang_up();

    if ours_promises("a failed reload changes nothing") {
        let line = until(SOON, format_args!("a complaint with {complaint:?}"), || {
            let log = postfix.log();
            let mut news = log.get(mark..)?.lines();
            news.find(|line| complaint.iter().all(|text| line.contains(text)))
                .map(str::to_owned)
        });
        assert!(
            line.contains("error:") || line.contains("warning:"),
            "{line}"
        );
        assert_eq!(postfix.master_process(), master, "the master");
        assert!(master.runs(), "the master is dead");
        // Mail still flows: the daemons read a main.cf of their own, which must be whole.
        expect_greeting(&postfix.address());
        repair(&mut postfix);
        run(&mut postfix.smtp_source(1, 1), SOON).expect_success();
        postfix.wait_for_delivery(1, SOON);
        postfix.reload();
        assert_eq!(postfix.master_process(), master, "the master");
        run(&mut postfix.smtp_source(1, 1), SOON).expect_success();
        postfix.wait_for_delivery(2, SOON);
    } else {
        until(SOON, "the original's death", || !master.runs());
    }
}

#[test]
fn a_reload_with_a_broken_service_table_changes_nothing() {
    needs_root!("to run a mail system");
    let postfix = Instance::mail();
    let table = postfix.master_cf().display().to_string();
    a_failed_reload_changes_nothing(
        postfix,
        &[&table, "line 2", "inert"],
        |postfix| replace(&postfix.master_cf(), "# comment\nbroken inert n n n\n"),
        |postfix| postfix.write_configuration(),
    );
}

#[test]
fn a_reload_without_a_service_table_changes_nothing() {
    needs_root!("to run a mail system");
    let postfix = Instance::mail();
    let table = postfix.master_cf().display().to_string();
    a_failed_reload_changes_nothing(
        postfix,
        &[&table, "No such file"],
        |postfix| fs::remove_file(postfix.master_cf()).expect("a table"),
        |_| (),
    );
}

#[test]
fn a_reload_with_a_broken_main_cf_changes_nothing() {
    needs_root!("to run a mail system");
    let postfix = Instance::mail();
    let main_cf = postfix.main_cf().display().to_string();
    a_failed_reload_changes_nothing(
        postfix,
        &[&main_cf, "line 3"],
        |postfix| {
            let text = fs::read_to_string(postfix.main_cf()).expect("main.cf");
            replace(
                &postfix.main_cf(),
                &format!("\n# comment\nsoft_bounce\n{text}"),
            );
        },
        |postfix| postfix.write_configuration(),
    );
}

#[test]
fn a_reload_with_a_bad_value_changes_nothing() {
    needs_root!("to run a mail system");
    a_failed_reload_changes_nothing(
        Instance::mail(),
        &["default_process_limit", "many"],
        |postfix| {
            postfix.set("default_process_limit", "many");
            postfix.write_configuration();
        },
        |postfix| {
            postfix.set("default_process_limit", "100");
            postfix.write_configuration();
        },
    );
}

#[test]
fn a_reload_with_a_port_that_somebody_else_holds_changes_nothing() {
    needs_root!("to run a mail system");
    let somebody = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let taken = somebody.local_addr().expect("an address").to_string();
    // A service that comes before it in the table must not appear either.
    let port = Port::reserve();
    let free = format!("127.0.0.1:{port}");
    let mut postfix = Instance::mail();
    postfix.without("scache", "unix");
    a_failed_reload_changes_nothing(
        postfix,
        &[&taken],
        |postfix| {
            postfix.service(&format!("{free} inet n - n - - smtpd"));
            postfix.service(&format!("{taken} inet n - n - - smtpd"));
            postfix.service("scache unix - - n - 1 scache");
            postfix.write_configuration();
        },
        |postfix| {
            Client::try_connect(&free)
                .err()
                .expect("nothing of it is done");
            assert!(!postfix.socket("private", "scache").exists());
            drop(somebody);
        },
    );
}

#[test]
fn removing_a_service_whose_child_does_not_leave_delays_nobody() {
    needs_root!("to run a mail system");
    let port = Port::reserve();
    let other = format!("127.0.0.1:{port}");
    let mut postfix = Instance::new();
    postfix.set("service_kill_time", "1s");
    let (stubborn, puppets) = (
        Puppets::new(&postfix, "stubborn"),
        Puppets::new(&postfix, "puppets"),
    );
    let address = postfix.address();
    let line = format!("{address} inet n - n - - puppet {}", stubborn.arguments());
    postfix.service(&line);
    let line = format!("{other} inet n - n - - puppet {}", puppets.arguments());
    postfix.service(&line);
    postfix.start();
    let _client = Client::connect(&address);
    let mut child = stubborn.next();
    child.take_client();
    child.tell("ignore SIGTERM");
    child.tell("stay");

    postfix.without(&address, "inet");
    postfix.write_configuration();
    postfix.hang_up();
    child.tell("dismissal"); // the reload is under way
    let _client = Client::connect(&other);
    let answered = puppets.next_within(Duration::from_secs(1));
    if ours_promises("nobody waits for a child that must leave") {
        assert!(answered.is_some(), "the other service's child");
        child.wait_for_end();
        let pid = child.process.0;
        let line = postfix.wait_for_log(&format!(" pid {pid} "));
        assert!(
            line.contains("SIGKILL") || line.contains("signal 9"),
            "{line}"
        );
    } else {
        assert!(answered.is_none(), "the original answers");
        assert!(child.process.runs(), "the original kills");
        child.process.signal(Signal::SIGKILL);
        puppets.next();
    }
}

#[test]
fn a_change_of_interfaces_takes_effect_on_reload() {
    needs_root!("to run a mail system");
    in_own_network(|| {
        let mut postfix = Instance::mail();
        let (first, port) = (postfix.address(), postfix.port());
        let second = format!("{LOOPBACK_2}:{port}");
        postfix.without(&first, "inet");
        postfix.service(&format!("{port} inet n - n - - smtpd"));
        postfix.start();
        let master = postfix.master_process();
        drop(expect_greeting(&first));
        expect_refusal(&second);

        postfix.set("inet_interfaces", format!("127.0.0.1, {LOOPBACK_2}"));
        postfix.reload();
        let refused = Client::try_connect(&second).is_err();
        if ours_promises("inet_interfaces can be reloaded") {
            drop(expect_greeting(&first));
            drop(expect_greeting(&second));
            postfix.set("inet_interfaces", LOOPBACK_2);
            postfix.reload();
            expect_refusal(&first);
            drop(expect_greeting(&second));
            assert_eq!(postfix.master_process(), master, "the master");
        } else {
            assert!(refused, "the original listens");
            postfix.wait_for_log("ignoring inet_interfaces");
        }
    });
}

#[test]
fn a_change_of_protocols_takes_effect_on_reload() {
    needs_root!("to run a mail system");
    in_own_network(|| {
        let mut postfix = Instance::mail();
        let (four, port) = (postfix.address(), postfix.port());
        let six = format!("[::1]:{port}");
        postfix.without(&four, "inet");
        postfix.service(&format!("{port} inet n - n - - smtpd"));
        postfix.set("inet_interfaces", "loopback-only");
        postfix.start();
        drop(expect_greeting(&four));
        expect_refusal(&six);

        postfix.set("inet_protocols", "all");
        postfix.reload();
        let refused = Client::try_connect(&six).is_err();
        if ours_promises("inet_protocols can be reloaded") {
            drop(expect_greeting(&four));
            drop(expect_greeting(&six));
        } else {
            assert!(refused, "the original listens");
            postfix.wait_for_log("ignoring inet_protocols");
        }
    });
}

/// Two services, each with a child that serves a client, and a third child beside the first.
struct Gossip {
    postfix: Instance,
    address: String,
    puppets: Puppets,
    liar: Puppet,
    sibling: Puppet,
    stranger: Puppet,
    clients: Vec<Client>,
    _port: Port,
}

impl Gossip {
    fn new() -> Self {
        let port = Port::reserve();
        let other = format!("127.0.0.1:{port}");
        let mut postfix = Instance::new();
        let puppets = Puppets::new(&postfix, "puppets");
        let strangers = Puppets::new(&postfix, "strangers");
        let address = postfix.address();
        for (address, puppets) in [(&address, &puppets), (&other, &strangers)] {
            let line = format!("{address} inet n - n - - puppet {}", puppets.arguments());
            postfix.service(&line);
        }
        postfix.start();
        let mut clients = Vec::new();
        let mut child = |address: &str, puppets: &Puppets| {
            clients.push(Client::connect(address));
            let mut puppet = puppets.next();
            puppet.take_client();
            puppet
        };
        let liar = child(&address, &puppets);
        let sibling = child(&address, &puppets);
        let stranger = child(&other, &strangers);
        Self {
            postfix,
            address,
            puppets,
            liar,
            sibling,
            stranger,
            clients,
            _port: port,
        }
    }

    /// The sibling's reports count: while it is available nobody else is started for a client,
    /// and once it is taken somebody is.
    #[track_caller]
    fn expect_sibling_is_heard(&mut self) {
        self.sibling.finish_client();
        self.sibling.wait_until_heard();
        let mut client = Client::connect(&self.address);
        let surplus = self.puppets.next_within(Duration::from_millis(200));
        assert!(surplus.is_none(), "a child that nobody needs");
        self.sibling.take_client();
        self.sibling.tell("write hello");
        assert_eq!(client.line(), "hello");
        self.clients.push(client);

        self.clients.push(Client::connect(&self.address));
        self.puppets.next();
    }
}

#[test]
fn short_and_long_reports_change_nothing() {
    needs_root!("to run a mail system");
    for length in [5, 40] {
        let mut gossip = Gossip::new();
        let master = gossip.postfix.master_process();
        gossip.liar.write_status(&vec![0xff; length]);
        if ours_promises("records keep their boundaries") {
            gossip.expect_sibling_is_heard();
            assert!(master.runs(), "the master is dead");
        } else {
            // A stream has no records: what remains of a long one makes later ones unreadable,
            // if they come quickly. This is a race; what is sure is the complaint.
            gossip.postfix.wait_for_log("sent partial status update");
        }
    }
}

#[test]
fn a_report_that_bears_another_services_child_changes_nothing() {
    needs_root!("to run a mail system");
    let mut gossip = Gossip::new();
    let master = gossip.postfix.master_process();
    let forged = gossip.stranger.report(1);
    gossip.liar.write_status(&forged.encode());
    if ours_promises("a child speaks only for itself") {
        gossip.expect_sibling_is_heard();
        assert!(master.runs(), "the master is dead");
    } else {
        gossip.postfix.wait_for_log("panic: ");
        until(SOON, "the original's death", || !master.runs());
    }
}

#[test]
fn a_report_that_bears_a_siblings_name_changes_nothing() {
    needs_root!("to run a mail system");
    let mut gossip = Gossip::new();
    // The busy sibling is said to be available: who believes it starts nobody.
    let forged = gossip.sibling.report(1);
    gossip.liar.write_status(&forged.encode());
    gossip.liar.wait_until_heard();
    gossip.clients.push(Client::connect(&gossip.address));
    let next = gossip.puppets.next_within(Duration::from_secs(1));
    if ours_promises("a child speaks only for itself") {
        assert!(next.is_some(), "a child for the next client");
        gossip.sibling.finish_client();
    } else {
        assert!(next.is_none(), "the original does not believe it");
    }
}

#[test]
fn a_report_of_an_earlier_generation_changes_nothing() {
    needs_root!("to run a mail system");
    let mut gossip = Gossip::new();
    let mut stale = gossip.liar.report(1);
    stale.generation -= 1;
    gossip.liar.write_status(&stale.encode());
    gossip.expect_sibling_is_heard();
}
