//! The environment of children.

use std::collections::BTreeMap;
use std::path::Path;

use testkit::differs::{Observed, differs};
use testkit::instance::Instance;
use testkit::process::Process;
use testkit::puppet_service::{PuppetService, one_service};
use testkit::{needs_root, test};

/// The environment of the first child, if the master is started with these variables.
#[track_caller]
fn environment(mut postfix: Instance, variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - 1");
    for (name, value) in variables {
        postfix.environment(name, value);
    }
    postfix.start();
    let _client = service.connect();
    service.next().process.environ()
}

/// "environment cut to `import_environment`"
#[test]
fn only_variables_of_import_environment_reach_children() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    postfix.set("import_environment", "MAIL_CONFIG FIRST, SECOND ABSENT");
    let variables = [("FIRST", "one"), ("SECOND", "two words"), ("THIRD", "3")];
    let found = environment(postfix, &variables);
    assert_eq!(found.get("FIRST").map(String::as_str), Some("one"));
    assert_eq!(found.get("SECOND").map(String::as_str), Some("two words"));
    for absent in ["THIRD", "ABSENT"] {
        assert!(!found.contains_key(absent), "{absent}");
    }
}

/// "the variables that import_environment lets through or sets"
#[test]
fn import_environment_sets_variables_too() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    postfix.set(
        "import_environment",
        "MAIL_CONFIG FIRST=set {SECOND = two words} EMPTY=",
    );
    let found = environment(postfix, &[("FIRST", "inherited"), ("EMPTY", "inherited")]);
    let value = |name: &str| found.get(name).map(String::as_str);
    assert_eq!(value("FIRST"), Some("set"));
    assert_eq!(value("SECOND"), Some("two words"));
    assert_eq!(value("EMPTY"), Some(""));
}

/// "import_environment": the default keeps the time zone, and not the user's own variables.
#[test]
fn the_default_import_environment_is_postfixs() {
    needs_root("to run a master");
    let variables = [
        ("TZ", "UTC"),
        ("LANG", "de_DE.UTF-8"),
        ("DISPLAY", ":7"),
        ("XAUTHORITY", "/x"),
        ("HOME", "/root"),
        ("LD_PRELOAD_NOT", "x"),
        ("MAIL_NOT", "x"),
    ];
    let found = environment(Instance::bare(), &variables);
    let expected = [
        "DISPLAY",
        "GENERATION",
        "LANG",
        "MAIL_CONFIG",
        "MAIL_LOGTAG",
        "PATH",
        "POSTLOG_HOSTNAME",
        "POSTLOG_SERVICE",
        "TZ",
        "XAUTHORITY",
    ];
    let names: Vec<&String> = found.keys().filter(|name| !name.is_empty()).collect();
    let expected: Vec<&str> = expected
        .into_iter()
        .filter(|name| *name != "PATH" || found.contains_key("PATH"))
        .collect();
    assert_eq!(names, expected);
}

/// "plus `GENERATION=<octal>`": each child has a different one.
#[test]
fn every_child_has_a_generation_of_its_own() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let services = ["a", "b"].map(|name| PuppetService::add(&mut postfix, name, "unix - - n - -"));
    postfix.start();
    let mut last = 0;
    let mut children = Vec::new();
    for number in 0..10 {
        let (client, puppet) = services[number % 2].serve();
        let generation = &puppet.process.environ()["GENERATION"];
        let generation = u32::from_str_radix(generation, 8).expect("an octal number");
        assert!(generation > last, "{generation} after {last}");
        last = generation;
        children.push((client, puppet));
    }
}

/// "`-c dir` (also exports MAIL_CONFIG)"
#[test]
fn mail_config_is_the_configuration_directory() {
    needs_root("to run a master");
    let postfix = Instance::bare();
    let configuration = postfix.configuration().display().to_string();
    let found = environment(postfix, &[("MAIL_CONFIG", "/nowhere")]);
    assert_eq!(found["MAIL_CONFIG"], configuration);
}

/// "MAIL_LOGTAG": the value is syslog_name.
#[test]
fn mail_logtag_is_syslog_name() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    postfix.set("syslog_name", "postfix-tested");
    let found = environment(postfix, &[("MAIL_LOGTAG", "inherited")]);
    assert_eq!(found["MAIL_LOGTAG"], "postfix-tested");
}

/// "POSTLOG_SERVICE and POSTLOG_HOSTNAME when maillog_file is set"
#[test]
fn children_are_told_of_postlogd_when_there_is_a_maillog_file() {
    needs_root("to run a master");
    let postfix = Instance::bare();
    let socket = postfix.socket("public", "postlog").display().to_string();
    let found = environment(postfix, &[("POSTLOG_SERVICE", "/nowhere")]);
    assert_eq!(found["POSTLOG_SERVICE"], socket);
    assert_eq!(found["POSTLOG_HOSTNAME"], "host.test");

    let mut postfix = Instance::bare();
    postfix.set("maillog_file", "");
    let found = environment(postfix, &[]);
    for absent in ["POSTLOG_SERVICE", "POSTLOG_HOSTNAME"] {
        assert!(!found.contains_key(absent), "{absent}");
    }
}

/// A reload reads all of main.cf.
#[test]
fn a_reload_replaces_import_environment() {
    needs_root("to run a master");
    differs(
        "A change of import_environment takes effect on reload.",
        Observed {
            ours: "new children have the new variable",
            original: "new children have the old variables",
        },
        |postfix| {
            postfix.set("import_environment", "MAIL_CONFIG");
            let service = PuppetService::add(postfix, "a", "unix - - n - 1");
            postfix.start();
            postfix.set("import_environment", "MAIL_CONFIG NEW=variable");
            postfix.reload();
            let _client = service.connect();
            if service.next().process.environ().contains_key("NEW") {
                "new children have the new variable"
            } else {
                "new children have the old variables"
            }
        },
    );
}

/// A variable of one master's child does not reach the children of another master that it starts.
#[test]
fn a_generation_that_the_master_finds_is_not_passed_on() {
    needs_root("to run a master");
    let found = environment(Instance::bare(), &[("GENERATION", "7777")]);
    assert_ne!(found["GENERATION"], "7777");
    let (_postfix, service) = one_service("unix - - n - 1");
    let _client = service.connect();
    let puppet = service.next();
    assert_eq!(
        puppet.process.environ()["GENERATION"],
        format!("{:o}", puppet.generation)
    );
}

/// Programs that use select(2), or close all descriptors that there could be, rely on a low limit.
#[test]
fn the_limit_on_descriptors_is_raised_for_the_master_alone() {
    needs_root("to run a master");
    differs(
        "Children have the limit on descriptors that the master was started with.",
        Observed {
            ours: "a child has the limit of before, and can raise it",
            original: "a child has the master's limit",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - 1");
            let mut command = postfix.under(Path::new("prlimit"), &["--nofile=300:4096"]);
            postfix.run_in_foreground(&mut command);
            let _client = service.connect();
            // It ends with this.
            let puppet = service.next();
            let child = puppet.process;
            let limits = |process: Process| {
                let is_it = |line: &String| line.starts_with("Max open files");
                let line = process.limits().into_iter().find(is_it).expect("a limit");
                let words = line.split_whitespace().skip(3).take(2);
                words.collect::<Vec<_>>().join(":")
            };
            assert_eq!(limits(postfix.master_process()), "4096:4096", "the master");
            match limits(child).as_str() {
                "300:4096" => "a child has the limit of before, and can raise it",
                "4096:4096" => "a child has the master's limit",
                _ => "another limit",
            }
        },
    );
}

/// What a program writes there that does not start is in the log.
#[test]
fn a_child_writes_its_errors_to_a_socket() {
    needs_root("to run a master");
    differs(
        "What a child writes to standard error before it fails is in the log.",
        Observed {
            ours: "descriptor 2 is a socket, unless very many are started",
            original: "descriptor 2 is /dev/null",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let errors = |child: Process| child.descriptors()[&2].target.clone();
            let (_client, mut first) = service.serve();
            assert_eq!(first.process.descriptors()[&1].target, "/dev/null");
            first.wait_until_heard();
            let (_other, second) = service.serve();
            assert_eq!(second.process.descriptors()[&1].target, "/dev/null");
            let errors = [first, second].map(|child| errors(child.process));
            if errors.iter().all(|target| target.starts_with("socket:")) {
                "descriptor 2 is a socket, unless very many are started"
            } else {
                "descriptor 2 is /dev/null"
            }
        },
    );
}

/// A process with the terminal of root's session could put commands into it.
#[test]
fn an_attached_masters_children_have_nothing_of_its_terminal() {
    needs_root("to run a master");
    differs(
        "With -d, children have a session of their own, and nothing of the master's terminal.",
        Observed {
            ours: "a session of their own",
            original: "the master's session",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start_in_foreground(&["-d"]);
            let _client = service.connect();
            let puppet = service.next();
            let (child, master) = (puppet.process, postfix.master_process());
            let apart = child.session() == child.0 && child.session() != master.session();
            postfix.stop();
            if apart {
                "a session of their own"
            } else {
                "the master's session"
            }
        },
    );
}
