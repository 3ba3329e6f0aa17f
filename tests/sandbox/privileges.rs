//! User, groups and capabilities.

use testkit::instance::SOON;
use testkit::poll::until;
use testkit::{needs_root, test};

use crate::stage::{CHILDREN, ask, configure, started, status};

/// The sets of capabilities in a child's /proc/self/status.
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// CAP_NET_BIND_SERVICE.
const NET_BIND: &str = "0000000000000400";
const NONE: &str = "0000000000000000";

#[test]
fn a_user_has_its_own_group_and_no_capability() {
    needs_root("to change users");
    let mut standalone = started("user = \"nobody\"");
    for name in CHILDREN {
        assert_eq!(
            status(&mut standalone, name, "Uid"),
            "65534 65534 65534 65534"
        );
        assert_eq!(
            status(&mut standalone, name, "Gid"),
            "65534 65534 65534 65534"
        );
        assert_eq!(status(&mut standalone, name, "Groups"), "65534");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(&mut standalone, name, set), NONE, "{name} {set}");
        }
        assert_eq!(status(&mut standalone, name, "NoNewPrivs"), "0", "{name}");
        // It cannot become root again, and opens no file of root's.
        let setuid = format!("call {} 0", nix::libc::SYS_setuid);
        assert_eq!(ask(&mut standalone, name, &setuid), "error 1");
        assert_eq!(ask(&mut standalone, name, "open /etc/shadow"), "error 13");
    }
}

#[test]
fn groups_are_those_that_are_named() {
    needs_root("to change groups");
    let mut standalone =
        started("user = 65534\ngroup = \"mail\"\nsupplementary_groups = [\"daemon\", 4711]");
    for name in CHILDREN {
        assert_eq!(status(&mut standalone, name, "Gid"), "8 8 8 8");
        assert_eq!(status(&mut standalone, name, "Groups"), "1 4711 65534");
    }
    configure(&standalone, "group = \"mail\"");
    standalone.reload();
    for name in CHILDREN {
        assert_eq!(status(&mut standalone, name, "Uid"), "0 0 0 0");
        assert_eq!(status(&mut standalone, name, "Gid"), "8 8 8 8");
        assert_eq!(status(&mut standalone, name, "Groups"), "8");
    }
}

#[test]
fn a_user_keeps_the_ambient_capabilities_alone() {
    needs_root("to change users");
    let mut standalone = started(
        "user = \"nobody\"\nambient_capabilities = [\"net_bind_service\"]\n\
         capability_bounding_set = [\"CAP_NET_BIND_SERVICE\"]",
    );
    for name in CHILDREN {
        for set in SETS {
            assert_eq!(status(&mut standalone, name, set), NET_BIND, "{name} {set}");
        }
    }
}

#[test]
fn root_has_no_more_than_the_bounding_set() {
    needs_root("to have capabilities");
    let mut standalone = started("capability_bounding_set = []\nno_new_privileges = true");
    for name in CHILDREN {
        assert_eq!(status(&mut standalone, name, "Uid"), "0 0 0 0");
        for set in SETS {
            assert_eq!(status(&mut standalone, name, set), NONE, "{name} {set}");
        }
        assert_eq!(status(&mut standalone, name, "NoNewPrivs"), "1", "{name}");
        let setuid = format!("call {} 65534", nix::libc::SYS_setuid);
        assert_eq!(ask(&mut standalone, name, &setuid), "error 1");
    }
}

#[test]
fn a_master_without_root_gives_up_what_it_has() {
    let standalone = testkit::standalone::Standalone::of_a_user();
    let mut standalone = crate::stage::start(standalone, "no_new_privileges = true");
    for name in CHILDREN {
        assert_eq!(status(&mut standalone, name, "NoNewPrivs"), "1", "{name}");
    }
    configure(
        &standalone,
        "ambient_capabilities = [\"CAP_CHOWN\"]\nthrottle_time = 1",
    );
    standalone.reload();
    let socket = standalone.queue().join("public/rust");
    let _client = std::os::unix::net::UnixStream::connect(socket).expect("a listener");
    standalone.wait_for_line("cannot apply \"ambient_capabilities\": Operation not permitted");
    configure(&standalone, "user = \"nobody\"");
    let refused = standalone.reload();
    assert!(
        refused.contains("\"user\" needs a master that root runs"),
        "{refused}"
    );
    configure(&standalone, "");
    standalone.reload();
    until(SOON, "a child of before the change to leave", || {
        ask(&mut standalone, "rust", "arguments").contains("inside")
    });
}
