//! Reports on descriptor 5, and their limits.

use std::path::Path;

use testkit::client::Client;
use testkit::clock::Clock;
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::puppet::{Puppet, hex};
use testkit::puppet_service::{PuppetService, one_service};
use testkit::vitals::kinds_at_rest;
use testkit::{is_original, needs_ours, needs_root, test};

use crate::lines::Line;

/// A busy child that sends wrong reports, its busy sibling, and a busy child of another service.
struct BadReports<'a> {
    postfix: &'a mut Instance,
    service: PuppetService,
    liar: Puppet,
    sibling: Puppet,
    stranger: Puppet,
    clients: Vec<Client>,
    others: Vec<Puppet>,
}

impl<'a> BadReports<'a> {
    fn new(postfix: &'a mut Instance) -> Self {
        let service = PuppetService::add(postfix, "a", "unix - - n - -");
        let strangers = PuppetService::add(postfix, "b", "unix - - n - -");
        postfix.start();
        let [liar, sibling, stranger] = [&service, &service, &strangers].map(PuppetService::serve);
        Self {
            postfix,
            service,
            clients: vec![liar.0, sibling.0, stranger.0],
            liar: liar.1,
            sibling: sibling.1,
            stranger: stranger.1,
            others: Vec::new(),
        }
    }

    /// The sibling's reports count: while it is available, no child is started for a client; once
    /// it is taken, one is.
    #[track_caller]
    fn expect_sibling_is_heard(&mut self) {
        self.sibling.finish_client();
        self.sibling.wait_until_heard();
        let mut client = self.service.connect();
        self.service.expect_no_child();
        self.sibling.take_client();
        self.sibling.tell("write hello");
        assert_eq!(client.line(), "hello");
        self.clients.push(client);

        let (client, child) = self.service.serve();
        self.clients.push(client);
        self.others.push(child);
    }

    /// The result of a wrong report: either the master complains and continues, or it ends.
    #[track_caller]
    fn aftermath(&mut self, complaint: &str) -> &'static str {
        let master = self.postfix.master_process();
        let died = until(SOON, "a complaint or the end", || {
            let died = !master.runs();
            (died || !self.postfix.log_lines(complaint).is_empty()).then_some(died)
        });
        if died {
            return "the master dies";
        }
        self.expect_sibling_is_heard();
        "a warning, and nothing changes"
    }
}

/// "A report of a wrong length [...] changes nothing."
#[test]
fn short_and_long_reports_change_nothing() {
    needs_root("to run a master");
    for length in [1, 5, 11, 13, 40] {
        let mut postfix = Instance::bare();
        let mut scene = BadReports::new(&mut postfix);
        scene.liar.write_status(&vec![0xff; length]);
        // Bytes that follow cannot turn garbage into a report.
        scene.liar.wait_until_heard();
        if is_original() {
            // A stream has no record boundaries, so the rest of a long report makes later ones
            // unreadable if they come quickly. That is a race; only the complaint is certain.
            scene.postfix.wait_for_log(Line::PartialReport.words());
        } else {
            let pid = scene.liar.process.0;
            let details = [format!("pid {pid}"), format!("{length} bytes")];
            Line::PartialReport.wait(scene.postfix, &details);
            scene.expect_sibling_is_heard();
        }
    }
}

/// Several reports in one write count.
#[test]
fn two_reports_in_one_write_both_count() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let mut scene = BadReports::new(&mut postfix);
    let both = [scene.liar.report(1), scene.liar.report(0)];
    scene
        .liar
        .write_status(&both.map(|one| one.encode()).concat());
    scene.liar.wait_until_heard();
    // A master that reads only the first one waits for the first child, which accepts no client.
    let (client, child) = scene.service.serve();
    scene.clients.push(client);
    scene.others.push(child);
}

/// "a child can speak only for itself"
#[test]
fn a_report_that_bears_another_services_child_changes_nothing() {
    needs_root("to run a master");
    differs(
        "A status report in the name of another service's child is ignored.",
        Observed {
            ours: "a warning, and nothing changes",
            original: "the master dies",
        },
        |postfix| {
            let mut scene = BadReports::new(postfix);
            let forged = scene.stranger.report(1);
            scene.liar.write_status(&forged.encode());
            scene.aftermath(Line::ForgedReport.ours())
        },
    );
}

/// "a child can speak only for itself"
#[test]
fn a_report_that_bears_a_siblings_name_changes_nothing() {
    needs_root("to run a master");
    differs(
        "A status report in the name of a sibling is ignored.",
        Observed {
            ours: "a child for the next client",
            original: "the next client waits for the busy sibling",
        },
        |postfix| {
            let mut scene = BadReports::new(postfix);
            let forged = scene.sibling.report(1);
            scene.liar.write_status(&forged.encode());
            scene.liar.wait_until_heard();
            scene.clients.push(scene.service.connect());
            if scene.service.starts_a_child() {
                "a child for the next client"
            } else {
                "the next client waits for the busy sibling"
            }
        },
    );
}

/// "whichever of its processes writes": a report of a child's own child counts as the child's.
#[test]
fn a_report_of_a_childs_own_child_is_the_childs() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let mut scene = BadReports::new(&mut postfix);
    let available = hex(&scene.liar.report(1).encode());
    scene.liar.tell(&format!("grandchild {available}"));
    scene.liar.wait_until_heard();
    scene.clients.push(scene.service.connect());
    scene.service.expect_no_child();
}

/// "A report [...] of an earlier generation [...] changes nothing."
#[test]
fn a_report_of_an_earlier_generation_changes_nothing() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let mut scene = BadReports::new(&mut postfix);
    let mut stale = scene.liar.report(1);
    stale.generation -= 1;
    scene.liar.write_status(&stale.encode());
    let details = [
        format!("pid {} ", scene.liar.process.0),
        format!("generation {}", stale.generation),
    ];
    Line::StaleReport.wait(scene.postfix, &details);
    scene.expect_sibling_is_heard();
}

/// "or with an unknown status changes nothing"
#[test]
fn an_unknown_status_changes_nothing() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let mut scene = BadReports::new(&mut postfix);
    let unknown = scene.liar.report(7);
    scene.liar.write_status(&unknown.encode());
    let pid = scene.liar.process.0.to_string();
    Line::UnknownStatus.wait(scene.postfix, &["7", pid.as_str()]);
    scene.expect_sibling_is_heard();
}

/// "Reports are gossip: a wrong pid [...] changes nothing."
#[test]
fn a_report_of_a_process_that_is_no_child_changes_nothing() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let mut scene = BadReports::new(&mut postfix);
    for pid in [1, 0, -1, i32::MAX] {
        let mut report = scene.liar.report(1);
        report.pid = pid;
        scene.liar.write_status(&report.encode());
    }
    scene.liar.wait_until_heard();
    scene.expect_sibling_is_heard();
}

/// A repeated report counts once.
#[test]
fn a_report_that_is_repeated_counts_once() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - -");
    let [(_one, mut first), (_two, mut second)] = [service.serve(), service.serve()];
    for _ in 0..3 {
        first.tell("report taken");
        second.tell("report taken");
    }
    for _ in 0..3 {
        first.tell("report available");
    }
    first.wait_until_heard();
    // One child is available, not three.
    let _three = service.connect();
    service.expect_no_child();
    first.take_client();
    let _four = service.connect();
    service.next();
}

/// "reports are read before the dead are reaped (a child that reported and exited must count as
/// used)"
#[test]
fn a_child_that_reports_and_fails_at_once_has_served() {
    needs_root("to run a master");
    needs_ours("under the original this is a race");
    let (postfix, service) = one_service("unix - - n - -");
    for _ in 0..20 {
        let (_client, mut puppet) = service.serve();
        puppet.send("report available\nexit 9");
        puppet.wait_for_end();
    }
    let _client = service.connect();
    service.next();
    assert_eq!(postfix.log_lines(Line::BadStartup.words()), [""; 0]);
}

/// "On descriptor 5 a child reports whether it can take a client": with more than one child
/// available, the master may read reports in batches.
#[test]
fn reports_count_also_where_there_are_children_to_spare() {
    needs_root("the master changes users");
    let (_postfix, service) = one_service("unix - - n - -");
    let served: Vec<_> = (0..4).map(|_| service.serve()).collect();
    let (clients, mut puppets): (Vec<_>, Vec<_>) = served.into_iter().unzip();
    drop(clients);
    for puppet in &mut puppets {
        puppet.finish_client();
        puppet.wait_until_heard();
    }
    // A few reports one after the other, and many at once.
    for times in [1, 40] {
        for puppet in &mut puppets {
            for _ in 0..times {
                puppet.tell("report available");
                puppet.tell("report taken");
            }
        }
        let (_client, mut next) = service.serve();
        next.tell("hangup");
        next.exit(0);
        puppets.iter_mut().for_each(|puppet| {
            puppet.tell("report available");
            puppet.wait_until_heard();
        });
    }
}

/// "A child that floods its channel must not keep the others waiting."
#[test]
fn a_child_that_floods_the_status_channel_delays_nobody() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let other = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.start();
    let (_client, mut puppet) = service.serve();
    let [taken, available] = [0, 1].map(|value| hex(&puppet.report(value).encode()));
    let flood = [available, taken]
        .map(|hex| format!("raw {hex}"))
        .join("\n");
    puppet.send(&vec![flood; 2000].join("\n"));
    let (_other, _child) = other.serve();
    assert!(puppet.process.runs());
}

/// A child that has closed its status channel is treated like others.
#[test]
fn a_child_that_closes_the_status_channel_harms_nobody() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let mut scene = BadReports::new(&mut postfix);
    scene.liar.tell("close 5");
    scene.expect_sibling_is_heard();
    scene.liar.exit(0);
    scene.clients.push(scene.service.connect());
    scene.service.next();
}

/// "A child has a status channel of its own."
#[test]
fn a_child_that_shuts_the_status_channel_down_ends_nobody() {
    needs_root("to run a master");
    differs(
        "A child that shuts the status channel down does not end the master.",
        Observed {
            ours: "the child leaves",
            original: "the master dies",
        },
        |postfix| {
            let mut scene = BadReports::new(postfix);
            let master = scene.postfix.master_process();
            scene.liar.send("shutdown 5");
            let liar = Path::new("/proc").join(scene.liar.process.0.to_string());
            // The original may have reaped the child before it reads the channel.
            until(
                SOON,
                "the liar's end to be heard of, or the master's",
                || !master.runs() || (!liar.exists() && master.is_idle()),
            );
            if !master.runs() {
                return "the master dies";
            }
            scene.expect_sibling_is_heard();
            "the child leaves"
        },
    );
}

/// "the next child of the service has its channel": a child cannot make the next one leave.
#[test]
fn a_child_that_stops_reading_the_status_channel_sends_no_other_away() {
    needs_root("to run a master");
    differs(
        "A child that stops reading the status channel sends no other child away.",
        Observed {
            ours: "the next child serves",
            original: "every other child leaves at once",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let (_client, mut former) = service.serve();
            former.send("stop-reading 5");
            former.wait_for_end();
            let mut client = service.connect();
            let mut next = service.next();
            if service.starts_a_child() {
                return "every other child leaves at once";
            }
            next.take_client();
            next.tell("write hello");
            assert_eq!(client.line(), "hello");
            "the next child serves"
        },
    );
}

/// A process that a former child has left behind has its channel, and reports only for that child.
#[test]
fn a_process_that_outlives_its_parent_does_not_speak_for_the_next_child() {
    needs_root("to run a master");
    let (_postfix, service) = one_service("unix - - n - -");
    let mut served = Vec::new();
    for _ in 0..5 {
        let (_client, mut former) = service.serve();
        let available = hex(&former.report(1).encode());
        former.tell(&format!("orphan {available}"));
        former.exit(0);
        served.push(service.serve());
        // The former child is not available, so a new one is started for this client.
        served.push(service.serve());
    }
    for (_, child) in &mut served {
        child.finish_client();
        child.wait_until_heard();
    }
}

/// "the next child of the service has its channel", and eight channels are kept for it.
#[test]
fn children_that_come_and_go_leave_few_descriptors_behind() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let descriptors = || {
        let _paused = postfix.pause_canary();
        let kinds = kinds_at_rest(postfix.master_process());
        kinds.values().sum::<usize>()
    };
    service.serve_and_exit(1);
    let before = descriptors();
    for _ in 0..5 {
        service.serve_and_exit(1);
        assert_eq!(descriptors(), before);
    }
    service.serve_and_exit(20);
    until(SOON, "the channels to be closed", || {
        descriptors() <= before + 2 * 7
    });
}

/// "At most ten such lines a minute are logged for each service."
#[test]
fn bad_reports_are_logged_ten_times_a_minute() {
    needs_root("to run a master");
    needs_ours("the original logs them all, and its clock cannot be turned");
    let mut postfix = Instance::bare();
    let clock = Clock::install(&mut postfix);
    let mut scene = BadReports::new(&mut postfix);
    for _ in 0..25 {
        scene.liar.write_status(b"garbage");
        scene.liar.wait_until_heard();
    }
    until(SOON, "ten lines", || {
        Line::PartialReport.count(scene.postfix) == 10
    });
    clock.turn(scene.postfix, 70);
    scene.liar.write_status(b"garbage");
    Line::Suppressed.wait(scene.postfix, &["15 more"]);
    assert_eq!(Line::PartialReport.count(scene.postfix), 11);
}
