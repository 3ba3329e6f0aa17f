//! The process has no free descriptor.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::process::Process;
use testkit::puppet_service::PuppetService;
use testkit::run::run;
use testkit::vitals::{Vitals, expect_rest};
use testkit::{is_original, needs_ours, needs_root, test};

use crate::lines::Line;
use crate::logging::start_with_syslog;

/// The log line must tell the operator what to do.
const ADVICE: &str = "Too many open files: raise the limit on descriptors";

/// Limits a running master to this number of additional descriptors; dropping it lifts the limit.
struct Exhausted {
    master: Process,
    former: u64,
}

impl Exhausted {
    #[track_caller]
    fn but(master: Process, free: usize) -> Self {
        let open = master.descriptors();
        let closed = (0..).filter(|number| !open.contains_key(number));
        let limit = closed.take(free + 1).last().expect("a number");
        let exhausted = Self {
            master,
            former: master.limit("Max open files"),
        };
        exhausted.limit(limit.try_into().expect("a limit"));
        exhausted
    }

    fn end(self) {
        self.limit(self.former);
    }

    #[track_caller]
    fn limit(&self, limit: u64) {
        let mut command = Command::new("prlimit");
        command.arg(format!("--pid={}", self.master.0));
        run(command.arg(format!("--nofile={limit}:")), SOON).expect_success();
    }
}

/// Running children continue to serve. Failures are logged, and their clients are served later.
#[test]
fn a_master_without_free_descriptors_serves_and_says_what_it_cannot() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let used = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let fresh = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.set("service_throttle_time", "1s");
    postfix.start();
    // The master also has what a child's descriptor 2 is the other end of, when it is free.
    let (client, first) = used.serve();
    drop(client);
    first.exit(0);
    let (_client, mut busy) = used.serve();
    let vitals = Vitals::of(&postfix);

    // A child needs two of the master's descriptors, and a third one while it is started. Last words
    // have none left.
    let exhausted = Exhausted::but(postfix.master_process(), 3);
    busy.finish_client();
    let _client = used.connect();
    busy.take_client();
    let (client, puppet) = used.serve();
    let mut waiting = fresh.connect();
    if !is_original() {
        // The original has opened the descriptors for its children in advance, for all services.
        Line::SpawnFailed.wait(&postfix, &["service \"b\"", ADVICE]);
        expect_rest(postfix.master_process(), Duration::from_millis(700));
    }
    exhausted.end();
    let mut late = fresh.next();
    late.take_client();
    late.tell("write hello");
    assert_eq!(waiting.line(), "hello");

    drop((client, waiting));
    puppet.exit(0);
    late.exit(0);
    // Services that have had children release the descriptors that they keep for others.
    postfix.reload();
    let (_client, _puppet) = used.serve();
    vitals.expect_again(&postfix);
}

/// "If anything is wrong, it logs every problem and [...] serves on as before."
#[test]
fn a_reload_that_finds_no_descriptor_free_changes_nothing() {
    needs_root("to run a master");
    differs(
        "A reload that finds no descriptor free does not end a running mail system.",
        Observed {
            ours: "a line says which limit to raise, and the next reload is done",
            original: "the master exits",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let (mut client, mut busy) = service.serve();
            service.serve_and_exit(1);
            let vitals = Vitals::of(postfix);
            let master = postfix.master_process();
            let exhausted = Exhausted::but(master, 0);
            postfix.hang_up();
            let failed = "reload failed and changed nothing";
            until(SOON, "an end, of the reload or the master", || {
                !master.runs() || !postfix.log_lines(failed).is_empty()
            });
            if !master.runs() {
                return "the master exits";
            }
            postfix.wait_for_log(ADVICE);
            busy.tell("write hello");
            assert_eq!(client.line(), "hello");
            exhausted.end();
            let (_client, next) = service.serve();
            next.exit(0);
            vitals.expect_again(postfix);
            postfix.reload();
            busy.wait_for_end();
            "a line says which limit to raise, and the next reload is done"
        },
    );
}

/// If a reload cannot reopen the log, the old one stays open.
#[test]
fn a_reload_that_takes_the_last_descriptor_leaves_the_log_open() {
    needs_root("to make a mount namespace");
    needs_ours("the original exits");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let reader = start_with_syslog(&mut postfix);
    reader.wait_for("daemon started -- version ");
    let exhausted = Exhausted::but(postfix.master_process(), 1);
    PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.write_configuration();
    postfix.hang_up();
    reader.wait_for("reload -- version ");
    let _client = service.connect();
    reader.wait_for(ADVICE);
    exhausted.end();
}

/// "A master needs some 270 descriptors and one for each listener."
#[test]
fn a_master_that_may_not_have_the_descriptors_that_it_needs_does_not_start() {
    needs_root("to start a master");
    let mut postfix = Instance::bare();
    for number in 0..330 {
        postfix.service(&format!("s{number} unix - - n - - puppet"));
    }
    postfix.write_configuration();
    for limit in [100, 300] {
        let option = format!("--nofile={limit}:{limit}");
        let mut command = postfix.under(Path::new("prlimit"), &[&option]);
        let refused = run(command.arg("-w"), SOON).expect_failure();
        let said = refused.stderr + &postfix.log();
        if !is_original() {
            assert!(said.contains("ulimit -n"), "{limit}: {said}");
        }
    }
    postfix.start();
}
