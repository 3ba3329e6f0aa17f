//! Children that share their listeners and leave for others to take their places.

use testkit::instance::SOON;
use testkit::poll::until;
use testkit::standalone::Standalone;
use testkit::test;

use crate::stage::{CHILDREN, ask, configure, start, started, status};

fn pid(standalone: &mut Standalone, name: &str) -> String {
    status(standalone, name, "Pid")
}

#[test]
fn a_child_leaves_after_its_uses() {
    for standalone in Standalone::all() {
        let mut standalone = start(standalone, "max_uses = 3");
        for name in CHILDREN {
            let first = pid(&mut standalone, name);
            for _ in 0..2 {
                assert_eq!(pid(&mut standalone, name), first, "{name}");
            }
            // It can take another client before it reads that it is to leave.
            until(SOON, format_args!("{name}: another child"), || {
                pid(&mut standalone, name) != first
            });
        }
        let said = standalone.said();
        assert!(!said.contains("warning: process"), "{said}");
        assert!(!said.contains("warning: service"), "{said}");
    }
}

#[test]
fn a_child_leaves_at_its_age_and_when_it_uses_much_memory() {
    let mut standalone = started("");
    for settings in ["max_age = 1", "memory_recycle = \"1K\""] {
        configure(&standalone, settings);
        assert!(standalone.reload().contains("reload done"));
        for name in CHILDREN {
            let first = pid(&mut standalone, name);
            until(SOON, format_args!("{name}: {settings}"), || {
                pid(&mut standalone, name) != first
            });
        }
    }
    standalone.wait_for_line("KB of memory, telling it to leave");
    // A reload takes the setting away.
    configure(&standalone, "memory_recycle = \"1T\"");
    assert!(standalone.reload().contains("reload done"));
}

#[test]
fn a_client_that_stays_keeps_its_old_child() {
    let mut standalone = started("max_age = 1\nmemory_recycle = \"1K\"\nmax_uses = 1");
    let socket = standalone.queue().join("public/rust");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("a listener");
    // Others come and go meanwhile, and their children, which can take another client before they
    // read that they are to leave.
    let first = pid(&mut standalone, "rust");
    until(SOON, "another child", || {
        pid(&mut standalone, "rust") != first
    });
    std::io::Write::write_all(&mut stream, b"arguments\n").expect("a child that reads");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    assert!(answer.contains("inside"), "{answer}");
    let _ = ask(&mut standalone, "python", "arguments");
}
