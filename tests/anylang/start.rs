//! Tests of the command line of the examples.

use std::path::Path;

use testkit::instance::Instance;
use testkit::layout::mail_owner;
use testkit::network::in_own_network;
use testkit::{needs_root, test};

use crate::examples::{examples, expect_no_complaint, expect_served, greeted};

/// "become mail_owner", without other groups.
#[test]
fn an_unprivileged_child_is_mail_owner_before_it_serves() {
    needs_root("to run a master");
    let (uid, gid) = mail_owner();
    for (unprivileged, uid, gid) in [("y", uid, gid), ("n", 0, 0)] {
        for example in examples() {
            let mut postfix = Instance::bare();
            let columns = format!("unix - {unprivileged} n - 1");
            example.add(&mut postfix, "a", &columns, "");
            postfix.start();
            let address = postfix.socket("private", "a").display().to_string();
            let (mut client, child) = greeted(&address);
            assert_eq!(
                (child.uids(), child.gids()),
                ([uid; 4], [gid; 4]),
                "{example:?}"
            );
            if unprivileged == "y" {
                assert_eq!(child.groups(), gid.to_string(), "{example:?}");
            }
            expect_served(&mut client);
            expect_no_complaint(&postfix);
        }
    }
}

/// "make the working directory the root directory"
#[test]
fn a_child_in_a_chroot_has_the_queue_directory_for_its_root() {
    needs_root("to run a master");
    for example in examples() {
        for unprivileged in ["y", "n"] {
            let mut postfix = Instance::bare();
            let columns = format!("unix - {unprivileged} y - 1");
            example.add(&mut postfix, "a", &columns, "");
            postfix.start();
            let address = postfix.socket("private", "a").display().to_string();
            let (mut client, child) = greeted(&address);
            assert_eq!(child.root(), postfix.queue(), "{example:?}");
            expect_served(&mut client);
            expect_no_complaint(&postfix);
        }
        let mut postfix = Instance::bare();
        example.add(&mut postfix, "a", "unix - n n - 1", "");
        postfix.start();
        let address = postfix.socket("private", "a").display().to_string();
        assert_eq!(greeted(&address).1.root(), Path::new("/"), "{example:?}");
    }
}

/// All options at once: `-d`, `-v`, `-u`, `-c`, `-n`, `-t`, `-o stress=`, `-s`, and `-l` or `-z`.
#[test]
fn every_option_of_the_master_is_understood() {
    needs_root("to make a network");
    in_own_network(|| {
        for example in examples() {
            for limit in [0, 1, 5] {
                let mut postfix = Instance::bare();
                postfix.set("inet_interfaces", "127.0.0.1, 192.0.2.1");
                let port = postfix.port();
                let columns = format!("inet n y y - {limit}");
                example.add(&mut postfix, &port.to_string(), &columns, "-o max_use=1");
                postfix.start_in_foreground(&["-d", "-v"]);
                let (mut client, _) = greeted(&format!("192.0.2.1:{port}"));
                expect_served(&mut client);
                postfix.stop();
            }
        }
    });
}
