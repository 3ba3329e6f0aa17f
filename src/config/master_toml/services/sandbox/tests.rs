//! Each setting of a sandbox: what it accepts, and what is said of anything else.

use crate::config::testing::{FakeSystem, errors, sources};
use crate::config::{Config, Diagnostics, Source};
use crate::sandbox::{Bounds, Capabilities, IoPriority, Limit, Sandbox, User};

fn parse(settings: &str) -> Result<Config, Diagnostics> {
    let mut sources = sources("compatibility_level = 3.6\n", "a unix n - n - - a\n");
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: format!("[service.\"a/unix\"]\n{settings}\n").into(),
    });
    Config::parse(&sources, &FakeSystem::default())
}

#[track_caller]
fn sandbox(settings: &str) -> Sandbox {
    let config = parse(settings).expect(settings);
    config.services[0].sandbox().expect(settings).clone()
}

/// The one error, without the name of the file.
#[track_caller]
fn error(settings: &str) -> String {
    let errors = errors(parse(settings));
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].replace("master.toml: ", "")
}

#[test]
fn a_service_without_such_settings_has_no_sandbox() {
    for settings in ["", "min_idle = 1", "stop_timeout = 5"] {
        let config = parse(settings).unwrap();
        assert_eq!(config.services[0].sandbox(), None, "{settings}");
    }
}

#[test]
fn a_limit_is_a_value_or_two_or_infinity() {
    let all = u64::MAX;
    for (key, text, limit, soft, hard) in [
        ("nofile", "100", Limit::Nofile, 100, 100),
        ("nofile", "0", Limit::Nofile, 0, 0),
        ("nofile", "\"100:200\"", Limit::Nofile, 100, 200),
        ("nofile", "\"100:infinity\"", Limit::Nofile, 100, all),
        ("nproc", "\"infinity\"", Limit::Nproc, all, all),
        ("core", "0", Limit::Core, 0, 0),
        ("as", "\"64M\"", Limit::As, 64 << 20, 64 << 20),
        ("data", "\"1K:2G\"", Limit::Data, 1 << 10, 2 << 30),
        ("fsize", "\"1T\"", Limit::Fsize, 1 << 40, 1 << 40),
        ("stack", "8388608", Limit::Stack, 8 << 20, 8 << 20),
        ("memlock", "\"64K:64K\"", Limit::Memlock, 64 << 10, 64 << 10),
        ("cpu", "60", Limit::Cpu, 60, 60),
        ("cpu", "\"5m:1h\"", Limit::Cpu, 300, 3600),
    ] {
        let sandbox = sandbox(&format!("limit_{key} = {text}"));
        assert_eq!(limit.setting(), format!("limit_{key}"));
        assert_eq!(
            sandbox.limits[&limit],
            Bounds { soft, hard },
            "{key} {text}"
        );
    }
}

#[test]
fn a_wrong_limit_is_told_with_its_place() {
    for text in [
        "-3",
        "\"-3\"",
        "\"\"",
        "\"100:\"",
        "\":100\"",
        "\"1:2:3\"",
        "\"1 \"",
        "\"+1\"",
        "\"64M\"",
        "\"x\"",
        "1.5",
        "true",
        "[1]",
        "\"99999999999999999999\"",
        "\"Infinity\"",
    ] {
        assert_eq!(
            error(&format!("limit_nofile = {text}")),
            "line 2: column 16: bad value of \"limit_nofile\": expected a number, two of them as \
             \"soft:hard\", or \"infinity\"; none is below 0",
            "{text}"
        );
    }
    for (key, text) in [
        ("as", "\"M\""),
        ("as", "\"1m\""),
        ("as", "\"1MB\""),
        ("as", "\"99999999999T\""),
        ("cpu", "\"1 h\""),
        ("cpu", "\"5mm\""),
        ("cpu", "\" 5\""),
        ("cpu", "\"9999999999w\""),
    ] {
        let error = error(&format!("limit_{key} = {text}"));
        assert!(error.contains("or \"infinity\""), "{key} {text}: {error}");
    }
    assert!(
        error("limit_core = \"2:1\"")
            .ends_with("expected a soft limit that is not above the hard limit after it")
    );
}

#[test]
fn numbers_have_a_range() {
    for (key, least, most) in [("nice", -20, 19), ("oom_score_adjust", -1000, 1000)] {
        for good in [least, 0, most] {
            let sandbox = sandbox(&format!("{key} = {good}"));
            assert_eq!(sandbox.nice.or(sandbox.oom_score_adjust), Some(good));
        }
        let of = |number: i64| number.to_string();
        for bad in [
            of(least.into()) + "0",
            of(i64::from(most) + 1),
            of(i64::MAX),
            "\"1\"".into(),
        ] {
            assert_eq!(
                error(&format!("{key} = {bad}")),
                format!(
                    "line 2: column {}: bad value of \"{key}\": expected an integer from {least} \
                     to {most}",
                    key.len() + 4
                )
            );
        }
    }
}

#[test]
fn ionice_is_a_class_and_a_level() {
    for (text, priority) in [
        ("idle", IoPriority::Idle),
        ("best-effort", IoPriority::BestEffort(4)),
        ("best-effort:0", IoPriority::BestEffort(0)),
        ("realtime:7", IoPriority::Realtime(7)),
    ] {
        let sandbox = sandbox(&format!("ionice = \"{text}\""));
        assert_eq!(sandbox.ionice, Some(priority));
    }
    for bad in [
        "",
        "idle:1",
        "best-effort:8",
        "best-effort:",
        "realtime:-1",
        "rt",
        "best-effort:é",
    ] {
        let error = error(&format!("ionice = \"{bad}\""));
        assert!(error.starts_with("line 2: column 10: bad value of \"ionice\": expected \"idle\""));
    }
}

#[test]
fn umask_is_octal() {
    for (text, mask) in [("0027", 0o27), ("777", 0o777), ("0", 0)] {
        assert_eq!(sandbox(&format!("umask = \"{text}\"")).umask, Some(mask));
    }
    for bad in [
        "\"\"",
        "\"0o27\"",
        "\"8\"",
        "\"1000\"",
        "27",
        "\"-1\"",
        "\"77777777777777777777\"",
    ] {
        assert!(
            error(&format!("umask = {bad}"))
                .starts_with("line 2: column 9: bad value of \"umask\": expected an octal number"),
            "{bad}"
        );
    }
}

#[test]
fn processors_are_numbers_and_ranges() {
    for (text, cpus) in [
        ("0", vec![0]),
        ("\"0-2,5\"", vec![0, 1, 2, 5]),
        ("\"3 1, 1-2\"", vec![1, 2, 3]),
        ("[5, 0, 5]", vec![0, 5]),
        ("1023", vec![1023]),
    ] {
        assert_eq!(
            sandbox(&format!("cpu_affinity = {text}")).cpu_affinity,
            cpus
        );
    }
    for (bad, column) in [
        ("1024", 16),
        ("-1", 16),
        ("\"\"", 16),
        ("[]", 16),
        ("\"2-1\"", 16),
        ("\"0-1024\"", 16),
        ("\"a\"", 16),
        ("[0, 1024]", 20),
        ("[0, \"1\"]", 20),
        ("true", 16),
    ] {
        let error = error(&format!("cpu_affinity = {bad}"));
        let place = format!("line 2: column {column}: bad value of \"cpu_affinity\": expected ");
        assert!(error.starts_with(&place), "{bad}: {error}");
    }
}

#[test]
fn a_slip_in_a_name_is_corrected() {
    assert_eq!(
        error("limit_nofiles = 3"),
        "line 2: column 1: unknown key \"limit_nofiles\": did you mean \"limit_nofile\"?"
    );
}

/// The errors or warnings of a configuration without Postfix, run by a user.
fn without_root(settings: &str) -> Vec<String> {
    let user = crate::config::User {
        uid: 1000,
        gid: 1000,
    };
    let mut sources = crate::config::testing::stand_alone(Some(user), "a unix - n n - - a\n");
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: format!("[service.\"a/unix\"]\n{settings}\n").into(),
    });
    let mut system = FakeSystem::default();
    system.users.push(("a", user));
    errors(Config::parse(&sources, &system))
}

#[test]
fn users_and_groups_are_names_or_numbers() {
    let user = User {
        uid: 105,
        gid: 112,
        groups: vec![112, 45],
    };
    for name in ["\"postfix\"", "105"] {
        let sandbox = sandbox(&format!("user = {name}"));
        assert_eq!(sandbox.user, Some(user.clone()));
    }
    let sandbox = sandbox("group = \"mail\"\nsupplementary_groups = [\"sasl\", 4711]");
    assert_eq!(sandbox.group, Some(8));
    assert_eq!(sandbox.supplementary_groups, Some(vec![45, 4711]));
    for (bad, place) in [
        ("user = \"stranger\"", "line 2: column 8"),
        ("user = -1", "line 2: column 8"),
        ("user = 4711", "line 2: column 8"),
        ("user = [\"postfix\"]", "line 2: column 8"),
        ("group = \"strangers\"", "line 2: column 9"),
        ("group = 4294967295", "line 2: column 9"),
        ("group = -1", "line 2: column 9"),
        ("supplementary_groups = \"mail\"", "line 2: column 24"),
        (
            "supplementary_groups = [\"mail\", \"x\"]",
            "line 2: column 33",
        ),
        ("no_new_privileges = 1", "line 2: column 21"),
    ] {
        let error = error(bad);
        assert!(error.starts_with(place), "{bad}: {error}");
        assert!(error.contains(": expected "), "{bad}: {error}");
    }
}

#[test]
fn capabilities_have_systemds_names() {
    let sandbox = sandbox(
        "capability_bounding_set = [\"CAP_CHOWN\", \"cap_net_raw\", \"Checkpoint_Restore\"]\n\
         ambient_capabilities = []",
    );
    let set = 1 | 1 << 13 | 1 << 40;
    assert_eq!(sandbox.capability_bounding_set, Some(Capabilities(set)));
    assert_eq!(sandbox.ambient_capabilities, Some(Capabilities(0)));
    assert_eq!(
        error("capability_bounding_set = [\"CAP_CHOWN\", \"CAP_ALL\"]"),
        "line 2: column 41: bad value of \"capability_bounding_set\": expected the name of a \
         capability of capabilities(7), as \"CAP_CHOWN\""
    );
    assert!(error("ambient_capabilities = \"CAP_CHOWN\"").starts_with("line 2: column 24: "));
    assert!(error("ambient_capabilities = [10]").starts_with("line 2: column 25: "));
    let message = error("ambient_capabilities = [\"kill\"]\ncapability_bounding_set = [\"chown\"]");
    assert!(
        message.starts_with("line 2: column 1: \"ambient_capabilities\" has one"),
        "{message}"
    );
}

#[test]
fn what_does_not_fit_to_the_master_or_the_service_is_told() {
    for key in [
        "user = \"a\"",
        "group = \"mail\"",
        "supplementary_groups = []",
    ] {
        let errors = without_root(key);
        let name = key.split(' ').next().unwrap();
        let expected =
            format!("master.toml: line 2: column 1: \"{name}\" needs a master that root");
        assert!(errors[0].starts_with(&expected), "{errors:?}");
    }
    let warnings = crate::config::testing::warnings(parse("user = \"postfix\""));
    assert!(
        warnings[0].contains("is not for Postfix's own programs"),
        "{warnings:?}"
    );
    let mut sources = sources("compatibility_level = 3.6\n", "a unix n - y - - a\n");
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: "[service.\"a/unix\"]\nuser = \"postfix\"\n".into(),
    });
    let errors = errors(Config::parse(&sources, &FakeSystem::default()));
    let words = "line 2: column 1: \"user\" leaves the children no right";
    assert!(
        errors.iter().any(|error| error.contains(words)),
        "{errors:?}"
    );
}

#[test]
fn a_filter_names_calls_and_groups() {
    let of = |settings: &str| sandbox(settings).system_call_filter.unwrap();
    let has = |calls: &[u32], name: &str| {
        let call: syscalls::Sysno = name.parse().unwrap();
        calls.contains(&u32::try_from(call.id()).unwrap())
    };
    let baseline = of("system_call_filter = \"baseline\"");
    assert!(baseline.allowed.is_empty());
    for name in [
        "mount",
        "ptrace",
        "bpf",
        "init_module",
        "keyctl",
        "setns",
        "swapon",
        "reboot",
    ] {
        assert!(has(&baseline.denied, name), "{name}");
    }
    for name in [
        "execve",
        "clone",
        "socket",
        "chroot",
        "setuid",
        "open",
        "clock_gettime",
    ] {
        assert!(!has(&baseline.denied, name), "{name}");
    }
    let more = of("system_call_filter = [\"~@network-io\", \"~getppid\"]");
    assert!(more.allowed.is_empty() && has(&more.denied, "mount"));
    assert!(has(&more.denied, "socket") && has(&more.denied, "getppid"));
    let only = of("system_call_filter = [\"execve\", \"read\", \"@swap\"]");
    assert!(has(&only.allowed, "swapon") && !has(&only.denied, "swapon"));
    assert_eq!(only.allowed.len(), 4);
    for (bad, column) in [
        ("\"Baseline\"", 22),
        ("true", 22),
        ("[]", 22),
        ("[\"execve\", \"no_such_call\"]", 33),
        ("[\"execve\", \"@no_such_group\"]", 33),
        ("[\"~socket\", 1]", 34),
        ("[\"~execve\"]", 23),
        ("[\"read\"]", 22),
    ] {
        let error = error(&format!("system_call_filter = {bad}"));
        let place =
            format!("line 2: column {column}: bad value of \"system_call_filter\": expected ");
        assert!(error.starts_with(&place), "{bad}: {error}");
    }
    assert!(
        sandbox("system_call_filter = \"baseline\"\nsystem_call_error_number = \"kill\"")
            .system_call_kill
    );
    assert!(error("system_call_error_number = \"EACCES\"").starts_with("line 2: column 28: "));
    let alone = error("system_call_error_number = \"kill\"");
    assert!(
        alone.contains("needs \"system_call_filter\" beside it"),
        "{alone}"
    );
}

#[test]
fn paths_are_absolute_and_there() {
    let sandbox = sandbox(
        "read_only_paths = [\"/usr\", \"$config_directory\"]\n\
         read_write_paths = [\"$queue_directory/public\"]\nsandbox = \"required\"",
    );
    assert_eq!(sandbox.files.read_only, ["/usr", "/etc/postfix"]);
    assert_eq!(sandbox.files.read_write, ["/var/spool/postfix/public"]);
    assert!(sandbox.files.required);
    for (bad, column, expected) in [
        ("\"/usr\"", 19, "a list of absolute paths"),
        ("[1]", 20, "an absolute path"),
        ("[\"/usr\", \"lib\"]", 28, "an absolute path"),
        ("[\"$home\"]", 20, "one of $config_directory, "),
        (
            "[\"/usr\", \"/missing\"]",
            28,
            "a path that is there: /missing: No such file",
        ),
    ] {
        let error = error(&format!("read_only_paths = {bad}"));
        let place = format!("line 2: column {column}: bad value of \"read_only_paths\": expected ");
        assert!(error.starts_with(&(place + expected)), "{bad}: {error}");
    }
    assert!(error("sandbox = true").contains("\"possible\" or \"required\""));
    let alone = error("sandbox = \"required\"");
    assert!(
        alone.starts_with("line 2: column 1: \"sandbox\" needs \"read_only_paths\""),
        "{alone}"
    );
}

#[test]
fn a_program_and_its_interpreter_must_be_within_the_paths() {
    // The program is /usr/lib/postfix/sbin/a, and needs /usr/lib/ld.so.
    assert!(!sandbox("read_only_paths = [\"/lib\"]").files.required);
    assert_eq!(
        error("read_only_paths = [\"/usr/lib/postfix\"]"),
        "line 2: column 1: /usr/lib/ld.so is not within these paths, and the program \
         /usr/lib/postfix/sbin/a needs it: add it or its directory"
    );
    assert!(error("read_write_paths = [\"/usr/lib/ld.so\"]").contains("/sbin/a is not within"));
}

#[test]
fn a_kernel_that_knows_less_than_is_asked_is_told() {
    let with_version = |version, settings: &str| {
        let mut sources = sources("compatibility_level = 3.6\n", "a unix n - n - - a\n");
        sources.master_toml = Some(Source {
            path: "master.toml".into(),
            text: format!("[service.\"a/unix\"]\n{settings}\n").into(),
        });
        let system = FakeSystem {
            landlock_version: version,
            ..FakeSystem::default()
        };
        Config::parse(&sources, &system)
    };
    let paths = "read_only_paths = [\"/usr\"]";
    let warnings = crate::config::testing::warnings(with_version(0, paths));
    assert!(
        warnings[0].contains("this kernel has version 0 of Landlock"),
        "{warnings:?}"
    );
    assert!(crate::config::testing::warnings(with_version(3, paths)).is_empty());
    let required = format!("{paths}\nsandbox = \"required\"");
    let errors = errors(with_version(2, &required));
    assert!(
        errors[0].contains("line 3: column 1: this kernel has version 2"),
        "{errors:?}"
    );
    assert!(crate::config::testing::warnings(with_version(3, &required)).is_empty());
}

/// A sandbox of a service whose program has this name.
fn of_program(program: &str, settings: &str) -> Result<Config, Diagnostics> {
    let table = format!("a unix n - n - - {program}\n");
    let main_cf = "compatibility_level = 3.6\nqueue_directory = /q\ndata_directory = /d\n";
    let mut sources = sources(main_cf, table);
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: format!("[service.\"a/unix\"]\n{settings}\n").into(),
    });
    let system = FakeSystem {
        needs: Vec::new(),
        ..FakeSystem::default()
    };
    Config::parse(&sources, &system)
}

/// The programs of Postfix's master.cf.
const POSTFIX: [&str; 28] = [
    "anvil",
    "bounce",
    "cleanup",
    "discard",
    "dnsblog",
    "error",
    "flush",
    "lmtp",
    "local",
    "nqmgr",
    "oqmgr",
    "pickup",
    "pipe",
    "postlogd",
    "postscreen",
    "proxymap",
    "qmgr",
    "qmqpd",
    "scache",
    "showq",
    "smtp",
    "smtpd",
    "spawn",
    "tlsmgr",
    "tlsproxy",
    "trivial-rewrite",
    "verify",
    "virtual",
];

#[test]
fn the_preset_of_postfix_has_settings_for_each_of_its_programs() {
    for program in POSTFIX {
        let config = of_program(program, "sandbox = \"postfix\"").expect(program);
        let sandbox = config.services[0].sandbox().expect(program);
        let is_free = ["local", "pipe", "spawn", "virtual"].contains(&program);
        assert_eq!(sandbox.no_new_privileges, !is_free, "{program}");
        assert_eq!(sandbox.files.are_restricted(), !is_free, "{program}");
        assert_eq!(sandbox.isolate.signals, !is_free, "{program}");
        assert_eq!(sandbox.limits[&Limit::Core].hard, 0, "{program}");
        let set = sandbox.capability_bounding_set.expect(program);
        assert!(
            set.contains(7) && !set.contains(21),
            "{program}: setuid, not sys_admin"
        );
    }
    let config = of_program("cleanup", "sandbox = \"postfix\"").unwrap();
    let written = &config.services[0].sandbox().unwrap().files.read_write;
    assert_eq!(
        written[..],
        ["/q/pid", "/dev/null", "/q/incoming", "/q/hold"]
    );
}

#[test]
fn the_preset_does_not_know_other_programs() {
    let errors = errors(of_program("/usr/bin/x", "sandbox = \"postfix\""));
    let expected = "master.toml: line 2: column 11: preset \"postfix\" does not know the program \
                    /usr/bin/x: expected one of anvil, bounce, cleanup, ";
    assert!(errors[0].starts_with(expected), "{errors:?}");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(!errors[0].contains('_'), "{errors:?}");
}

#[test]
fn settings_of_the_service_take_the_place_of_the_presets() {
    let of = |settings: &str| {
        let config = of_program("smtpd", settings).expect(settings);
        config.services[0].sandbox().expect(settings).clone()
    };
    let preset = of("sandbox = \"postfix\"");
    let changed = of(
        "limit_core = 7\nsandbox = \"postfix\"\nno_new_privileges = false\n\
                      read_only_paths = [\"/a\", \"$preset\", \"-/missing\"]",
    );
    assert_eq!(changed.limits[&Limit::Core].hard, 7);
    assert!(preset.ceilings.contains(&Limit::Core) && !changed.ceilings.contains(&Limit::Core));
    assert!(!changed.no_new_privileges);
    assert_eq!(changed.files.read_only[0], "/a");
    assert_eq!(changed.files.read_only[1..], preset.files.read_only[..]);
    assert_eq!(changed.files.read_write, preset.files.read_write);
    // Without a preset there are none of its paths.
    assert_eq!(
        of("read_only_paths = [\"$preset\", \"/usr\"]")
            .files
            .read_only[..],
        ["/usr"]
    );
    let required = of("sandbox = [\"required\", \"postfix\"]");
    assert!(required.files.required && !preset.files.required);
    let none = of_program("smtpd", "sandbox = \"none\"").unwrap();
    assert_eq!(none.services[0].sandbox(), None);
}

#[test]
fn presets_are_words_of_the_setting_sandbox() {
    for bad in [
        "\"Postfix\"",
        "\"\"",
        "1",
        "[]",
        "[\"postfix\", \"none\"]",
        "[\"required\", \"possible\"]",
        "[\"postfix\", \"required\", \"none\"]",
        "[1]",
        "[\"x\"]",
        "true",
    ] {
        let error = error(&format!("sandbox = {bad}"));
        let words =
            "bad value of \"sandbox\": expected \"postfix\", \"network-service\" or \"none\"";
        assert!(error.contains(words), "{bad}: {error}");
    }
    for bad in ["\"signals\"", "[\"signal\"]", "[1]", "true"] {
        let error = error(&format!("isolate = {bad}"));
        assert!(
            error.ends_with("expected a list of \"signals\" and \"abstract_sockets\""),
            "{error}"
        );
    }
}

#[test]
fn a_preset_leaves_out_what_a_master_without_root_cannot_do() {
    use crate::config::testing::stand_alone;
    let mut sources = stand_alone(None, "a unix n - n - - a\n");
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: b"[service.\"a/unix\"]\nsandbox = \"network-service\"\n".to_vec(),
    });
    let of = |sources: &crate::config::Sources| {
        let config = Config::parse(sources, &FakeSystem::default()).unwrap();
        config.services[0]
            .sandbox()
            .unwrap()
            .capability_bounding_set
    };
    let is_without_root =
        matches!(&sources.base, crate::config::Base::StandAlone(alone) if alone.user.is_some());
    assert_eq!(of(&sources).is_none(), is_without_root);
}

#[test]
fn what_the_kernel_cannot_do_is_told_once() {
    let mut sources = sources(
        "compatibility_level = 3.6\n",
        "a unix n - n - - a\nb unix n - n - - b\n",
    );
    let text = "isolate = [\"signals\"]\n";
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: format!("[service.\"a/unix\"]\n{text}[service.\"b/unix\"]\n{text}").into(),
    });
    let system = FakeSystem {
        landlock_version: 5,
        ..FakeSystem::default()
    };
    let warnings = Config::parse(&sources, &system).unwrap().warnings;
    let told: Vec<_> = warnings
        .iter()
        .filter(|w| w.message.contains("Landlock"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].message.contains("expected 6 (Linux 6.12)"),
        "{told:?}"
    );
}
