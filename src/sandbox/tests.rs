//! The form of settings and failures.

use super::*;

/// Something of each kind.
fn full() -> Sandbox {
    let bounds = Bounds {
        soft: 5,
        hard: u64::MAX,
    };
    Sandbox {
        control_group: Some("/sys/fs/cgroup/a/b".to_owned()),
        limits: BTreeMap::from([(Limit::Nofile, bounds), (Limit::As, bounds)]),
        ceilings: BTreeSet::from([Limit::As]),
        nice: Some(-5),
        ionice: Some(IoPriority::BestEffort(7)),
        oom_score_adjust: Some(1000),
        umask: Some(0o27),
        cpu_affinity: vec![0, 3],
        user: Some(User {
            uid: 105,
            gid: 112,
            groups: vec![112, 45],
        }),
        group: Some(8),
        supplementary_groups: Some(vec![45, 46]),
        no_new_privileges: true,
        capability_bounding_set: Some(Capabilities(1 << 10 | 1)),
        ambient_capabilities: Some(Capabilities(0)),
        system_call_filter: Some(CallFilter {
            allowed: Vec::new(),
            denied: vec![1, 2],
        }),
        system_call_kill: true,
        files: Files {
            read_only: vec!["/usr".to_owned(), "/etc".to_owned()],
            read_write: Vec::new(),
            required: true,
        },
        isolate: Isolate {
            signals: true,
            abstract_sockets: false,
        },
    }
}

#[test]
fn settings_are_read_as_they_were_written() {
    for sandbox in [full(), Sandbox::default()] {
        let bytes = sandbox.encode().unwrap();
        assert_eq!(Sandbox::decode(&bytes).unwrap(), sandbox);
    }
}

#[test]
fn settings_of_another_version_are_refused() {
    let next = VERSION + 1;
    let text = format!("{{\"version\":{next},\"sandbox\":{{\"new\":1}}}}");
    let error = Sandbox::decode(text.as_bytes()).unwrap_err();
    let words = format!("version {next}, expected {VERSION}");
    assert!(error.contains(&words), "{error}");
}

#[test]
fn what_is_no_block_of_settings_is_refused() {
    let good = String::from_utf8(full().encode().unwrap()).unwrap();
    for bad in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"version":-1,"sandbox":{}}"#,
        r#"{"version":2}"#,
        r#"{"version":2,"sandbox":{"nice":99999999999}}"#,
        r#"{"version":2,"sandbox":{"unknown":1}}"#,
        r#"{"version":2,"sandbox":{"limits":{"nofile":{"soft":-1,"hard":1}}}}"#,
        r#"{"version":2,"sandbox":{},"more":1}"#,
        &good[1..],
        &good[..good.len() - 1],
        &format!("{good}x"),
        &"[".repeat(SIZE_MAX),
        &" ".repeat(SIZE_MAX + 1),
    ] {
        assert!(Sandbox::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_block_with_one_byte_changed_is_read_or_refused() {
    let good = full().encode().unwrap();
    for at in 0..good.len() {
        for byte in [0, b'"', b'{', b'9', 0xff] {
            let mut bad = good.clone();
            bad[at] = byte;
            let _ = Sandbox::decode(&bad);
        }
    }
}

#[test]
fn settings_that_are_too_large_have_no_form() {
    let sandbox = Sandbox {
        cpu_affinity: vec![1; SIZE_MAX / 2 + 1],
        ..Sandbox::default()
    };
    assert_eq!(sandbox.encode(), None);
}

#[test]
fn a_failure_is_read_as_it_was_written() {
    let failure = Failure {
        setting: Some("limit_nofile".to_owned()),
        reason: "Operation not permitted".to_owned(),
    };
    assert_eq!(Failure::decode(&failure.encode()), Some(failure));
    for bad in ["", "x", "{}", "{\"setting\":null}"] {
        assert_eq!(Failure::decode(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn settings_are_shown_as_in_the_file() {
    let shown = full().shown();
    let lines: Vec<_> = shown.iter().map(|(k, v)| format!("{k} {v}")).collect();
    let expected = [
        "limit_as 5:infinity",
        "limit_nofile 5:infinity",
        "nice -5",
        "ionice best-effort:7",
        "oom_score_adjust 1000",
        "umask 0027",
        "cpu_affinity 0,3",
        "user 105",
        "group 8",
        "supplementary_groups 45 46",
        "no_new_privileges true",
        "capability_bounding_set cap_chown cap_net_bind_service",
        "ambient_capabilities none",
        "read_only_paths /usr /etc",
        "isolate signals",
        "sandbox required",
        "system_call_filter 2 denied",
        "system_call_error_number kill",
    ];
    assert_eq!(lines, expected);
    assert!(Sandbox::default().shown().is_empty());
}
