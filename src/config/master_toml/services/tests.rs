use super::*;
use crate::config::testing::{FakeSystem, errors, sources, stand_alone, warnings};
use crate::config::{Config, Source, User};

const MASTER_CF: &str = "\
spamd inet n - n - 5 spamd-child
127.0.0.1:26 inet n - n - 0 a
local unix - n n - 2 local
qmgr fifo n - n - 1 qmgr
";

fn parse(master_toml: &str) -> Result<Config, Diagnostics> {
    let mut sources = sources("known_tcp_ports = spamd=783\n", MASTER_CF);
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: master_toml.into(),
    });
    Config::parse(&sources, &FakeSystem::default())
}

/// The pool of the service `spamd/inet`, with at most five children, under these settings.
fn spamd(settings: &str) -> Pool {
    let text = format!("[service.\"spamd/inet\"]\n{settings}");
    *parse(&text).expect("a good file").services[0].pool()
}

fn ordered(settings: &str) -> Pool {
    spamd(&format!("accept = \"ordered\"\n{settings}"))
}

fn error(master_toml: &str) -> String {
    let errors = errors(parse(master_toml));
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

/// The corrections of an ordered pool with at most five children, without their positions.
fn corrections(settings: &str) -> Vec<String> {
    let text = format!("[service.\"spamd/inet\"]\naccept = \"ordered\"\n{settings}");
    let warnings = warnings(parse(&text));
    let words = warnings.iter().map(|line| {
        let words = line.splitn(4, ": ").nth(3);
        words.expect("file, line, column, words").to_owned()
    });
    words.collect()
}

#[test]
fn children_share_the_clients_unless_a_table_says_otherwise() {
    let config = parse("[service.\"spamd/inet\"]\naccept = \"ordered\"\n");
    let services = config.expect("a good file").services;
    assert!(services[0].pool().is_ordered());
    assert_eq!(*services[1].pool(), Pool::default());
    assert_eq!(spamd("accept = \"shared\"\n"), Pool::default());
}

#[test]
fn an_ordered_pool_has_spamds_defaults() {
    let pool = ordered("");
    let numbers = (pool.min_children, pool.min_idle, pool.max_idle);
    assert_eq!(numbers, (1, 1, 2));
    assert_eq!(pool.spawn_ramp, Ramp::Single);
    assert_eq!(pool.reply_timeout.as_secs(), 300);
    assert_eq!(pool.ping_interval.as_secs(), 150);
}

#[test]
fn every_key_has_its_effect() {
    let pool = ordered(
        "min_children = 2\nmin_idle = 3\nmax_idle = 4\nspawn_ramp = \"double\"\n\
         reply_timeout = \"2m\"\nping_interval = 7\npreload = true\n\
         preload_max_age = \"1h\"\npreload_max_uses = 50\n",
    );
    let expected = Pool {
        accept: Accept::Ordered,
        min_children: 2,
        min_idle: 3,
        max_idle: 4,
        spawn_ramp: Ramp::Double,
        reply_timeout: Duration::from_secs(120),
        ping_interval: Duration::from_secs(7),
        preload: true,
        preload_max_age: Some(Duration::from_secs(3600)),
        preload_max_uses: Some(50),
    };
    assert_eq!(pool, expected);
}

#[test]
fn a_shared_service_can_have_warm_children() {
    let pool = spamd("min_idle = 2\nspawn_ramp = \"double\"\n");
    assert_eq!((pool.min_idle, pool.spawn_ramp), (2, Ramp::Double));
    assert!(!pool.is_ordered());
}

#[test]
fn a_pool_starts_with_as_many_as_may_be_idle_within_its_bounds() {
    let floor = |settings, max| ordered(settings).floor(max);
    assert_eq!(floor("max_idle = 3\n", 5), 3);
    assert_eq!(floor("max_idle = 3\n", 2), 2);
    assert_eq!(floor("max_idle = 3\n", 0), 3);
    assert_eq!(floor("max_idle = 3\nmin_children = 4\n", 5), 4);
    assert_eq!(spamd("min_idle = 2\n").floor(5), 0);
}

#[test]
fn contradictions_are_corrected_as_spamd_does() {
    assert_eq!(
        corrections("min_children = 0\n"),
        ["\"min_children\" = 0 leaves no child for the first client: using 1"]
    );
    assert_eq!(
        corrections("min_children = 6\n"),
        ["\"min_children\" = 6 is more than maxproc allows: using 5"]
    );
    assert_eq!(
        corrections("min_idle = 6\nmax_idle = 9\n"),
        ["\"min_idle\" = 6 is more than maxproc allows: using 4"]
    );
    assert_eq!(
        corrections("min_idle = 3\n"),
        ["\"max_idle\" = 2 is less than \"min_idle\": using 4"]
    );
    assert_eq!(corrections("min_idle = 5\nmax_idle = 5\n"), [""; 0]);
}

#[test]
fn a_correction_points_at_the_key_or_at_the_table() {
    let text = "[service.\"spamd/inet\"]\nmin_idle = 3\naccept = \"ordered\"\nmax_idle = 1\n";
    assert!(warnings(parse(text))[0].starts_with("master.toml: line 4: column 1: "));
    let text = text.replace("max_idle = 1\n", "");
    assert!(warnings(parse(&text))[0].starts_with("master.toml: line 1: column 10: "));
}

#[test]
fn an_unknown_key_suggests_the_nearest_one() {
    assert_eq!(
        error("[service.\"spamd/inet\"]\n  min_idel = 1\n"),
        "master.toml: line 2: column 3: unknown key \"min_idel\": did you mean \"min_idle\"?"
    );
    let error = error("[service.\"spamd/inet\"]\nkindness = 1\n");
    assert!(
        error.contains("expected one of accept, min_children, "),
        "{error}"
    );
}

#[test]
fn an_unknown_service_suggests_the_nearest_one() {
    assert_eq!(
        warnings(parse("[service.\"spamd/unix\"]\nmin_idle = 1\n")),
        [
            "master.toml: line 1: column 10: no service \"spamd/unix\": its settings have no effect: \
             did you mean \"spamd/inet\"?"
        ]
    );
    let warning = &warnings(parse("[service.clamav]\nnice = 1\n"))[0];
    assert!(
        warning.ends_with("of a line of master.cf, as \"smtp/inet\""),
        "{warning}"
    );
}

#[test]
fn a_service_is_named_as_the_table_names_it() {
    let text = "[service.\"127.0.0.1:26/inet\"]\nmin_idle = 1\n";
    let services = parse(text).expect("a good file").services;
    assert_eq!(services[1].pool().min_idle, 1);
}

#[test]
fn a_disabled_service_may_keep_its_settings() {
    let mut sources = sources(
        "known_tcp_ports = spamd=783\nmaster_service_disable = spamd/inet\n",
        MASTER_CF,
    );
    let text = "[service.\"spamd/inet\"]\nmin_idle = 1\n".into();
    let path = "master.toml".into();
    sources.master_toml = Some(Source { path, text });
    let config = Config::parse(&sources, &FakeSystem::default());
    assert_eq!(config.expect("a good file").services.len(), 3);
}

#[test]
fn settings_of_a_line_that_is_in_error_add_no_error() {
    let mut sources = sources("", "spamd inet n - n - x spamd-child\n");
    let text = "[service.\"spamd/inet\"]\nmin_idle = 1\n".into();
    let path = "master.toml".into();
    sources.master_toml = Some(Source { path, text });
    let errors = errors(Config::parse(&sources, &FakeSystem::default()));
    assert!(
        errors.iter().all(|e| e.starts_with("master.cf: ")),
        "{errors:?}"
    );
}

#[test]
fn values_of_a_wrong_type_say_what_was_expected() {
    for (setting, expected) in [
        (
            "accept = 1",
            "10: bad value of \"accept\": expected \"shared\" or \"ordered\"",
        ),
        (
            "accept = \"x\"",
            "10: bad value of \"accept\": expected \"shared\" or \"ordered\"",
        ),
        (
            "spawn_ramp = true",
            "14: bad value of \"spawn_ramp\": expected \"single\" or \"double\"",
        ),
        (
            "min_idle = \"1\"",
            "12: bad value of \"min_idle\": expected a number of processes",
        ),
        (
            "min_idle = -1",
            "12: bad value of \"min_idle\": expected a number of processes",
        ),
        (
            "min_idle = 2147483648",
            "12: bad value of \"min_idle\": expected a number of processes",
        ),
        (
            "reply_timeout = 0",
            "17: bad value of \"reply_timeout\": expected a time of at least",
        ),
        (
            "reply_timeout = \"x\"",
            "17: bad value of \"reply_timeout\": expected a time of at",
        ),
        (
            "ping_interval = []",
            "17: bad value of \"ping_interval\": expected a time of at least",
        ),
    ] {
        let ordered = if setting.starts_with("accept") {
            ""
        } else {
            "\naccept = \"ordered\""
        };
        let error = error(&format!("[service.\"spamd/inet\"]\n{setting}{ordered}\n"));
        let expected = format!("master.toml: line 2: column {expected}");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn what_only_ordered_pools_have_needs_an_ordered_pool() {
    for key in ["min_children", "max_idle", "reply_timeout", "ping_interval"] {
        assert_eq!(
            error(&format!("[service.\"spamd/inet\"]\n{key} = 1\n")),
            format!(
                "master.toml: line 2: column 1: \"{key}\" needs accept = \"ordered\" beside it"
            )
        );
    }
}

#[test]
fn the_limits_of_templates_need_a_preloaded_service() {
    for key in ["preload_max_age", "preload_max_uses"] {
        for before in ["", "preload = false\n", "accept = \"ordered\"\n"] {
            let line = 2 + before.lines().count();
            assert_eq!(
                error(&format!("[service.\"spamd/inet\"]\n{before}{key} = 1\n")),
                format!(
                    "master.toml: line {line}: column 1: \"{key}\" needs preload = true beside it"
                )
            );
        }
    }
}

#[test]
fn the_limits_of_templates_are_a_time_and_a_number_of_at_least_one() {
    let time = "a time of at least one second: an integer, or a string as \"5m\"";
    let count = "a number of at least 1, as an integer";
    for (key, value, expected) in [
        ("preload_max_age", "0", time),
        ("preload_max_age", "\"1y\"", time),
        ("preload_max_uses", "0", count),
        ("preload_max_uses", "\"5\"", count),
        ("preload_max_uses", "-1", count),
    ] {
        let column = key.len() + 4;
        assert_eq!(
            error(&format!(
                "[service.\"spamd/inet\"]\npreload = true\n{key} = {value}\n"
            )),
            format!(
                "master.toml: line 3: column {column}: bad value of \"{key}\": expected {expected}"
            )
        );
    }
}

#[test]
fn only_who_has_connections_can_be_ordered_to_accept_them() {
    assert_eq!(
        error("[service.\"qmgr/fifo\"]\naccept = \"ordered\"\n"),
        "master.toml: line 2: column 1: accept = \"ordered\" needs connections, which a fifo \
         service has none of: expected \"shared\""
    );
}

#[test]
fn a_service_has_a_table() {
    for text in [
        "service = 1\n",
        "[service]\n\"spamd/inet\" = 1\n",
        "[[service]]\n",
    ] {
        let error = error(text);
        assert!(error.ends_with("expected the table of a service: [service.\"name/type\"]"));
    }
}

/// The child limits and the throttle time of the service `spamd/inet` under these settings.
fn limits(settings: &str) -> (ChildLimits, Duration) {
    let text = format!("[service.\"spamd/inet\"]\n{settings}");
    let service = parse(&text).expect("a good file").services[0].clone();
    (*service.limits(), service.throttle_time)
}

#[test]
fn children_are_looked_after_as_in_postfix_unless_a_table_says_otherwise() {
    assert_eq!(
        limits(""),
        (ChildLimits::default(), Duration::from_secs(60))
    );
    let settings = "crash_percent = 50\nstop_timeout = \"30s\"\nrequest_timeout = 600\n\
                    start_limit = \"100/1m\"\ncapture_output = true\n\
                    max_uses = 100\nmax_age = \"2h\"\nmemory_recycle = \"200M\"\n";
    let expected = ChildLimits {
        throttle_most: None,
        crash_percent: Some(50),
        stop_timeout: Some(Duration::from_secs(30)),
        request_timeout: Some(Duration::from_secs(600)),
        start_limit: Some(StartLimit {
            starts: 100,
            period: Duration::from_secs(60),
        }),
        capture_output: true,
        max_uses: Some(100),
        max_age: Some(Duration::from_secs(7200)),
        memory_recycle: Some(200 << 20),
    };
    assert_eq!(limits(settings), (expected, Duration::from_secs(60)));
}

#[test]
fn a_time_to_stop_that_postfix_stop_does_not_give_is_warned_about() {
    let text = |time| format!("[service.\"spamd/inet\"]\nstop_timeout = {time}\n");
    let expected = "master.toml: line 2: column 1: \"stop_timeout\" = 6 s is longer than \"postfix \
                    stop\" waits, which kills all processes after 5 s: expected at most 5 s";
    assert_eq!(warnings(parse(&text(6))), [expected]);
    assert_eq!(warnings(parse(&text(5))), [""; 0]);
    let user = User {
        uid: 1000,
        gid: 1000,
    };
    let mut alone = stand_alone(Some(user), MASTER_CF);
    alone.master_cf.text = b"a unix - n n - 2 local\n".to_vec();
    alone.master_toml = Some(Source {
        path: "master.toml".into(),
        text: text(6).replace("spamd/inet", "a/unix").into(),
    });
    let config = Config::parse(&alone, &FakeSystem::default());
    assert_eq!(warnings(config), [""; 0]);
}

#[test]
fn a_throttle_time_is_one_time_or_grows_from_one_to_another() {
    let grows = |most| ChildLimits {
        throttle_most: Some(Duration::from_secs(most)),
        ..ChildLimits::default()
    };
    let five = Duration::from_secs(5);
    for same in ["5", "\"5s\""] {
        let limits = limits(&format!("throttle_time = {same}\n"));
        assert_eq!(limits, (ChildLimits::default(), five));
    }
    assert_eq!(limits("throttle_time = \"5s..2m\"\n"), (grows(120), five));
    assert_eq!(limits("throttle_time = \"5..5\"\n"), (grows(5), five));
}

#[test]
fn what_children_are_looked_after_by_must_make_sense() {
    let range = "a time of at least one second, or two, the longer one last, as \"1s..60s\"";
    let time = "a time of at least one second: an integer, or a string as \"5m\"";
    let starts = "a number of starts and a period of at least one second, as \"100/10s\"";
    let uses = "a number of clients, at least 1";
    let memory = "a size in bytes, at least 1, or a string as \"200M\" (K, M, G, T)";
    for (key, value, expected) in [
        ("start_limit", "100", starts),
        ("start_limit", "\"100\"", starts),
        ("start_limit", "\"0/10s\"", starts),
        ("start_limit", "\"-1/10s\"", starts),
        ("start_limit", "\"100/0s\"", starts),
        ("start_limit", "\"100/10x\"", starts),
        ("start_limit", "\"9999999999/10s\"", starts),
        ("throttle_time", "\"60s..1s\"", range),
        ("throttle_time", "\"0s..1s\"", range),
        ("throttle_time", "\"1s..\"", range),
        ("throttle_time", "0", time),
        ("crash_percent", "0", "a number from 1 to 100"),
        ("crash_percent", "101", "a number from 1 to 100"),
        ("crash_percent", "\"50\"", "a number from 1 to 100"),
        ("stop_timeout", "true", time),
        ("request_timeout", "\"soon\"", time),
        ("capture_output", "1", "true or false"),
        ("preload", "\"yes\"", "true or false"),
        ("max_uses", "0", uses),
        ("max_uses", "-1", uses),
        ("max_uses", "\"5\"", uses),
        ("max_uses", "4294967296", uses),
        ("max_age", "0", time),
        ("max_age", "\"1y\"", time),
        ("memory_recycle", "0", memory),
        ("memory_recycle", "-5", memory),
        ("memory_recycle", "\"0M\"", memory),
        ("memory_recycle", "\"5X\"", memory),
        ("memory_recycle", "\"99999999999G\"", memory),
    ] {
        let column = key.len() + 4;
        assert_eq!(
            error(&format!("[service.\"spamd/inet\"]\n{key} = {value}\n")),
            format!(
                "master.toml: line 2: column {column}: bad value of \"{key}\": expected {expected}"
            )
        );
    }
}
