//! The command line.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::client::expect_greeting;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::process::Process;
use testkit::run::{Running, run};
use testkit::{needs_root, ours_promises, test};

/// An instance with one service, whose child only sleeps and is started with the master.
fn inert() -> Instance {
    let mut postfix = Instance::new();
    // A shell shows its arguments in proc(5), and stays the parent of its own child.
    postfix.install_script("inert", "sleep 1000; :");
    postfix.service("inert unix - - n 60 1 inert");
    postfix
}

/// The arguments of that child.
fn arguments(postfix: &Instance) -> Vec<String> {
    until(SOON, "a child", || {
        let children = postfix.children();
        let mut lines = children.into_iter().map(Process::cmdline);
        lines.find(|line| line.iter().any(|word| word.ends_with("/inert")))
    })
}

#[test]
fn t_tells_whether_a_master_runs() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.write_configuration();
    let test = |postfix: &Instance| run(&mut postfix.master(&["-t"]), SOON).status.code();
    assert_eq!(test(&postfix), Some(0), "never started");
    postfix.start();
    assert_eq!(test(&postfix), Some(1), "running");
    postfix.stop();
    assert_eq!(test(&postfix), Some(0), "stopped");
    let lock = postfix.queue().join("pid/master.pid");
    assert!(lock.exists(), "the lock file stays");
}

#[test]
fn t_does_not_disturb_a_master_that_runs() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.start();
    let lock = postfix.queue().join("pid/master.pid");
    let before = fs::read_to_string(&lock).expect("a lock");
    run(&mut postfix.master(&["-t"]), SOON).expect_failure();
    assert_eq!(fs::read_to_string(&lock).expect("a lock"), before);
    postfix.reload();
}

#[test]
fn the_lock_file_has_the_process_id_right_aligned_and_a_newline() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.start();
    let pid = postfix.master_pid();
    for lock in [
        postfix.queue().join("pid/master.pid"),
        postfix.data().join("master.lock"),
    ] {
        let text = fs::read_to_string(&lock).expect("a lock");
        let width = 4 * size_of::<std::ffi::c_ulong>();
        assert_eq!(text, format!("{pid:width$}\n"), "{lock:?}");
    }
}

#[test]
fn w_returns_when_the_master_serves() {
    needs_root("to run a mail system");
    let postfix = Instance::mail();
    postfix.write_configuration();
    let started = run(&mut postfix.master(&["-w"]), SOON).expect_success();
    // At once: the listeners are already there.
    let greeting = expect_greeting(&postfix.address());
    drop(greeting);
    assert_eq!(
        (started.stdout, started.stderr),
        (String::new(), String::new())
    );
    let master = postfix.master_process();
    assert!(master.runs());
    assert_eq!(master.session(), master.0, "the leader of a session");
}

#[test]
fn w_fails_when_the_master_does() {
    needs_root("to start a master");
    let postfix = inert();
    postfix.write_main_cf();
    let failed = run(&mut postfix.master(&["-w"]), SOON);
    assert_eq!(failed.status.code(), Some(1), "without a service table");
}

#[test]
fn t_needs_no_service_table() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    let test = |postfix: &Instance| run(&mut postfix.master(&["-t"]), SOON).status.code();
    postfix.write_main_cf();
    assert_eq!(test(&postfix), Some(0), "never started");
    postfix.start();
    fs::remove_file(postfix.master_cf()).expect("a table");
    assert_eq!(test(&postfix), Some(1), "running");
    postfix.stop();
    assert_eq!(test(&postfix), Some(0), "stopped");
}

#[test]
fn e_ends_the_master_after_a_time() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.without("postlog", "unix-dgram");
    let begin = Instant::now();
    postfix.start_in_foreground(&["-e", "2"]);
    let finished = postfix.finish();
    assert_eq!(finished.status.code(), Some(0));
    postfix.wait_for_log("master exit time has arrived");
    // Clocks that count whole seconds may be up to one second early.
    assert!(begin.elapsed() > Duration::from_millis(900), "too early");
}

#[test]
fn without_d_the_master_leads_a_session_and_its_output_is_nowhere() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.start();
    let master = postfix.master_process();
    assert_eq!(master.session(), master.0);
    for number in 0..=2 {
        assert_eq!(
            master.descriptors()[&number].target,
            "/dev/null",
            "{number}"
        );
    }
}

#[test]
fn d_stays_in_the_foreground_and_is_passed_on() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.start_in_foreground(&["-d"]);
    let master = postfix.master_process();
    assert_eq!(postfix.foreground().pid(), master.0, "the same process");
    assert_eq!(
        master.session(),
        Process(nix::unistd::getpid().as_raw()).session(),
        "the session it was started in"
    );
    assert_ne!(
        master.descriptors()[&2].target,
        "/dev/null",
        "standard error"
    );
    let arguments = arguments(&postfix);
    assert!(arguments.contains(&"-d".to_owned()), "{arguments:?}");
    postfix.stop();
}

#[test]
fn v_is_passed_on_once() {
    needs_root("to run a mail system");
    for (options, expected) in [
        (vec!["-w"], 0),
        (vec!["-w", "-v"], 1),
        (vec!["-w", "-v", "-v"], 1),
    ] {
        let postfix = inert();
        postfix.write_configuration();
        run(&mut postfix.master(&options), SOON).expect_success();
        let arguments = arguments(&postfix);
        let given = arguments.iter().filter(|word| *word == "-v").count();
        assert_eq!(given, expected, "{options:?}: {arguments:?}");
    }
}

#[test]
fn mail_verbose_in_the_environment_is_v() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.environment("MAIL_VERBOSE", "");
    postfix.start();
    let arguments = arguments(&postfix);
    assert!(arguments.contains(&"-v".to_owned()), "{arguments:?}");
}

/// Sets a debugger that writes its process ID into a file; returns the file for the master.
fn debugger(postfix: &mut Instance) -> std::path::PathBuf {
    let file = postfix.path().join("debugged");
    let command = format!(
        "echo $process_id >{0}.new; mv {0}.new {0}.$process_name",
        file.display()
    );
    postfix.set("debugger_command", command);
    file.with_extension("master")
}

#[test]
fn capital_d_runs_the_debugger_on_the_master() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    let file = debugger(&mut postfix);
    postfix.start_in_foreground(&["-D"]);
    let text = until(SOON, "the debugger", || fs::read_to_string(&file).ok());
    assert_eq!(text.trim(), postfix.master_pid().to_string());
    postfix.stop();
}

#[test]
fn mail_debug_in_the_environment_is_capital_d() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    // Children get the option, too, so the logger would debug itself.
    postfix.without("postlog", "unix-dgram");
    let file = debugger(&mut postfix);
    postfix.environment("MAIL_DEBUG", "");
    // It stays in its process group, so it must have its own to be stopped safely.
    postfix.start_in_foreground(&["-d"]);
    let text = until(SOON, "the debugger", || fs::read_to_string(&file).ok());
    assert_eq!(text.trim(), postfix.master_pid().to_string());
    postfix.stop();
}

#[test]
fn s_keeps_standard_output() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.start_in_foreground(&["-s"]);
    let descriptors = postfix.master_process().descriptors();
    assert_eq!(descriptors[&0].target, "/dev/null", "standard input");
    assert_ne!(descriptors[&1].target, "/dev/null", "standard output");
    assert_eq!(descriptors[&2].target, "/dev/null", "standard error");
    let output = &descriptors[&1].target;
    // Children have it, too: this is how a container's log is collected.
    for child in postfix.children() {
        assert_eq!(child.descriptors()[&1].target, *output, "{child:?}");
    }
    postfix.stop();
}

#[test]
fn a_log_on_standard_output_works_with_s() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.set("maillog_file", "/dev/stdout");
    postfix.set("maillog_file_prefixes", "/var, /dev/stdout");
    postfix.write_configuration();
    let mut master = Running::start(&mut postfix.master(&["-s"]));
    until(SOON, "a log", || {
        master.stdout().contains("daemon started -- version")
    });
    assert!(!master.has_ended());
    postfix.stop_and_wait_for(master);
}

/// The master as the first process of a container; the command's own process is its parent.
fn as_first_process(postfix: &Instance, options: &[&str]) -> Command {
    let master = postfix.master(options);
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(master.get_program())
        .args(master.get_args())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/");
    command
}

#[test]
fn i_runs_the_master_as_the_first_process_and_ends_with_success() {
    needs_root("to make a process id namespace");
    let mut postfix = Instance::mail();
    let mut command = as_first_process(&postfix, &["-i"]);
    postfix.run_in_foreground(&mut command);
    drop(expect_greeting(&postfix.address()));
    assert_eq!(postfix.master_pid(), 1, "its own idea of its process id");
    let parent = Process(postfix.foreground().pid());
    let master = parent.children()[0];
    assert_ne!(
        master.descriptors()[&1].target,
        "/dev/null",
        "standard output"
    );
    // It adopts orphans and reaps them.
    let orphan = run(
        Command::new("nsenter")
            .args(["--target", &master.0.to_string(), "--pid", "--mount"])
            .args(["sh", "-c", "sh -c 'exit 3' & exec true"]),
        SOON,
    );
    orphan.expect_success();
    until(SOON, "no dead children", || {
        !all_with_parent(master).any(|process| !process.runs())
    });
    drop(expect_greeting(&postfix.address()));

    let children = master.children();
    master.signal(Signal::SIGTERM);
    let finished = postfix.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    until(SOON, "the children's end", || {
        !children.iter().any(|child| child.runs())
    });
}

/// The children of a process, including zombies.
fn all_with_parent(parent: Process) -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").expect("/proc");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Process)
        .filter(move |process| process.parent() == parent.0)
}

#[test]
fn i_is_refused_to_other_processes() {
    needs_root("to start a master");
    let postfix = inert();
    postfix.write_configuration();
    let refused = run(&mut postfix.master(&["-i"]), SOON).expect_failure();
    if ours_promises("it says on standard error what is wrong with the command line") {
        assert!(refused.stderr.contains("-i"), "{refused:?}");
        assert!(refused.stderr.contains('1'), "{refused:?}");
    }
    assert!(!postfix.queue().join("pid/master.pid").exists());
}

#[test]
fn i_is_refused_with_options_that_do_not_fit() {
    needs_root("to make a process id namespace");
    for option in ["-D", "-d", "-w"] {
        let postfix = inert();
        postfix.write_configuration();
        let mut command = as_first_process(&postfix, &["-i", option]);
        let refused = run(&mut command, SOON).expect_failure();
        assert!(!postfix.queue().join("pid/master.pid").exists(), "{option}");
        if ours_promises("it says on standard error what is wrong with the command line") {
            assert!(refused.stderr.contains(option), "{refused:?}");
        }
    }
}

#[test]
fn t_is_refused_with_w() {
    needs_root("to start a master");
    let postfix = inert();
    postfix.write_configuration();
    let refused = run(&mut postfix.master(&["-t", "-w"]), SOON).expect_failure();
    if ours_promises("it says on standard error what is wrong with the command line") {
        assert!(refused.stderr.contains("-t"), "{refused:?}");
        assert!(refused.stderr.contains("-w"), "{refused:?}");
    }
}

#[test]
fn what_is_no_option_is_answered_with_the_usage() {
    needs_root("to start a master");
    let postfix = inert();
    postfix.write_configuration();
    for wrong in ["-x", "--no-such-option", "argument"] {
        let refused = run(&mut postfix.master(&[wrong]), SOON).expect_failure();
        assert!(!postfix.queue().join("pid/master.pid").exists(), "{wrong}");
        if ours_promises("it says on standard error what is wrong with the command line") {
            assert!(refused.stderr.contains("usage: "), "{wrong}: {refused:?}");
        }
    }
}

#[test]
fn c_is_passed_on_as_mail_config() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.environment("MAIL_CONFIG", "/nowhere");
    postfix.start();
    let expected = postfix.configuration().display().to_string();
    // Before its exec, a child has its parent's environment.
    until(SOON, "a child with the configuration", || {
        let mut environments = postfix.children().into_iter().map(Process::environ);
        environments.any(|environment| environment.get("MAIL_CONFIG") == Some(&expected))
    });
}

#[test]
fn without_c_mail_config_names_the_configuration() {
    needs_root("to run a mail system");
    let mut postfix = inert();
    postfix.write_configuration();
    let mut command = Command::new(postfix.daemons().join("master"));
    command
        .env("MAIL_CONFIG", postfix.configuration())
        .arg("-w");
    run(&mut command, SOON).expect_success();
    assert!(postfix.master_process().runs());
    postfix.stop();
}
