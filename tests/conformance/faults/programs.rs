//! A service's program is replaced or removed, as during an upgrade.

use std::fs;
use std::process::Command;

use testkit::instance::{Instance, SOON};
use testkit::programs::example;
use testkit::puppet_service::{PuppetService, one_service};
use testkit::run::run;
use testkit::vitals::Vitals;
use testkit::{needs_root, test};

use crate::lines::Line;

/// Children of the old program continue; the next child runs the new program.
#[test]
fn a_program_that_is_replaced_is_that_of_the_next_child() {
    needs_root("to run a master");
    let (postfix, service) = one_service("unix - - n - -");
    let (mut client, mut old) = service.serve();
    service.serve_and_exit(1);
    let vitals = Vitals::of(&postfix);
    let program = postfix.daemons().join("puppet");
    let new = program.with_extension("new");
    // Copied by cp(1): a program that is open for writing cannot be run.
    let mut copy = Command::new("cp");
    run(copy.arg("-a").arg(&program).arg(&new), SOON).expect_success();
    fs::rename(&new, &program).expect("another program");
    let (_client, next) = service.serve();
    assert_eq!(next.process.executable(), program);
    let former = old.process.executable();
    assert!(former.ends_with("puppet (deleted)"), "{former:?}");
    old.tell("write hello");
    assert_eq!(client.line(), "hello");
    next.exit(0);
    vitals.expect_again(&postfix);
    assert_eq!(postfix.log_lines("warning: "), [""; 0]);
}

/// "exec PROGRAM: REASON"; when the program is back, the waiting clients are served.
#[test]
fn a_program_that_is_removed_throttles_its_service_until_it_is_back() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let other = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    other.set_command(&mut postfix, "unix - - n - -", "another");
    postfix.install(&example("puppet"), "another");
    postfix.set("service_throttle_time", "1s");
    postfix.start();
    let (mut client, mut busy) = service.serve();
    let (_other, _puppet) = other.serve();
    service.serve_and_exit(1);
    other.serve_and_exit(1);
    let vitals = Vitals::of(&postfix);
    let program = postfix.daemons().join("puppet");
    let away = program.with_extension("away");

    fs::rename(&program, &away).expect("no program");
    let mut waiting = service.connect();
    let path = program.display().to_string();
    let reason = postfix.wait_for_log(&format!("exec {path}"));
    assert!(reason.contains("No such file or directory"), "{reason}");
    Line::BadStartup.wait(&postfix, &[&path]);
    busy.tell("write hello");
    assert_eq!(client.line(), "hello");
    let (_client, second) = other.serve();
    second.exit(0);

    fs::rename(&away, &program).expect("the program");
    let mut late = service.next();
    late.take_client();
    late.tell("write hello");
    assert_eq!(waiting.line(), "hello");
    late.exit(0);
    vitals.expect_again(&postfix);
}
