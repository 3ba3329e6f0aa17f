//! The start of a child with a sandbox: it finds what any child finds, and what goes wrong is told of
//! the service's own program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use testkit::instance::SOON;
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::{programs, test};

use crate::stage::{CHILDREN, ask, configure, program, stage, start, started, status};

/// What does not depend on the settings: the command line, and the descriptors.
fn facts(standalone: &mut Standalone, name: &str) -> Vec<String> {
    let mut facts = vec![ask(standalone, name, "arguments")];
    for key in [
        "Uid",
        "Groups",
        "SigIgn",
        "SigBlk",
        "CapEff",
        "NoNewPrivs",
        "Seccomp",
    ] {
        facts.push(format!("{key} {}", status(standalone, name, key)));
    }
    let environment = ask(standalone, name, "read /proc/self/environ");
    let mut variables: Vec<_> = environment.split('\0').map(str::to_owned).collect();
    variables.sort();
    facts.extend(variables);
    for fd in 0..16 {
        let info = format!("read /proc/self/fdinfo/{fd}");
        // The position and the mount differ from file to file, and not the flags.
        let answer = ask(standalone, name, &info);
        let flags = answer.lines().find(|line| line.starts_with("flags:"));
        facts.push(format!("{fd} {}", flags.unwrap_or(&answer)));
    }
    facts
}

#[test]
fn a_child_with_a_sandbox_finds_what_any_child_finds() {
    for standalone in Standalone::all() {
        let mut standalone = start(standalone, "");
        let free = CHILDREN.map(|name| facts(&mut standalone, name));
        configure(&standalone, "oom_score_adjust = 900");
        standalone.reload();
        let with_generation = |mut facts: Vec<String>| {
            facts.retain(|fact| !fact.starts_with("GENERATION="));
            facts
        };
        let confined = CHILDREN.map(|name| facts(&mut standalone, name));
        assert_eq!(free.map(with_generation), confined.map(with_generation));
    }
}

#[test]
fn a_setting_that_cannot_be_applied_is_named_and_throttles_the_service() {
    // No machine has this processor alone.
    let mut standalone = started("cpu_affinity = 1023\nthrottle_time = 1");
    let socket = standalone.queue().join("public/rust");
    let _client = std::os::unix::net::UnixStream::connect(socket).expect("a listener");
    let path = program(&standalone, "rust").display().to_string();
    standalone.wait_for_line("service \"rust\" (public/rust)");
    standalone.wait_for_line("cannot apply \"cpu_affinity\": Invalid argument -- see line 1 of");
    standalone.wait_for_line(&format!("warning: process {path} pid "));
    standalone.wait_for_line(&format!(
        "warning: {path}: bad command startup -- throttling"
    ));
    // The other service serves, and a reload mends this one.
    configure(&standalone, "oom_score_adjust = 900");
    standalone.reload();
    assert_eq!(
        ask(&mut standalone, "rust", "read /proc/self/oom_score_adj"),
        "900"
    );
}

#[test]
fn a_program_that_cannot_be_executed_is_named_itself() {
    let mut standalone = stage(Standalone::new());
    let script = standalone.script("broken", "exit 0");
    fs::write(&script, "#!/no/such/interpreter\n").expect("a script");
    standalone.write_table(&format!(
        "rust unix n - n - 5 {}\npython unix n - n - 5 x\n",
        script.display()
    ));
    configure(&standalone, "oom_score_adjust = 900");
    standalone.start();
    let socket = standalone.queue().join("public/rust");
    let _client = std::os::unix::net::UnixStream::connect(socket).expect("a listener");
    let path = script.display();
    standalone.wait_for_line(&format!(
        "exec {path}: No such file or directory -- see line 1 of"
    ));
    standalone.wait_for_line(&format!(
        "warning: {path}: bad command startup -- throttling"
    ));
}

/// The program that applies settings, as a copy: its mode is not that of the other tests' program.
fn own_executor(standalone: &Standalone) -> PathBuf {
    let executor = standalone.path().join("master-exec");
    fs::remove_file(&executor).expect("a link");
    let mut install = Command::new("install");
    run(install.arg(programs::executor()).arg(&executor), SOON).expect_success();
    executor
}

#[test]
fn without_the_program_that_applies_them_settings_are_refused() {
    for standalone in Standalone::all() {
        let mut standalone = start(standalone, "");
        let executor = own_executor(&standalone);
        fs::set_permissions(&executor, fs::Permissions::from_mode(0o777)).expect("a mode");
        configure(&standalone, "oom_score_adjust = 900");
        let refused = standalone.reload();
        assert!(refused.contains("chmod go-w"), "{refused}");
        assert!(refused.contains("reload failed"), "{refused}");
        fs::remove_file(&executor).expect("a program");
        let refused = standalone.reload();
        let words = "master-exec: services with limits or a sandbox in master.toml need this \
                     program: install it in the directory of the master: No such file";
        assert!(refused.contains(words), "{refused}");
        // The configuration that is in force needs none.
        assert!(ask(&mut standalone, "python", "arguments").contains("inside.py"));
        configure(&standalone, "");
        assert!(standalone.reload().contains("reload done"));
    }
}

#[test]
fn check_tells_what_is_wrong_with_the_program_that_applies_settings() {
    for standalone in Standalone::all() {
        let standalone = stage(standalone);
        let executor = own_executor(&standalone);
        let check = |settings: &str| {
            configure(&standalone, settings);
            run(&mut standalone.masterctl(&["check"]), SOON)
        };
        let mode = |mode| fs::set_permissions(&executor, fs::Permissions::from_mode(mode));
        assert!(
            check("limit_core = 0")
                .stdout
                .contains("a reload would succeed")
        );
        let refuses = |words: &str| {
            let refused = check("limit_core = 0");
            assert!(!refused.success(), "{words}");
            let said = refused.stdout.clone() + &refused.stderr;
            assert!(said.contains(words), "{words:?} in {said}");
            assert!(said.contains("master-exec: "), "{said}");
            // Without settings it is not needed.
            check("").expect_success();
        };
        mode(0o644).expect("a mode");
        refuses("not executable");
        mode(0o775).expect("a mode");
        refuses("chmod go-w");
        fs::remove_file(&executor).expect("a program");
        refuses("No such file or directory");
        standalone.script("master-exec", "echo master-exec 0.0.1");
        refuses("its version is \"master-exec 0.0.1\", expected \"master-exec ");
        standalone.script("master-exec", "exit 1");
        refuses("its version is \"\", expected \"master-exec ");
        fs::remove_file(&executor).expect("a program");
        fs::create_dir(&executor).expect("a directory");
        refuses("not a file");
    }
}
