//! The command line. Most of its rules are tested with real daemons, in `tests/postfix/options.rs`.

use std::path::Path;
use std::process::Command;

use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::puppet_service::PuppetService;
use testkit::run::{Running, run};
use testkit::{is_original, needs_root, test};

/// "`-c dir`": relative to the directory in which the master is started, which it then leaves.
#[test]
fn the_configuration_directory_can_be_relative() {
    needs_root("to run a master");
    differs(
        "The configuration directory may be relative (-c etc).",
        Observed {
            ours: "it serves",
            original: "it does not start",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.write_configuration();
            let mut command = Command::new(postfix.daemons().join("master"));
            command
                .args(["-w", "-c", "etc"])
                .current_dir(postfix.path());
            if !run(&mut command, SOON).success() {
                return "it does not start";
            }
            let (_client, puppet) = service.serve();
            let configuration = postfix.configuration().display().to_string();
            assert_eq!(puppet.process.environ()["MAIL_CONFIG"], configuration);
            "it serves"
        },
    );
}

/// "Options": as in getopt(3), options can be combined, and values attached.
#[test]
fn options_can_be_written_together() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - 1");
    postfix.write_configuration();
    let mut command = Command::new(postfix.daemons().join("master"));
    let directory = postfix.configuration();
    command.arg(format!("-vwc{}", directory.display()));
    run(&mut command, SOON).expect_success();
    let _client = service.connect();
    assert_eq!(service.next().given(), "puppet -l -n a -t unix -v -u");
}

/// "`-d` with our -d; `-v` with our -v"
#[test]
fn d_and_v_are_passed_on_between_type_and_u() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - 1");
    postfix.start_in_foreground(&["-d", "-v"]);
    let _client = service.connect();
    assert_eq!(service.next().given(), "puppet -l -n a -t unix -d -v -u");
    postfix.stop();
}

/// "descriptors from 3 up closed"
#[test]
fn descriptors_that_the_master_finds_are_closed() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - 1");
    let secret = postfix.path().join("secret");
    std::fs::write(&secret, "").expect("a file");
    let script = format!("exec 3<{0} 7<{0} 9<{0} \"$@\"", secret.display());
    let mut command = postfix.under(Path::new("sh"), &["-c", &script, "sh"]);
    postfix.run_in_foreground(&mut command);
    let _client = service.connect();
    let secret = secret.display().to_string();
    let puppet = service.next();
    for process in [postfix.master_process(), puppet.process] {
        let mut descriptors = process.descriptors().into_values();
        assert!(!descriptors.any(|one| one.target == secret), "{process:?}");
    }
}

/// "unless `-d`, descriptors 0-2 become /dev/null": also if they were closed.
#[test]
fn standard_descriptors_that_are_missing_become_dev_null() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - 1");
    let script = "exec \"$@\" <&- >&- 2>&-";
    let mut command = postfix.under(Path::new("sh"), &["-c", script, "sh"]);
    postfix.run_in_foreground(&mut command);
    let _client = service.connect();
    let puppet = service.next();
    for process in [postfix.master_process(), puppet.process] {
        let descriptors = process.descriptors();
        // What a child of ours writes to descriptor 2 before its program has worked is logged.
        let is_childs = process != postfix.master_process() && !is_original();
        for number in 0..=if is_childs { 1 } else { 2 } {
            assert_eq!(
                descriptors[&number].target, "/dev/null",
                "{process:?} {number}"
            );
        }
    }
}

/// "`-t` [...] The parameters must be readable"
#[test]
fn t_fails_when_a_parameter_is_wrong() {
    needs_root("to start a master");
    let mut postfix = Instance::bare();
    postfix.set("inet_interfaces", "no-such-host.invalid");
    postfix.write_configuration();
    run(&mut postfix.master(&["-t"]), SOON).expect_failure();
}

/// "`-e seconds`": a number.
#[test]
fn the_exit_time_must_be_a_number() {
    needs_root("to start a master");
    differs(
        "An exit time that is not a number is refused.",
        Observed {
            ours: "it does not start",
            original: "it starts",
        },
        |postfix| {
            postfix.write_configuration();
            let mut master = Running::start(&mut postfix.master(&["-e", "x"]));
            until(SOON, "the end", || master.has_ended());
            if postfix.log().contains("daemon started") {
                "it starts"
            } else {
                "it does not start"
            }
        },
    );
}

/// "`-h`: Show the options.", "`-V`: Show the version."
#[test]
fn h_and_capital_v_tell_and_end() {
    needs_root("to start a master");
    differs(
        "Options -h and -V show the options and the version.",
        Observed {
            ours: "they are shown",
            original: "they are refused",
        },
        |postfix| {
            postfix.write_configuration();
            let shown = ["-h", "-V"].map(|option| run(&mut postfix.master(&[option]), SOON));
            match shown
                .iter()
                .all(|said| said.success() && !said.stdout.is_empty())
            {
                true => "they are shown",
                false => "they are refused",
            }
        },
    );
}

/// "Anything else: usage, non-zero."
#[test]
fn what_is_wrong_with_the_command_line_is_said_on_standard_error() {
    needs_root("to start a master");
    differs(
        "What is wrong with the command line is said on standard error, with the usage.",
        Observed {
            ours: "it is said there",
            original: "it is not said there",
        },
        |postfix| {
            postfix.write_configuration();
            let refused = run(&mut postfix.master(&["-x"]), SOON).expect_failure();
            if refused.stderr.contains("-x") && refused.stderr.contains("usage: ") {
                "it is said there"
            } else {
                "it is not said there"
            }
        },
    );
}

/// "lock file FILE: locked by process P"
#[test]
fn a_second_master_is_told_the_process_id_of_the_first() {
    needs_root("to run a master");
    differs(
        "A second master says the process ID of the first on standard error.",
        Observed {
            ours: "it is said there",
            original: "it is not said there",
        },
        |postfix| {
            postfix.start();
            let first = postfix.master_process();
            let second = run(&mut postfix.master(&["-w"]), SOON).expect_failure();
            if second.stderr.contains(&first.0.to_string()) {
                "it is said there"
            } else {
                "it is not said there"
            }
        },
    );
}
