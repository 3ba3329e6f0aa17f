//! The pipe that all children share. Some of Postfix's daemons use it to slow others down (flow
//! control).

use testkit::instance::Instance;
use testkit::puppet_service::{PuppetService, one_service};
use testkit::{needs_root, test};

/// "3 read and 4 write end of one non-blocking pipe shared by all children (flow control)"
#[test]
fn what_one_child_writes_another_of_any_service_reads() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let a = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let b = PuppetService::add(&mut postfix, "b", "unix - - n - -");
    postfix.start();
    let [(_one, mut writer), (_two, mut reader)] = [&a, &b].map(PuppetService::serve);
    writer.tell("send-to 4 68656c6c6f");
    assert_eq!(reader.tell("receive-from 3"), "68656c6c6f");
}

/// The pipe is non-blocking, and full for all processes at the same time.
#[test]
fn a_full_pipe_stops_neither_children_nor_the_master() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - -");
    let (_one, mut writer) = service.serve();
    let written: usize = writer.tell("fill 4").parse().expect("a number");
    assert!(written > 0);
    assert_eq!(writer.tell("fill 4"), "0");
    let (_two, mut other) = service.serve();
    assert_eq!(other.tell("fill 4"), "0", "for another child");
    postfix.reload();
    service.serve();
}

/// The pipe belongs to the master and outlives every child.
#[test]
fn what_was_written_is_there_for_later_children_also_after_a_reload() {
    needs_root("to run a master");
    let (mut postfix, service) = one_service("unix - - n - -");
    let (_one, mut writer) = service.serve();
    writer.tell("send-to 4 78797a");
    writer.exit(0);
    postfix.reload();
    let (_two, mut reader) = service.serve();
    assert_eq!(reader.tell("receive-from 3"), "78797a");
}
