//! Root without capabilities, as in a container that drops them: the master runs as far as that goes,
//! or says which one is missing.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use testkit::instance::SOON;
use testkit::run::{Finished, run};
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

const TABLE: &str = "a unix n - - - 1 /bin/cat\n127.0.0.1:79 inet n - - - 1 /bin/cat\n";

/// A configuration of root's with directories of its own.
fn standalone() -> Standalone {
    needs_root("to drop capabilities of root's");
    let mut standalone = Standalone::new();
    standalone.write_table(TABLE);
    let (queue, data) = (standalone.queue(), standalone.path().join("data"));
    standalone.write_toml(&format!(
        "queue_directory = \"{}\"\ndata_directory = \"{}\"\n",
        queue.display(),
        data.display()
    ));
    standalone
}

/// The master's command, without these capabilities: `-all`, `-setuid`.
fn without(standalone: &Standalone, capabilities: &str) -> Command {
    let master = standalone.master(&["-d"]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", capabilities, "--inh-caps", "-all"]);
    command.arg(master.get_program()).args(master.get_args());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

fn fail(standalone: &Standalone, capabilities: &str) -> Finished {
    run(&mut without(standalone, capabilities), SOON).expect_failure()
}

#[test]
fn a_missing_capability_is_named_with_its_reason() {
    let standalone = standalone();
    for (capabilities, expected) in [
        (
            "-all",
            "root lacks CAP_SETUID and CAP_SETGID, which the master needs to make sockets",
        ),
        ("-setuid", "root lacks CAP_SETUID, which the master needs"),
        ("-setgid", "root lacks CAP_SETGID, which the master needs"),
        (
            "-chown",
            "public: cannot make this directory: root lacks CAP_CHOWN, which is needed",
        ),
        (
            "-net_bind_service",
            "cannot listen on 127.0.0.1:79: Permission denied; root lacks CAP_NET_BIND_SERVICE",
        ),
    ] {
        let _ = fs::remove_dir_all(standalone.queue());
        for _ in 0..2 {
            let said = fail(&standalone, capabilities).stderr;
            assert!(said.contains(expected), "{capabilities}: {said}");
            assert!(!said.contains("setcap"), "{said}");
        }
    }
}

#[test]
fn root_serves_without_capabilities_that_it_does_not_need() {
    let mut standalone = standalone();
    standalone
        .write_table("a unix n - - - 1 /bin/cat\n")
        .start();
    standalone.stop_by(Signal::SIGTERM);
    let needed = "-all,+setuid,+setgid";
    let mut command = without(&standalone, needed);
    standalone.start_as(&mut command);
    let warning = "warning: root lacks CAP_KILL: children of other users get no signal";
    standalone.wait_for_line(warning);
    standalone.stop_by(Signal::SIGTERM);
    let _ = fs::remove_dir_all(standalone.queue());
    let _ = fs::remove_dir_all(standalone.path().join("data"));
    let mut command = without(&standalone, &format!("{needed},+chown,+kill"));
    standalone.start_as(&mut command);
    assert!(
        !standalone.said().contains("lacks"),
        "{}",
        standalone.said()
    );
}
