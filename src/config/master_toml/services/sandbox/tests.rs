//! Each setting of a sandbox: what it accepts, and what is said of anything else.

use crate::config::testing::{FakeSystem, errors, sources};
use crate::config::{Config, Diagnostics, Source};
use crate::sandbox::{Bounds, IoPriority, Limit, Sandbox};

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
