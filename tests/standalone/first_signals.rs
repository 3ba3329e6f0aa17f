//! Signals in the first moments of a start: each is remembered until the master serves, or ends a
//! start that waits.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::process::Process;
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

const TABLE: &str = "a unix n - - - 1 /bin/cat\n";

/// The signals that end a master.
const STOP: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// Has the signal wait for the master when it is executed, before any instruction of its own.
fn with_pending(command: &mut Command, signal: Signal) -> &mut Command {
    // SAFETY: both calls are system calls, which a child may make after fork.
    unsafe {
        command.pre_exec(move || {
            SigSet::from(signal).thread_block()?;
            Ok(raise(signal)?)
        })
    }
}

#[test]
fn a_reload_that_is_asked_for_before_the_first_instruction_is_done() {
    for mut standalone in Standalone::all() {
        standalone.write_table(TABLE);
        standalone.unwatched("it is reloaded at once").start();
        standalone.stop_by(Signal::SIGTERM);
        let mut command = standalone.master(&["-d"]);
        with_pending(&mut command, Signal::SIGHUP);
        standalone.start_as(command.process_group(0));
        standalone.wait_for_line("reload done");
    }
}

#[test]
fn a_signal_that_ends_the_master_does_so_once_it_is_up() {
    for signal in STOP {
        let mut standalone = Standalone::of_a_user();
        standalone.write_table(TABLE);
        let mut command = standalone.master(&["-d"]);
        with_pending(&mut command, signal).process_group(0);
        let ended = run(&mut command, SOON);
        assert_eq!(ended.status.signal(), Some(signal as i32), "{ended:?}");
        let line = format!("terminating on signal {}", signal as i32);
        assert!(ended.stderr.contains(&line), "{ended:?}");
    }
}

/// The kernel does not let process 1 have a signal that it does not take.
#[test]
fn process_1_ends_with_status_0_when_it_is_stopped_in_its_first_moments() {
    needs_root("to be process 1 of a namespace");
    let mut standalone = Standalone::new();
    standalone.write_table(TABLE).start();
    standalone.stop_by(Signal::SIGTERM);
    for signal in STOP {
        let master = standalone.master(&["-i"]);
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc"]);
        // It waits in the process that becomes the master.
        let script = format!(
            "import os,signal,sys\n\
             signal.pthread_sigmask(signal.SIG_BLOCK, [{0}])\n\
             os.kill(os.getpid(), {0})\n\
             os.execv(sys.argv[1], sys.argv[1:])",
            signal as i32
        );
        command.args(["python3", "-c", &script]);
        command.arg(master.get_program()).args(master.get_args());
        let ended = run(&mut command, SOON);
        assert!(ended.success(), "{signal}: {ended:?}");
    }
}

/// Waits until this is a master that waits.
fn wait_until_it_waits(process: Process) {
    until(SOON, "the master to wait", || {
        let name = fs::read_to_string(format!("/proc/{}/comm", process.0));
        name.is_ok_and(|name| name == "master\n") && process.waits()
    });
}

/// A start that waits for its table does not let an operator wait who wants to end it.
#[test]
fn a_start_that_waits_for_a_pipe_ends_at_once_and_remembers_a_reload() {
    let mut standalone = Standalone::of_a_user();
    let pipe = standalone.path().join("pipe");
    mkfifo(&pipe, Mode::from_bits_truncate(0o666)).expect("a FIFO");
    let writer = File::options().read(true).write(true).open(&pipe);
    let mut writer = writer.expect("a pipe");
    let start = |standalone: &mut Standalone| {
        let master = standalone.master(&[]);
        let mut command = Command::new("sh");
        command.args(["-c", "exec 9<pipe; exec \"$@\" -d -c /dev/fd/9", "sh"]);
        command.arg(master.get_program());
        command.current_dir(standalone.path()).process_group(0);
        for (name, value) in master.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        if nix::unistd::geteuid().is_root() {
            command.uid(standalone.uid()).gid(standalone.uid());
        }
        standalone.run(&mut command);
        wait_until_it_waits(standalone.process());
    };
    for signal in STOP {
        start(&mut standalone);
        let ended = standalone.stop_by(signal);
        assert_eq!(ended.status.signal(), Some(signal as i32), "{ended:?}");
        assert_eq!(ended.stderr, "");
    }
    start(&mut standalone);
    standalone.process().signal(Signal::SIGHUP);
    writer.write_all(TABLE.as_bytes()).expect("a reader");
    drop(writer);
    standalone.wait_for_line("reload failed and changed nothing");
}

/// With `-w`, the process that was started is the one that an operator knows.
#[test]
fn the_process_that_waits_for_the_daemon_hands_signals_on_to_it() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE);
    let log = standalone.path().join("log");
    standalone.write_toml(&format!(
        "maillog_file = \"{}\"\nmaillog_file_prefixes = \"/\"\n",
        log.display()
    ));
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let mut command = standalone.master(&["-w"]);
    run(with_pending(&mut command, Signal::SIGHUP), SOON).expect_success();
    until(SOON, "the reload", || said().contains("reload done"));
    let pid = fs::read_to_string(standalone.queue().join("pid/master.pid")).expect("a pid");
    let master = Process(pid.trim().parse().expect("a number"));
    master.signal(Signal::SIGTERM);
    until(SOON, "its end", || !master.runs());
    let mut command = standalone.master(&["-w"]);
    run(with_pending(&mut command, Signal::SIGTERM), SOON);
    until(SOON, "the end of the second", || {
        said().matches("terminating on signal 15").count() == 2
    });
}
