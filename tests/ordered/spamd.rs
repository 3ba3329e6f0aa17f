//! SpamAssassin's children under our master, with its own client, set up as the manual describes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use testkit::instance::SOON;
use testkit::poll::until;
use testkit::{skip, test};

use crate::pool::Pool;
use crate::pool::needs_module;

/// The Generic Test for Unsolicited Bulk Email, as the body of a message.
const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";
const ORDINARY: &str = "Shall we have lunch at noon?";

fn message(body: &str) -> String {
    format!(
        "From: <a@example.org>\nTo: <b@example.org>\nSubject: Lunch\n\
         Date: Sat, 21 Nov 2026 10:00:00 +0000\nMessage-ID: <lunch.1@mail.example.org>\n\n{body}\n"
    )
}

/// Runs spamc(1) on a message, with these options.
fn spamc(pool: &Pool, options: &[&str], message: &str) -> Output {
    let (host, port) = pool.address.split_once(':').expect("a port");
    let mut child = Command::new("/usr/bin/spamc")
        // Without -x, spamc returns the message unchanged if it is not checked.
        .args(["-x", "-d", host, "-p", port])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spamc");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(message.as_bytes()).expect("a reader");
    drop(stdin);
    child.wait_with_output().expect("an end")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A pool of SpamAssassin's children that are ready; skips the test unless spamc is installed.
fn ready_pool() -> Pool {
    needs_module();
    if !Path::new("/usr/bin/spamc").exists() {
        skip("needs Debian's package spamc");
    }
    let settings = "accept = \"ordered\"\nmax_idle = 2\n";
    let pool = Pool::new(3, "services/examples/spamd-child.pl", "nobody", settings);
    // Reading the rules takes a long time on a busy machine.
    until(3 * SOON, "two idle children", || {
        let children = pool.children();
        children.len() == 2 && children.iter().all(|child| child.waits())
    });
    pool
}

#[test]
fn spamc_gets_verdicts_for_gtube_and_for_ordinary_mail() {
    let pool = ready_pool();
    let spam = text(&spamc(&pool, &[], &message(GTUBE)));
    assert!(spam.contains("\nX-Spam-Flag: YES\n"), "{spam}");
    assert!(spam.contains("tests=GTUBE"), "{spam}");
    let ham = text(&spamc(&pool, &[], &message(ORDINARY)));
    assert!(ham.contains("\nX-Spam-Status: No, score="), "{ham}");
    assert!(!ham.contains("X-Spam-Flag"), "{ham}");
    assert!(ham.ends_with(&format!("\n\n{ORDINARY}\n")), "{ham}");
}

#[test]
fn spamc_can_check_ask_for_symbols_and_ping() {
    let pool = ready_pool();
    let check = spamc(&pool, &["-c"], &message(GTUBE));
    assert_eq!(check.status.code(), Some(1), "spam");
    assert!(text(&check).ends_with("/5.0\n"), "{check:?}");
    assert_eq!(
        spamc(&pool, &["-c"], &message(ORDINARY)).status.code(),
        Some(0)
    );
    assert!(text(&spamc(&pool, &["-y"], &message(GTUBE))).contains("GTUBE"));
    let headers = text(&spamc(&pool, &["--headers"], &message(ORDINARY)));
    assert!(headers.contains("X-Spam-Status: No"), "{headers}");
    assert!(spamc(&pool, &["-K"], "").status.success());
}
