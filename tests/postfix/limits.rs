//! Process limits, stress and throttling.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::instance::{Instance, SOON};
use crate::common::network::{REMOTE, in_own_network};
use crate::common::poll::{stays, until};
use crate::common::ports::Port;
use crate::common::puppet::{Puppet, Puppets, example};
use crate::common::run::run;
use crate::common::{is_original, skip};
use crate::needs_root;

const AT_LIMIT: &str = "has reached its process limit";

fn stress(puppet: &Puppet) -> &str {
    let mut options = puppet.arguments.iter();
    let value = options.find_map(|text| text.strip_prefix("stress="));
    value.expect("-o stress=")
}

/// A service for remote clients with two processes, and both of them busy.
struct Busy {
    postfix: Instance,
    puppets: Puppets,
    address: String,
    children: Vec<(Client, Puppet)>,
}

impl Busy {
    fn new(mut postfix: Instance) -> Self {
        let puppets = Puppets::new(&postfix, "puppets");
        let address = format!("{REMOTE}:{}", postfix.port());
        postfix.set("inet_interfaces", format!("127.0.0.1, {REMOTE}"));
        postfix.service(&format!(
            "{address} inet n - n - 2 puppet {}",
            puppets.arguments()
        ));
        postfix.start();
        let mut busy = Self {
            postfix,
            puppets,
            address,
            children: Vec::new(),
        };
        // The first child is below the limit.
        busy.one_more("");
        // The second reaches it: the first is told to leave, and ends when its client does.
        busy.one_more("yes");
        let (client, first) = busy.children.remove(0);
        drop(client);
        first.wait_for_end();
        // The third takes the first's place, and now nobody can take another client.
        busy.one_more("yes");
        busy
    }

    /// A new client needs a new child, which is told whether there is stress.
    #[track_caller]
    fn one_more(&mut self, expected: &str) {
        let client = Client::connect(&self.address);
        let mut puppet = self.puppets.next();
        assert_eq!(
            stress(&puppet),
            expected,
            "stress at {:?}",
            puppet.arguments
        );
        puppet.take_client();
        self.children.push((client, puppet));
    }

    /// All children leave.
    fn clear(&mut self) {
        for (client, puppet) in self.children.drain(..) {
            drop(client);
            puppet.exit(0);
        }
        let rest = || self.postfix.children_named("puppet");
        until(SOON, "all children to be reaped", || rest().is_empty());
    }
}

#[test]
fn a_service_at_its_limit_warns_once_and_tells_its_children_of_stress() {
    needs_root!("to run a mail system");
    in_own_network(|| {
        let mut busy = Busy::new(Instance::new());
        let warning = busy.postfix.wait_for_log(AT_LIMIT);
        let (address, limit) = (busy.address.clone(), "process limit \"2\"");
        assert!(warning.contains(limit), "{warning}");
        assert!(
            warning.contains(&format!("service \"{address}\" (")),
            "{warning}"
        );
        // What to do about it follows.
        busy.postfix.wait_for_log("in master.cf");
        busy.postfix.wait_for_log("STRESS_README");

        // Available and busy again: at the limit a second time.
        let (_, puppet) = &mut busy.children[0];
        puppet.finish_client();
        busy.children[0].0 = Client::connect(&address);
        busy.children[0].1.take_client();
        // Its end is seen after its reports; so when its successor runs, those have been read.
        let (client, puppet) = busy.children.remove(0);
        puppet.exit(0);
        drop(client);
        busy.one_more("yes");
        assert_eq!(busy.postfix.log_lines(AT_LIMIT).len(), 1, "warnings");
    });
}

/// A master of ours whose clock can be turned.
struct Clock {
    file: PathBuf,
}

impl Clock {
    fn install(postfix: &mut Instance) -> Self {
        postfix.use_master(&example("turned_clock"));
        let file = postfix.path().join("clock");
        std::fs::write(&file, "0").expect("a clock");
        postfix.environment("MASTER_CLOCK_FILE", file.display());
        Self { file }
    }

    fn turn(&self, postfix: &Instance, seconds: u32) {
        std::fs::write(&self.file, seconds.to_string()).expect("a clock");
        postfix.master_process().signal(Signal::SIGCHLD);
    }
}

#[test]
fn stress_ends_a_thousand_seconds_after_the_limit_was_reached_last() {
    needs_root!("to run a mail system");
    if is_original() {
        return skip("the original's clock cannot be turned");
    }
    in_own_network(|| {
        let mut postfix = Instance::new();
        let clock = Clock::install(&mut postfix);
        let mut busy = Busy::new(postfix);
        busy.postfix.wait_for_log(AT_LIMIT);
        busy.clear();

        clock.turn(&busy.postfix, 990);
        busy.one_more("yes");
        busy.clear();
        clock.turn(&busy.postfix, 1010);
        busy.one_more("");
        // And at the limit again, it all begins anew.
        busy.one_more("yes");
        let (client, first) = busy.children.remove(0);
        drop(client);
        first.wait_for_end();
        busy.one_more("yes");
        until(SOON, "a second warning", || {
            busy.postfix.log_lines(AT_LIMIT).len() == 2
        });
    });
}

#[test]
fn a_service_for_local_clients_only_knows_no_stress() {
    needs_root!("to run a mail system");
    let mut postfix = Instance::new();
    let puppets = Puppets::new(&postfix, "puppets");
    let address = postfix.address();
    let line = format!("{address} inet n - n - 2 puppet {}", puppets.arguments());
    postfix.service(&line);
    postfix.start();
    let mut children = Vec::new();
    for _ in 0..2 {
        let client = Client::connect(&address);
        let mut puppet = puppets.next();
        let arguments = &puppet.arguments;
        assert!(!arguments.iter().any(|text| text.starts_with("stress=")));
        puppet.take_client();
        children.push((client, puppet));
    }
    // A third client waits until one of the two is done.
    let mut waiting = Client::connect(&address);
    let (_, puppet) = &mut children[0];
    puppet.finish_client();
    puppet.take_client();
    puppet.tell("write hello");
    assert_eq!(waiting.line(), "hello");
    assert_eq!(postfix.children_named("puppet").len(), 2, "children");
    assert_eq!(postfix.log_lines(AT_LIMIT), [""; 0]);
}

#[test]
fn a_service_with_one_process_serves_one_client_after_the_other() {
    needs_root!("to run a mail system");
    let port = Port::reserve();
    let address = format!("127.0.0.1:{port}");
    let mut postfix = Instance::new();
    let puppets = Puppets::new(&postfix, "puppets");
    let line = format!("{address} inet n - n - 1 puppet {}", puppets.arguments());
    postfix.service(&line);
    postfix.start();
    let _first = Client::connect(&address);
    let mut puppet = puppets.next();
    puppet.take_client();
    let mut second = Client::connect(&address);
    stays(Duration::from_millis(200), "one child", || {
        postfix.children_named("puppet").len() == 1
    });
    puppet.exit(0);
    let mut next = puppets.next();
    next.take_client();
    next.tell("write hello");
    assert_eq!(second.line(), "hello");
}

#[test]
fn a_service_whose_children_die_at_once_is_throttled_and_comes_back() {
    needs_root!("to run a mail system");
    let mut postfix = Instance::new();
    let puppets = Puppets::new(&postfix, "puppets");
    let address = postfix.address();
    postfix.install_script("broken", "exit 7");
    postfix.set("service_throttle_time", "2s");
    let line = format!("{address} inet n - n - - broken {}", puppets.arguments());
    postfix.service(&line);
    postfix.start();
    let mut client = Client::connect(&address);

    let path = postfix.daemons().join("broken").display().to_string();
    let failures = || postfix.log_lines("exit status 7").len();
    until(SOON, "the first failure", || failures() == 1);
    let first = Instant::now();
    let failure = postfix.wait_for_log("exit status 7");
    assert!(
        failure.contains(&format!("process {path} pid ")),
        "{failure}"
    );
    postfix.wait_for_log(&format!("{path}: bad command startup -- throttling"));
    until(SOON, "another attempt", || failures() == 2);
    // Clocks that count whole seconds may come up to one early.
    let pause = first.elapsed();
    assert!(
        pause > Duration::from_millis(900),
        "throttled for {pause:?}"
    );

    // When the command is repaired, the client that still waits is served.
    let mut copy = Command::new("cp");
    copy.arg("--remove-destination")
        .arg(postfix.daemons().join("puppet"));
    run(copy.arg(&path), SOON).expect_success();
    let mut puppet = puppets.next();
    puppet.take_client();
    puppet.tell("write hello");
    assert_eq!(client.line(), "hello");
}

#[test]
fn a_child_that_fails_after_it_has_served_throttles_nothing() {
    needs_root!("to run a mail system");
    let mut postfix = Instance::new();
    let puppets = Puppets::new(&postfix, "puppets");
    let address = postfix.address();
    let line = format!("{address} inet n - n - - puppet {}", puppets.arguments());
    postfix.service(&line);
    postfix.start();
    for (end, said) in [
        ("exit 9", "exit status 9"),
        ("die SIGKILL", "killed by signal 9"),
    ] {
        let client = Client::connect(&address);
        let mut puppet = puppets.next();
        puppet.take_client();
        drop(client);
        puppet.finish_client();
        puppet.wait_until_heard();
        let pid = puppet.process.0;
        match end.split_once(' ') {
            Some(("exit", _)) => puppet.exit(9),
            _ => puppet.die("SIGKILL"),
        }
        postfix.wait_for_log(&format!("pid {pid} {said}"));
    }
    // The next client is served at once, where a throttled service would wait for a minute.
    let _client = Client::connect(&address);
    puppets.next();
    assert_eq!(postfix.log_lines("throttling"), [""; 0]);
}
