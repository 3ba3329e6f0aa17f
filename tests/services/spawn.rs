//! Commands: spawn, which runs one for each client.

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::process::Process;
use testkit::{layout, needs_root, test};

use crate::stage::Stage;

/// A master with spawn, which needs root's privileges.
fn spawn(arguments: &str) -> Stage {
    let mut stage = Stage::new("spawn", "-", "user=nobody argv=true");
    stage.serve("n", "-", arguments);
    stage.reload();
    stage
}

#[test]
fn a_command_has_the_connection_as_its_input_output_and_error() {
    needs_root("a mail system");
    let stage = spawn("user=nobody argv=sh -c {cat; echo error >&2}");
    assert_eq!(stage.ask("hello\n"), "hello\nerror\n");
}

#[test]
fn a_command_runs_as_its_user_with_no_other_group_and_a_clean_environment() {
    needs_root("a mail system");
    let stage = spawn("user=nobody argv=sh -c {id; env}");
    let answer = stage.ask("");
    let (id, environment) = answer.split_once('\n').expect("two lines");
    assert_eq!(
        id,
        "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"
    );
    assert!(
        environment.contains("PATH=/usr/bin:/bin\n"),
        "{environment}"
    );
    assert!(!environment.contains("GENERATION"), "{environment}");
}

#[test]
fn the_manuals_web_server_answers() {
    needs_root("a mail system");
    let stage = spawn(
        r#"user=daemon argv=/bin/sh -c
           { while read -r line && [ ${#line} -gt 1 ]; do :; done;
             printf "HTTP/1.0 200 OK\r\n\r\n"; uptime }"#,
    );
    let answer = stage.ask("GET / HTTP/1.0\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n\r\n "), "{answer}");
    assert!(answer.contains("load average"), "{answer}");
}

#[test]
fn a_group_can_be_named() {
    needs_root("a mail system");
    let stage = spawn("user=nobody:daemon argv=id -gn");
    assert_eq!(stage.ask(""), "daemon\n");
}

#[test]
fn a_command_has_none_of_the_masters_descriptors() {
    needs_root("a mail system");
    let stage = spawn("user=nobody argv=ls /proc/self/fd");
    // The last descriptor is the listed directory itself.
    assert_eq!(stage.ask(""), "0\n1\n2\n3\n");
}

#[test]
fn a_spawner_that_waits_has_laid_its_privileges_aside() {
    needs_root("a mail system");
    let stage = spawn("user=nobody argv=true");
    stage.ask("");
    let (owner, group) = layout::mail_owner();
    let process = stage.processes()[0];
    until(SOON, "it to be idle", || process.is_idle());
    let [real, effective, ..] = process.uids();
    assert_eq!((real, effective), (0, owner));
    assert_eq!(process.gids()[1], group);
    assert_eq!(process.groups(), group.to_string());
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_its_offspring() {
    needs_root("a mail system");
    let mut stage = Stage::new("spawn", "-", "user=nobody argv=true");
    let address = stage.address();
    let pids = "echo $$; sleep 3600 & echo $!; wait";
    stage.service(&format!(
        "{address} inet n n n - - spawn -n slow -o slow_time_limit=1s \
         user=nobody argv=sh -c {{{pids}}}"
    ));
    stage.reload();
    let mut client = Client::connect(&address);
    let mut pid = || Process(client.line().parse().expect("a process id"));
    let (shell, sleeper) = (pid(), pid());
    client.wait_for_end();
    until(SOON, "both to be gone", || !shell.runs() && !sleeper.runs());
    stage.wait_for_log(&format!(
        "warning: sh: process id {}: command time limit exceeded",
        shell.0
    ));
    stage.wait_for_log("warning: command sh killed by signal 9");
}

/// A client of a command that runs for long, the two processes of that, and spawn's own.
fn long_command(stage: &Stage) -> (Client, [Process; 3]) {
    let mut client = Client::connect(&stage.address());
    let [shell, sleeper] = [(); 2].map(|()| Process(client.line().parse().expect("a process ID")));
    let spawn = Process(shell.parent());
    (client, [shell, sleeper, spawn])
}

const LONG: &str = "user=nobody argv=sh -c {echo $$; sleep 1000 & echo $!; wait}";

#[test]
fn a_command_ends_with_spawn() {
    needs_root("a mail system");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let stage = spawn(LONG);
        let (_client, processes) = long_command(&stage);
        processes[2].signal(signal);
        until(SOON, "all to be gone", || {
            !processes.iter().any(|p| p.runs())
        });
    }
}

#[test]
fn a_command_that_ignores_sigterm_is_killed_when_spawn_is_told_to_end() {
    needs_root("a mail system");
    let stage = spawn("user=nobody argv=sh -c {trap '' TERM; echo $$; sleep 1000 & echo $!; wait}");
    let (_client, processes) = long_command(&stage);
    processes[2].signal(Signal::SIGTERM);
    until(SOON, "all to be gone", || {
        !processes.iter().any(|p| p.runs())
    });
}

#[test]
fn a_command_ends_when_the_master_is_stopped() {
    needs_root("a mail system");
    let mut stage = spawn(LONG);
    let (_client, processes) = long_command(&stage);
    stage.stop();
    until(SOON, "all to be gone", || {
        !processes.iter().any(|p| p.runs())
    });
}

#[test]
fn a_command_takes_the_signals_that_spawn_holds_back() {
    needs_root("a mail system");
    let stage = spawn("user=nobody argv=sh -c {grep SigBlk /proc/self/status}");
    assert_eq!(stage.ask(""), "SigBlk:\t0000000000000000\n");
}

#[test]
fn a_command_that_fails_is_logged() {
    needs_root("a mail system");
    let mut stage = spawn("user=nobody argv=sh -c {exit 7}");
    assert_eq!(stage.ask(""), "");
    stage.wait_for_log("warning: command sh exit status 7");
    stage.serve("n", "-", "user=nobody argv=/no/such/command");
    stage.reload();
    assert_eq!(stage.ask(""), "");
    stage.wait_for_log("cannot run /no/such/command: No such file or directory");
}

#[test]
fn a_command_is_not_run_as_root_or_as_the_mail_owner() {
    needs_root("a mail system");
    for (user, problem) in [
        ("root", "user=root: request to run a command as root"),
        (
            "postfix",
            "user=postfix: request to run a command as mail system owner",
        ),
        (
            "nobody:root",
            "user=nobody:root: request to run a command with root's group",
        ),
    ] {
        let stage = spawn(&format!("user={user} argv=true"));
        let _waiting = Client::connect(&stage.address());
        stage.wait_for_log(&format!("fatal: {problem}"));
    }
}

#[test]
fn a_spawner_without_privileges_says_what_it_needs() {
    needs_root("a mail system");
    let stage = Stage::new("spawn", "-", "user=nobody argv=true");
    let _waiting = Client::connect(&stage.address());
    stage.wait_for_log("requires privileged operation: write \"n\" in the column \"unpriv\"");
}

/// The kernel ends the command by itself, but not what the command has started.
#[test]
fn a_command_ends_with_a_spawn_that_is_killed_and_so_does_what_it_has_started() {
    needs_root("a mail system");
    let stage = spawn(LONG);
    let (_client, processes) = long_command(&stage);
    processes[2].signal(Signal::SIGKILL);
    until(SOON, "all to be gone", || {
        !processes.iter().any(|p| p.runs())
    });
}

#[test]
fn what_a_command_leaves_behind_goes_on_after_it_and_the_next_command_does_not_end_it() {
    needs_root("a mail system");
    let stage = spawn("user=nobody argv=sh -c {sleep 1000 </dev/null >/dev/null 2>&1 & echo $!}");
    let answer = stage.ask("");
    let left = Process(answer.trim().parse().expect("a process ID"));
    let next = Process(stage.ask("").trim().parse().expect("a process ID"));
    let spawns = stage.processes();
    spawns
        .iter()
        .for_each(|spawn| spawn.signal(Signal::SIGKILL));
    until(SOON, "the spawn to be gone", || {
        !spawns.iter().any(|spawn| spawn.runs())
    });
    assert!(left.runs() && next.runs());
    left.signal(Signal::SIGKILL);
    next.signal(Signal::SIGKILL);
}
