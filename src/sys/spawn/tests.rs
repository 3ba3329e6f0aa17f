//! What a child finds, and what the master has to do with it until its exec.

use super::*;
use crate::sys::child::End;
use crate::sys::poll::wait_until_readable;
use crate::sys::{file, process, testing};
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, pipe2};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

/// No child is expected to take this long.
const SOON: Duration = Duration::from_secs(20);

/// The time of all starts.
const NOW: Duration = Duration::from_secs(100);

/// The slots are those of the whole process, so that each of these tests has one of its own.
fn in_own_process(test: &str) -> bool {
    let own = testing::in_own_process(&format!("sys::spawn::tests::{test}"));
    if own {
        // SAFETY: this process has one test, which owns nothing yet.
        unsafe { process::close_range(3, RawFd::MAX) };
    }
    own
}

fn shell(script: &str) -> Arc<Program> {
    let strings = ["sh", "-c", script].map(|s| CString::new(s).unwrap());
    Arc::new(Program {
        path: c"/bin/sh".to_owned(),
        argv: strings.to_vec(),
        settings: None,
    })
}

fn end(child: &ChildProcess) -> End {
    assert!(wait_until_readable(child.as_fd(), SOON));
    child.reap().expect("it has ended")
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// Starts a program with as many listeners, of which the first is this descriptor.
fn start(
    spawner: &mut Spawner,
    program: &Arc<Program>,
    first: &impl AsFd,
    listeners: usize,
) -> io::Result<ChildProcess> {
    let null = null();
    let mut given = vec![null.as_fd(); listeners];
    given[0] = first.as_fd();
    let descriptors = Descriptors {
        status: null.as_fd(),
        listeners: &given,
        output: None,
        errors_only: false,
    };
    let environment = Environment::from([c"A=b".to_owned()]);
    spawner.spawn(NOW, program, &environment, 0o755, descriptors)
}

/// What a child prints on its first listener, which is a pipe here.
fn output(spawner: &mut Spawner, script: &str, listeners: usize) -> String {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let child = start(spawner, &shell(script), &write, listeners).unwrap();
    drop(write);
    while spawner.used > protocol::STATUS {
        spawner.clear_slots();
    }
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(end(&child), End::Code(0));
    assert!(spawner.take_exec_error(child.pid()).is_none());
    text
}

const FACTS: &str = "{ echo $(ls /proc/self/fd); env; cat /proc/self/status; } >&6";

#[test]
fn a_child_has_its_descriptors_its_environment_and_default_signals() {
    if !in_own_process("a_child_has_its_descriptors_its_environment_and_default_signals") {
        return;
    }
    signal::reset().unwrap();
    let mut spawner = Spawner::new(None).unwrap();
    spawner.make_flow_pipe().unwrap();
    let _many: Vec<_> = (0..500).map(|_| null()).collect();
    let facts = output(&mut spawner, FACTS, 3);
    let mut lines = facts.lines();
    // 7 and 8 are listeners; ls has the highest number, its own directory, open for itself.
    assert_eq!(lines.next(), Some("0 1 2 3 4 5 6 7 8 9"), "{facts}");
    for line in ["A=b", "GENERATION=755"] {
        assert!(lines.clone().any(|l| l == line), "{line} in {facts}");
    }
    let line = |name: &str| lines.clone().find(|l| l.starts_with(name)).unwrap();
    assert!(line("SigBlk:").ends_with("0000000000000000"), "{facts}");
    let ignored = line("SigIgn:").trim_start_matches("SigIgn:").trim();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    // 32 and 33 belong to the C library, which lets no program reset them.
    let library = (1 << 31) | (1 << 32);
    assert_eq!(ignored & !library, 1 << (libc::SIGPIPE - 1), "{facts}");
}

#[test]
fn slots_are_given_back() {
    if in_own_process("slots_are_given_back") {
        let mut spawner = Spawner::new(None).unwrap();
        assert_eq!(output(&mut spawner, "echo here >&6", 3), "here\n");
        for slot in protocol::STATUS..protocol::LISTEN + 3 {
            let file = std::fs::read_link(format!("/proc/self/fd/{slot}")).unwrap();
            assert_eq!(file, std::path::Path::new("/dev/null"), "slot {slot}");
        }
    }
}

#[test]
fn children_that_are_started_one_after_the_other_have_their_own_descriptors() {
    let name = "children_that_are_started_one_after_the_other_have_their_own_descriptors";
    if !in_own_process(name) {
        return;
    }
    let mut spawner = Spawner::new(None).unwrap();
    let mut children = Vec::new();
    for number in 0..50 {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let program = shell(&format!("echo {number} >&6"));
        let child = loop {
            match start(&mut spawner, &program, &write, 1 + number % 3) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                started => break started.unwrap(),
            }
        };
        children.push((read, child));
    }
    for (number, (read, child)) in children.into_iter().enumerate() {
        assert_eq!(end(&child), End::Code(0));
        spawner.clear_slots();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{number}\n"));
    }
    spawner.collect();
    assert!(spawner.launches.is_empty() && spawner.idle.len() <= TASKS_KEPT);
}

#[test]
fn a_program_that_cannot_run_is_reported_and_ends_with_status_one() {
    if in_own_process("a_program_that_cannot_run_is_reported_and_ends_with_status_one") {
        let mut spawner = Spawner::new(None).unwrap();
        let program = Program {
            path: c"/no/such/program".to_owned(),
            argv: vec![c"x".to_owned()],
            settings: None,
        };
        let child = start(&mut spawner, &Arc::new(program), &null(), 1).unwrap();
        assert_eq!(end(&child), End::Code(1));
        let error = spawner.take_exec_error(child.pid()).expect("an error");
        let ExecError::System(error) = error else {
            panic!("{error:?}");
        };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(spawner.take_exec_error(child.pid()).is_none());
    }
}

#[test]
fn an_exec_that_hangs_is_reported_once_and_keeps_no_other_from_starting() {
    if !in_own_process("an_exec_that_hangs_is_reported_once_and_keeps_no_other_from_starting") {
        return;
    }
    let mut spawner = Spawner::new(None).unwrap();
    // The start of a process that is stopped before its first instruction takes as long.
    let child = start(&mut spawner, &shell("exit 7"), &null(), 1).unwrap();
    spawner.launches[0].task.lives.store(1, Ordering::Release);
    let late = NOW + EXEC_TIME;
    assert_eq!(end(&child), End::Code(7));
    spawner.launches[0].task.lives.store(1, Ordering::Release);
    spawner.clear_slots();
    assert_eq!(spawner.next_deadline(NOW), Some(late));
    assert_eq!(spawner.next_hanging(late - Duration::from_millis(1)), None);
    assert_eq!(spawner.next_hanging(late), Some(child.pid()));
    assert_eq!(spawner.next_hanging(late), None);
    assert_eq!(spawner.next_deadline(NOW), None);
    assert_eq!(output(&mut spawner, "echo here >&6", 1), "here\n");
    assert!(spawner.take_exec_error(child.pid()).is_none());
    assert!(spawner.launches.is_empty());
}

#[test]
fn a_child_of_a_former_program_that_hangs_in_its_exec_is_reported_once() {
    if !in_own_process("a_child_of_a_former_program_that_hangs_in_its_exec_is_reported_once") {
        return;
    }
    let ForkResult::Parent { child } = process::fork().unwrap() else {
        nix::unistd::pause();
        unreachable!("it is killed");
    };
    let own = std::process::id() as i32;
    let (child, late) = (child.as_raw(), NOW + EXEC_TIME);
    let unfinished = vec![(own, late), (child, late), (i32::MAX, late)];
    let mut spawner = Spawner::resume(None, unfinished.clone()).unwrap();
    assert_eq!(spawner.unfinished(), unfinished);
    assert_eq!(spawner.next_deadline(NOW), Some(late));
    assert_eq!(spawner.next_hanging(late - Duration::from_millis(1)), None);
    assert_eq!(spawner.next_hanging(late), Some(child));
    assert_eq!(spawner.next_hanging(late), None);
    assert_eq!(spawner.next_deadline(NOW), None);
    let mut spawner = Spawner::resume(None, vec![(child, late)]).unwrap();
    assert!(spawner.take_exec_error(child).is_none());
    assert_eq!(spawner.next_deadline(NOW), None);
    ChildProcess::open(child)
        .unwrap()
        .send(nix::sys::signal::Signal::SIGKILL);
}

/// A program with settings, which are the descriptor 7 beside one listener; it reports on 8.
fn with_settings(script: &str) -> Arc<Program> {
    let Ok(mut program) = Arc::try_unwrap(shell(script)) else {
        unreachable!("it was made here");
    };
    program.settings = Some(file::sealed(c"settings", b"settings").unwrap());
    Arc::new(program)
}

#[test]
fn a_program_with_settings_reads_them_and_another_one_has_neither() {
    let name = "a_program_with_settings_reads_them_and_another_one_has_neither";
    if !in_own_process(name) {
        return;
    }
    let mut spawner = Spawner::new(None).unwrap();
    spawner.make_flow_pipe().unwrap();
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let script = "{ cat /proc/self/fd/7; (echo x >&7) 2>&- || echo ' sealed'; echo $(ls /proc/self/fd); } >&6";
    let child = start(&mut spawner, &with_settings(script), &write, 1).unwrap();
    drop(write);
    assert_eq!(end(&child), End::Code(0));
    while spawner.used > protocol::STATUS {
        spawner.clear_slots();
    }
    assert!(spawner.take_exec_error(child.pid()).is_none());
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    // 9 is what ls itself has open.
    assert_eq!(text, "settings sealed\n0 1 2 3 4 5 6 7 8 9\n");
    let free = output(&mut spawner, FACTS, 1);
    assert!(free.starts_with("0 1 2 3 4 5 6 7\n"), "{free}");
}

#[test]
fn what_a_program_with_settings_reports_is_an_error() {
    if !in_own_process("what_a_program_with_settings_reports_is_an_error") {
        return;
    }
    let mut spawner = Spawner::new(None).unwrap();
    let flood = "head -c 5000 /dev/zero | tr '\\0' x >&8; exit 1";
    for (script, expected) in [("printf no >&8; exit 1", "no"), (flood, &"x".repeat(1024))] {
        let child = start(&mut spawner, &with_settings(script), &null(), 1).unwrap();
        assert_eq!(end(&child), End::Code(1));
        let error = spawner.take_exec_error(child.pid());
        let Some(ExecError::Report(text)) = error else {
            panic!("{error:?}");
        };
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}

#[test]
fn a_program_with_settings_hangs_until_it_has_executed_the_other() {
    if !in_own_process("a_program_with_settings_hangs_until_it_has_executed_the_other") {
        return;
    }
    let mut spawner = Spawner::new(None).unwrap();
    let script = "read line < /dev/zero";
    let child = start(&mut spawner, &with_settings(script), &null(), 1).unwrap();
    // It has executed the shell, and the shell keeps the pipe.
    while spawner.launches[0].task.state().0 || spawner.used > protocol::STATUS {
        spawner.clear_slots();
    }
    let late = NOW + EXEC_TIME;
    assert_eq!(spawner.next_deadline(NOW), Some(late));
    assert_eq!(spawner.next_hanging(late), Some(child.pid()));
    assert_eq!(spawner.next_hanging(late), None);
    child.send(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(end(&child), End::Signal(libc::SIGKILL));
    assert!(spawner.take_exec_error(child.pid()).is_none());
    assert!(spawner.launches.is_empty());
}

#[test]
fn output_goes_where_the_service_has_it_and_the_masters_output_stays() {
    if !in_own_process("output_goes_where_the_service_has_it_and_the_masters_output_stays") {
        return;
    }
    let own = || [1, 2].map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap());
    let before = own();
    let mut spawner = Spawner::new(None).unwrap();
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let null = null();
    let descriptors = Descriptors {
        status: null.as_fd(),
        listeners: &[] as &[OwnedFd],
        output: Some(write.as_fd()),
        errors_only: false,
    };
    let program = shell("echo to one; echo to two >&2; echo $(ls /proc/self/fd)");
    let environment = Environment::default();
    let child = spawner.spawn(NOW, &program, &environment, 1, descriptors);
    drop(write);
    while spawner.used > protocol::STATUS {
        spawner.clear_slots();
    }
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(end(&child.unwrap()), End::Code(0));
    // 3 is what ls itself has open; 4 is the flow pipe's, and 5 the status channel.
    assert!(text.starts_with("to one\nto two\n0 1 2 "), "{text}");
    assert!(!text.contains(" 6"), "{text}");
    assert_eq!(own(), before);
}

#[test]
fn signals_are_as_before_after_a_start() {
    if in_own_process("signals_are_as_before_after_a_start") {
        let mut spawner = Spawner::new(None).unwrap();
        let before = SigSet::thread_get_mask().unwrap();
        output(&mut spawner, "true", 1);
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}

#[test]
fn a_child_may_have_as_many_listeners_as_there_are_slots_and_no_more() {
    let name = "a_child_may_have_as_many_listeners_as_there_are_slots_and_no_more";
    if in_own_process(name) {
        let mut spawner = Spawner::new(None).unwrap();
        let started = start(&mut spawner, &shell("true"), &null(), LISTENERS_MAX + 1);
        assert_eq!(started.unwrap_err().raw_os_error(), Some(libc::E2BIG));
        let null = null();
        let descriptors = Descriptors {
            status: null.as_fd(),
            listeners: &[null.as_fd(); LISTENERS_MAX],
            output: Some(null.as_fd()),
            errors_only: false,
        };
        let environment = Environment::default();
        let child = spawner.spawn(NOW, &shell("true"), &environment, 1, descriptors);
        assert_eq!(end(&child.unwrap()), End::Code(0));
    }
}

#[test]
fn a_child_uses_little_of_its_stack() {
    if in_own_process("a_child_uses_little_of_its_stack") {
        let mut spawner = Spawner::new(None).unwrap();
        output(&mut spawner, "true", 1);
        let stack = &spawner.idle[0].stack;
        let unused = stack.iter().take_while(|word| **word == 0).count();
        assert!(unused > STACK / 2, "{unused} of {STACK} words are unused");
    }
}
