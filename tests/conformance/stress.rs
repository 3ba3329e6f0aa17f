//! Stress mode.

use testkit::client::Client;
use testkit::clock::Clock;
use testkit::instance::{Instance, SOON};
use testkit::network::{REMOTE, in_own_network};
use testkit::poll::until;
use testkit::puppet::Puppet;
use testkit::puppet_service::{PuppetService, one_service};
use testkit::{needs_ours, needs_root, test};

use crate::lines::Line;

fn stress(puppet: &Puppet) -> &str {
    let mut options = puppet.arguments.iter();
    let value = options.find_map(|text| text.strip_prefix("stress="));
    value.expect("-o stress=")
}

/// A service for remote clients with a limit of two processes, both of them busy.
struct Busy {
    postfix: Instance,
    service: PuppetService,
    children: Vec<(Client, Puppet)>,
}

impl Busy {
    fn new(mut postfix: Instance, name: &str, columns: &str) -> Self {
        let service = PuppetService::add(&mut postfix, name, columns);
        postfix.start();
        let mut busy = Self {
            postfix,
            service,
            children: Vec::new(),
        };
        // The first child is below the limit.
        busy.one_more("");
        // The second child reaches the limit: the first is told to leave, and ends after its
        // client.
        busy.one_more("yes");
        let (client, first) = busy.children.remove(0);
        drop(client);
        first.wait_for_end();
        // The third child takes the first one's place, and now no child is available.
        busy.one_more("yes");
        busy
    }

    /// Uses type pass, which counts as remote.
    fn pass(postfix: Instance) -> Self {
        Self::new(postfix, "a", "pass - - n - 2")
    }

    /// Connects a client, and checks whether its new child is told of stress.
    #[track_caller]
    fn one_more(&mut self, expected: &str) {
        let (client, puppet) = self.service.serve();
        let given = puppet.given();
        assert_eq!(stress(&puppet), expected, "{given}");
        self.children.push((client, puppet));
    }

    /// Ends all children.
    fn clear(&mut self) {
        for (client, puppet) in self.children.drain(..) {
            drop(client);
            puppet.exit(0);
        }
        let rest = || self.postfix.children_named("puppet");
        until(SOON, "all children to be reaped", || rest().is_empty());
    }
}

/// "`service "NAME" (CANONICAL) has reached its process limit "N": ...` and the advice after it",
/// "three warnings, at most once per 1000 s"
#[test]
fn a_service_at_its_limit_warns_once_and_tells_its_children_of_stress() {
    needs_root("to run a master");
    in_own_network(|| {
        let mut postfix = Instance::bare();
        let address = format!("{REMOTE}:{}", postfix.port());
        postfix.set("inet_interfaces", format!("127.0.0.1, {REMOTE}"));
        let mut busy = Busy::new(postfix, &address, "inet n - n - 2");
        let name = format!("warning: service \"{address}\" (");
        Line::LimitReached.wait(&busy.postfix, &[name.as_str(), "process limit \"2\":"]);
        // The advice follows.
        busy.postfix.wait_for_log("in master.cf");
        busy.postfix.wait_for_log("STRESS_README");

        // One child becomes available and busy again: the limit is reached a second time.
        let (client, puppet) = &mut busy.children[0];
        puppet.finish_client();
        *client = busy.service.connect();
        puppet.take_client();
        // A child's end is processed after its reports, so when the next child runs, they have been
        // read.
        let (client, puppet) = busy.children.remove(0);
        puppet.exit(0);
        drop(client);
        busy.one_more("yes");
        assert_eq!(Line::LimitReached.count(&busy.postfix), 1, "warnings");
    });
}

/// "on entry, existing children are told to leave by renewing the status channel"
#[test]
fn idle_children_leave_when_stress_begins() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("pass - - n - 3");
    let (_first, busy) = service.serve();
    let (_second, mut idle) = service.serve();
    idle.tell("hangup");
    assert_eq!((stress(&busy), stress(&idle)), ("", ""));
    // The channel belongs to the service, so all children are told, and only when the limit is
    // reached.
    let _third = service.connect();
    let last = service.next();
    assert_eq!(stress(&last), "yes");
    idle.wait_for_end();
    busy.wait_for_end();
    assert!(last.process.runs(), "the child that knows of stress");
}

/// "existing children are told to leave": once, when stress begins.
#[test]
fn children_that_know_of_stress_stay() {
    needs_root("to run a master");
    let mut busy = Busy::pass(Instance::bare());
    // Both were started at the limit, and more are started during stress mode.
    for _ in 0..3 {
        let (client, puppet) = busy.children.remove(0);
        puppet.exit(0);
        drop(client);
        busy.one_more("yes");
        assert!(
            busy.children
                .iter()
                .all(|(_, puppet)| puppet.process.runs())
        );
    }
}

/// "A throttled service stays throttled, and stress mode goes on."
#[test]
fn stress_goes_on_over_a_reload() {
    needs_root("to run a master");
    let mut busy = Busy::pass(Instance::bare());
    busy.postfix.reload();
    busy.children.clear();
    until(SOON, "the children to be reaped", || {
        busy.postfix.children_named("puppet").is_empty()
    });
    busy.one_more("yes");
}

/// "for which maxproc is above 1"
#[test]
fn a_service_with_one_process_knows_no_stress() {
    needs_root("to run a master");
    let (postfix, service) = one_service("pass - - n - 1");
    let (_client, puppet) = service.serve();
    let _waiting = service.connect();
    service.expect_no_child();
    assert!(!puppet.given().contains("stress"));
    assert_eq!(postfix.log_lines(Line::StressBegins.ours()), [""; 0]);
}

/// "(any address that is not loopback, and type pass)"
#[test]
fn a_service_for_local_clients_only_knows_no_stress() {
    needs_root("to run a master");
    let (postfix, service) = one_service("inet n - n - 2");
    let mut children = [service.serve(), service.serve()];
    // A third client waits until a child is available.
    let mut waiting = service.connect();
    let (_, puppet) = &mut children[0];
    assert!(!puppet.given().contains("stress"));
    puppet.finish_client();
    puppet.take_client();
    puppet.tell("write hello");
    assert_eq!(waiting.line(), "hello");
    assert_eq!(postfix.children_named("puppet").len(), 2, "children");
}

/// "SERVICE: stress mode begins": the original says nothing of it.
#[test]
fn the_begin_of_stress_is_logged() {
    needs_root("to run a master");
    needs_ours("the original says nothing of it");
    let busy = Busy::pass(Instance::bare());
    Line::StressBegins.wait(&busy.postfix, &["service \"a\" (", "limit \"2\""]);
    assert_eq!(Line::StressBegins.count(&busy.postfix), 1);
}

/// "stress mode for 1000 s from the last such moment"
#[test]
fn stress_ends_a_thousand_seconds_after_the_limit_was_reached_last() {
    needs_root("to run a master");
    needs_ours("the original's clock cannot be turned");
    let mut postfix = Instance::bare();
    let clock = Clock::install(&mut postfix);
    let mut busy = Busy::pass(postfix);
    Line::LimitReached.wait(&busy.postfix, &[""; 0]);
    busy.clear();

    clock.turn(&busy.postfix, 990);
    busy.one_more("yes");
    busy.clear();
    clock.turn(&busy.postfix, 1010);
    Line::StressEnds.wait(&busy.postfix, &["service \"a\" ("]);
    busy.one_more("");
    // When the limit is reached again, stress mode begins again.
    busy.one_more("yes");
    let (client, first) = busy.children.remove(0);
    drop(client);
    first.wait_for_end();
    busy.one_more("yes");
    until(SOON, "a second warning", || {
        Line::LimitReached.count(&busy.postfix) == 2
    });
}
