//! Upgrades while real Postfix daemons receive and deliver mail.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use master::status::Document;
use nix::sys::signal::Signal;
use testkit::instance::{Instance, SOON};
use testkit::operator::read_document_in;
use testkit::poll::until;
use testkit::run::Running;
use testkit::{needs_root, test};

use crate::stage::is_long;

/// Connections at a time, and messages that one smtp-source(1) sends.
const CONNECTIONS: u32 = 20;
const MESSAGES: u32 = 200;
/// The time from one upgrade to the next.
const PERIOD: Duration = Duration::from_secs(1);

fn upgrades() -> u32 {
    if is_long() { 60 } else { 10 }
}

fn read_document(postfix: &Instance) -> Document {
    read_document_in(&postfix.queue())
}

fn children(document: &Document) -> BTreeSet<i32> {
    let children = document.services.iter().flat_map(|s| &s.children);
    children.map(|child| child.pid).collect()
}

/// Mail that is sent again and again.
struct Mail {
    source: Running,
    sent: u32,
}

impl Mail {
    fn begin(postfix: &Instance) -> Self {
        let source = Running::start(&mut postfix.smtp_source(MESSAGES, CONNECTIONS));
        Self {
            source,
            sent: MESSAGES,
        }
    }

    /// Sends more if all was sent.
    fn go_on(&mut self, postfix: &Instance) {
        if self.source.has_ended() {
            let next = Self::begin(postfix).source;
            let before = std::mem::replace(&mut self.source, next);
            // It ends with an error if a connection is refused or breaks.
            before.finish(SOON).expect_success();
            self.sent += MESSAGES;
        }
    }
}

#[test]
fn no_message_is_lost_or_refused_by_an_upgrade_each_second() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    postfix.unwatched("the services and their children are counted");
    // No child leaves because it has served long enough.
    postfix
        .set("max_use", 1_000_000)
        .set("max_idle", "1h")
        .start();
    let before = read_document(&postfix);
    let mut mail = Mail::begin(&postfix);
    for n in 1..=upgrades() {
        let begin = Instant::now();
        let children_before = children(&read_document(&postfix));
        postfix.master_process().signal(Signal::SIGUSR2);
        until(SOON, "an upgrade, and the next second", || {
            mail.go_on(&postfix);
            read_document(&postfix).upgrades == n && begin.elapsed() >= PERIOD
        });
        let children = children(&read_document(&postfix));
        let gone: Vec<_> = children_before.difference(&children).collect();
        assert!(gone.is_empty(), "{gone:?} have gone: {}", postfix.log());
    }
    let Mail { source, sent } = mail;
    source.finish(SOON * 3).expect_success();
    postfix.wait_for_delivery(sent as usize, SOON * 3);
    let after = until(SOON, "each message to be counted as a client", || {
        let document = read_document(&postfix);
        let mut services = document.services.iter();
        let smtpd = services.find(|service| service.kind == "inet");
        let connections = smtpd.map(|service| service.connections);
        (connections == Some(u64::from(sent))).then_some(document)
    });
    assert_eq!((after.pid, after.upgrades), (before.pid, upgrades()));
    for service in &after.services {
        assert_eq!(
            (service.ended, service.failed, service.killed),
            (0, 0, 0),
            "{}",
            service.name
        );
        assert_eq!(
            service.started,
            u64::from(service.total),
            "{}",
            service.name
        );
    }
    let log = postfix.log();
    for words in ["warning: ", "error: ", "fatal: ", "panic: "] {
        // The machine stood still for a moment.
        let is_clock = |line: &str| {
            line.contains("file system clock is") || line.contains("resetting file time stamps")
        };
        let lines = log.lines().filter(|line| line.contains(words));
        let lines: Vec<_> = lines.filter(|line| !is_clock(line)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
    assert_eq!(
        fs::read_dir(postfix.mailbox()).expect("mail").count(),
        sent as usize
    );
}
