use super::*;
use crate::config::testing::{FakeSystem, errors, ips, parse_main, sources, stand_alone, warnings};
use crate::config::{Config, Endpoint, Family, Source};

fn read(main_cf: &str) -> Parameters {
    parse_main(main_cf).expect("a good main.cf").parameters
}

fn only_error(main_cf: &str) -> String {
    let errors = errors(parse_main(main_cf));
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

/// The addresses of an `inet` service without a host.
fn listeners(main_cf: &str, system: &FakeSystem) -> Result<Config, Diagnostics> {
    Config::parse(&sources(main_cf, "smtp inet n - n - - a\n"), system)
}

fn listener_ips(main_cf: &str, system: &FakeSystem) -> Vec<std::net::IpAddr> {
    let config = listeners(main_cf, system).expect("a good main.cf");
    match &config.services[0].endpoint {
        Endpoint::Inet(addresses) => addresses.iter().map(|a| a.ip()).collect(),
        Endpoint::Path(path) => panic!("{path:?} is no address"),
    }
}

/// `postconf -d` of Debian's Postfix 3.7.11, on a machine called `vm`.
#[test]
fn defaults_are_those_of_postfix() {
    let parameters = read("");
    assert_eq!(
        parameters.daemon_directory,
        Path::new("/usr/lib/postfix/sbin")
    );
    assert_eq!(parameters.queue_directory, Path::new("/var/spool/postfix"));
    assert_eq!(parameters.data_directory, Path::new("/var/lib/postfix"));
    assert_eq!(parameters.mail_owner.0, "postfix");
    assert_eq!(parameters.mail_owner.1.uid, 105);
    assert_eq!(parameters.myhostname, "vm.localdomain");
    assert_eq!(parameters.default_process_limit, 100);
    assert_eq!(parameters.service_throttle_time, Duration::from_secs(60));
    assert_eq!(parameters.service_kill_time, Duration::from_secs(10));
    assert_eq!(parameters.syslog_facility, "mail");
    assert_eq!(parameters.syslog_name, "postfix");
    assert_eq!(parameters.maillog_file, "");
    assert_eq!(parameters.maillog_file_permissions, 0o600);
    assert_eq!(parameters.postlog_service_name, "postlog");
    assert_eq!(parameters.debugger_command, "");
    assert_eq!(parameters.inet_windowsize, 0);
    assert_eq!(parameters.import_environment.len(), 9);
}

#[test]
fn other_programs_parameters_are_not_expanded() {
    assert_eq!(read("smtpd_banner = ${\nfoo = $bar $\n"), read(""));
}

#[test]
fn what_the_master_reads_may_refer_to_other_parameters() {
    let parameters = read("syslog_name = $mine/$mail_name\nmine = $mail_owner\n");
    assert_eq!(parameters.syslog_name, "postfix/Postfix");
}

#[test]
fn the_instance_names_the_log() {
    assert_eq!(
        read("multi_instance_name = postfix-2\n").syslog_name,
        "postfix-2"
    );
}

#[test]
fn a_short_hostname_gets_the_domain() {
    assert_eq!(
        read("mydomain = example.com\n").myhostname,
        "vm.example.com"
    );
    assert_eq!(
        read("myhostname = mail.example.org\nsyslog_name = $mydomain\n").syslog_name,
        "example.org"
    );
    assert_eq!(
        read("myhostname = mail\nsyslog_name = $mydomain\n").syslog_name,
        "localdomain"
    );
}

#[test]
fn a_full_hostname_gives_the_domain() {
    let system = FakeSystem {
        hostname: "mail.example.net",
        ..FakeSystem::default()
    };
    let main_cf = "compatibility_level = 2\nsyslog_name = $mydomain\n";
    let config = listeners(main_cf, &system).expect("a good main.cf");
    assert_eq!(config.parameters.myhostname, "mail.example.net");
    assert_eq!(config.parameters.syslog_name, "example.net");
}

#[test]
fn hostname_and_domain_must_be_valid() {
    assert_eq!(
        only_error("myhostname = a..b\n"),
        "main.cf: line 1: column 14: parameter myhostname: bad parameter value: a..b: \
         misplaced \".\": expected a host name"
    );
    assert!(only_error("mydomain = -x\nmyhostname = a\n").contains("parameter mydomain"));
    assert!(only_error("myhostname =\n").contains("bad string length 0 < 1: myhostname ="));
}

#[test]
fn the_process_id_cannot_be_set() {
    let parameters = read("process_id = 1\ndebugger_command = gdb $process_name $process_id\n");
    assert_eq!(parameters.debugger_command, "gdb master 4711");
}

#[test]
fn config_directory_is_where_the_files_are() {
    let main_cf = "config_directory = /elsewhere\n";
    let referring = format!("{main_cf}daemon_directory = $config_directory/sbin\n");
    assert_eq!(
        read(&referring).daemon_directory,
        Path::new("/elsewhere/sbin")
    );
    assert!(
        warnings(parse_main(main_cf)).contains(
            &"main.cf: line 1: column 1: overriding earlier entry: config_directory=/etc/postfix"
                .to_owned()
        )
    );
}

#[test]
fn integers_are_checked() {
    assert_eq!(
        only_error("default_process_limit = x\n"),
        "main.cf: line 1: column 25: bad numerical configuration: default_process_limit = x: \
         expected an integer of at most 2147483647"
    );
    assert_eq!(
        only_error("default_process_limit = 0\n"),
        "main.cf: line 1: column 25: invalid default_process_limit parameter value 0 < 1"
    );
    assert_eq!(read("tcp_windowsize = 65535\n").inet_windowsize, 65535);
    assert_eq!(read("tcp_windowsize = -1\n").inet_windowsize, 0);
}

#[test]
fn a_comment_behind_a_value_is_told_as_what_it_is() {
    let found = errors(parse_main(
        "inet_interfaces = nowhere # all\nother = a # b\n",
    ));
    let hint = "main.cf: line 1: column 27: \"#\" begins a comment only as the first character of a \
                line: here it is text";
    assert!(found.contains(&hint.to_owned()), "{found:?}");
    assert!(
        found.iter().all(|line| !line.contains("line 2")),
        "{found:?}"
    );
    let warned = warnings(parse_main("syslog_name = a#b\n"));
    assert_eq!(warned.iter().filter(|line| line.contains('#')).count(), 0);
}

#[test]
fn booleans_are_words_of_postfix_or_of_toml() {
    assert!(!read("").allow_empty_table);
    for (value, expected) in [("yes", true), ("YES", true), ("true", true), ("no", false)] {
        let parameters = read(&format!("allow_empty_table = {value}\n"));
        assert_eq!(parameters.allow_empty_table, expected);
    }
    for value in ["1", "", "maybe"] {
        let error = only_error(&format!("allow_empty_table ={value}\n"));
        let expected = format!(
            "main.cf: line 1: column 20: bad boolean configuration: allow_empty_table = {value}: \
             expected yes or no"
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn times_are_checked() {
    assert_eq!(
        read("service_throttle_time = 2h\n")
            .service_throttle_time
            .as_secs(),
        7200
    );
    assert_eq!(
        only_error("service_throttle_time = 2x\n"),
        "main.cf: line 1: column 25: parameter service_throttle_time: bad time value or unit: \
         2x: expected a number and s, m, h, d or w"
    );
    assert_eq!(
        only_error("service_kill_time = 0\n"),
        "main.cf: line 1: column 21: invalid service_kill_time: 0 (min 1)"
    );
}

#[test]
fn the_mail_owner_is_a_user_without_privileges_and_aliases() {
    for (owner, why) in [
        ("somebody", "unknown user name value: somebody"),
        ("root", "user root has privileged user ID"),
        ("wheel", "user wheel has privileged group ID"),
        (
            "postfix2",
            "user postfix2 has the same user ID 105 as user postfix",
        ),
    ] {
        assert_eq!(
            only_error(&format!("mail_owner = {owner}\n")),
            format!("main.cf: line 1: column 14: parameter mail_owner: {why}")
        );
    }
}

#[test]
fn what_a_file_lacks_is_a_finding_about_the_file() {
    let system = FakeSystem {
        users: Vec::new(),
        ..FakeSystem::default()
    };
    assert_eq!(
        errors(listeners("compatibility_level = 2\n", &system)),
        ["main.cf: parameter mail_owner: unknown user name value: postfix"]
    );
}

#[test]
fn the_facility_is_one_that_syslog_has() {
    assert_eq!(read("syslog_facility = local7\n").syslog_facility, "local7");
    assert!(only_error("syslog_facility = MAIL\n").contains("unrecognized value: MAIL"));
}

#[test]
fn the_log_file_is_in_an_allowed_place() {
    assert_eq!(
        read("maillog_file = /var/log/mail\n").maillog_file,
        "/var/log/mail"
    );
    assert_eq!(
        read("maillog_file = /dev/stdout\n").maillog_file,
        "/dev/stdout"
    );
    assert_eq!(
        only_error("maillog_file = /etc/passwd\n"),
        "main.cf: line 1: column 16: maillog_file value '/etc/passwd' does not match any prefix \
         in maillog_file_prefixes: expected one of /var, /dev/stdout"
    );
}

#[test]
fn the_log_file_is_a_regular_one() {
    assert_eq!(
        only_error("maillog_file = /var/fifo\n"),
        "main.cf: line 1: column 16: parameter maillog_file: /var/fifo: it is a FIFO, expected a \
         regular file or /dev/stdout"
    );
}

#[test]
fn bad_permissions_are_ignored_with_a_warning() {
    assert_eq!(
        read("maillog_file_permissions = 0644\n").maillog_file_permissions,
        0o644
    );
    assert_eq!(
        read("maillog_file_permissions = 640\n").maillog_file_permissions,
        0o640
    );
    let main_cf = "compatibility_level = 1\nmaillog_file_permissions = 0666\n";
    assert_eq!(read(main_cf).maillog_file_permissions, 0o600);
    assert_eq!(
        warnings(parse_main(main_cf)),
        [
            "main.cf: line 2: column 28: ignoring bad permissions: maillog_file_permissions = \
             0666: expected 644, 640 or 600, using 600"
        ]
    );
}

#[test]
fn the_environment_is_kept_or_set() {
    let keep = |name: &str| ImportedVariable::Keep(name.to_owned());
    let set = |name: &str, value: &str| ImportedVariable::Set(name.to_owned(), value.into());
    assert_eq!(
        read("import_environment = TZ, LANG=C { A = b c }\n").import_environment,
        [keep("TZ"), set("LANG", "C"), set("A", "b c")]
    );
    assert!(only_error("import_environment = {A = b\n").contains("missing '}' in \"{A = b\""));
    assert!(only_error("import_environment = =b\n").contains("expected \"name = value\": \"=b\""));
}

#[test]
fn a_compatibility_level_has_up_to_three_numbers() {
    assert!(
        only_error("compatibility_level = new\n")
            .contains("malformed compatibility level syntax: \"new\"")
    );
}

#[test]
fn all_interfaces_are_the_wildcards_of_the_enabled_protocols() {
    let system = FakeSystem::default();
    assert_eq!(listener_ips("", &system), ips(&["0.0.0.0", "::"]));
    assert_eq!(
        listener_ips("inet_protocols = ipv6\n", &system),
        ips(&["::"])
    );
    assert_eq!(
        listener_ips("inet_protocols = ipv6, ipv4\n", &system),
        ips(&["0.0.0.0", "::"])
    );
}

#[test]
fn loopback_interfaces_are_those_of_the_machine() {
    let system = FakeSystem::default();
    assert_eq!(
        listener_ips("inet_interfaces = loopback-only\n", &system),
        ips(&["127.0.0.1", "::1"])
    );
}

#[test]
fn interfaces_are_names_and_addresses() {
    let system = FakeSystem::default();
    assert_eq!(
        listener_ips(
            "inet_interfaces = $myhostname, [::1], 127.0.0.1\nmyhostname=mail.example.com\n",
            &system
        ),
        ips(&["127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"])
    );
}

#[test]
fn a_host_of_inet_interfaces_is_looked_up_once() {
    let doubled = (0..8)
        .map(|n| format!("a{n} = $a{m}, $a{m}\n", m = n + 1))
        .collect::<String>();
    let main_cf = format!("inet_interfaces = $a0\n{doubled}a8 = mail.example.com\n");
    let system = FakeSystem::default();
    let addresses = listener_ips(&main_cf, &system);
    assert_eq!(addresses, ips(&["192.0.2.1", "2001:db8::1"]));
    assert_eq!(system.lookups.get(), 1);
}

#[test]
fn interfaces_must_be_local() {
    assert_eq!(
        only_error("inet_interfaces = 127.0.0.1, 192.0.2.77\n"),
        "main.cf: line 1: column 19: parameter inet_interfaces: no local interface found for \
         192.0.2.77: no network interface has it; set bind_missing_addresses to yes to listen \
         there before one has"
    );
    assert_eq!(
        only_error("inet_interfaces = nowhere.example.com\n"),
        "main.cf: line 1: column 19: parameter inet_interfaces: host not found: \
         nowhere.example.com: Name or service not known"
    );
}

#[test]
fn a_name_without_a_local_address_is_left_out_if_another_address_is_left() {
    let main_cf = "inet_interfaces = localhost, nowhere.example.com, partly.example.com\n";
    let system = FakeSystem {
        interfaces: ips(&["127.0.0.1", "192.0.2.1"]),
        ..FakeSystem::default()
    };
    let addresses = ips(&["127.0.0.1", "192.0.2.1"]);
    assert_eq!(listener_ips(main_cf, &system), addresses);
    let sources = sources(main_cf, "25 inet n - n - - smtpd\n");
    let warned = warnings(Config::parse(&sources, &system));
    let begin = "main.cf: line 1: column 19: parameter inet_interfaces: ";
    let expected = [
        "host not found: nowhere.example.com: ",
        "no local interface found for 192.0.2.9: ",
        "no local interface found for ::1: ",
    ];
    for (warning, expected) in warned.iter().zip(expected) {
        let expected = format!("{begin}{expected}");
        assert!(warning.starts_with(&expected), "{warning}");
        assert!(warning.ends_with(": left out"), "{warning}");
    }
    assert_eq!(warned.len(), expected.len(), "{warned:?}");
}

#[test]
fn addresses_that_are_missing_are_bound_if_that_is_wanted() {
    let main_cf =
        "bind_missing_addresses = yes\ninet_interfaces = 192.0.2.77, partly.example.com\n";
    assert_eq!(
        listener_ips(main_cf, &FakeSystem::default()),
        ips(&["192.0.2.1", "192.0.2.9", "192.0.2.77"])
    );
}

#[test]
fn a_service_needs_an_interface() {
    let system = FakeSystem {
        interfaces: ips(&["192.0.2.1"]),
        ..FakeSystem::default()
    };
    let main_cf = "compatibility_level = 2\ninet_interfaces = loopback-only\n";
    assert_eq!(
        errors(listeners(main_cf, &system)),
        [
            "master.cf: line 1: column 1: service definition requires valid host name or \
             address, or non-empty inet_interfaces setting"
        ]
    );
}

#[test]
fn an_unknown_protocol_is_an_error() {
    assert_eq!(
        errors(parse_main("inet_protocols = ipv4, IPv6\n"))[0],
        "main.cf: line 1: column 18: unknown inet_protocols value \"IPv6\" in \"ipv4, IPv6\": \
         expected \"all\", \"ipv4\" or \"ipv6\""
    );
}

#[test]
fn a_protocol_that_the_kernel_lacks_is_dropped_with_a_warning() {
    let system = FakeSystem {
        families: vec![Family::Ipv4],
        ..FakeSystem::default()
    };
    let main_cf = "compatibility_level = 2\ninet_protocols = all\n";
    assert_eq!(listener_ips(main_cf, &system), ips(&["0.0.0.0"]));
    assert_eq!(
        warnings(listeners(main_cf, &system)),
        [
            "main.cf: line 2: column 18: inet_protocols: disabling IPv6 name/address support: \
             the kernel does not have it"
        ]
    );
}

#[test]
fn without_protocols_inet_services_are_disabled() {
    let main_cf = "compatibility_level = 2\ninet_protocols =\ninet_interfaces = nowhere\n";
    let config = listeners(main_cf, &FakeSystem::default()).expect("warnings only");
    assert!(config.services.is_empty());
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "main.cf: line 2: column 17: all network protocols are disabled (inet_protocols = )",
            "main.cf: line 2: column 17: disabling all type \"inet\" services in master.cf",
        ]
    );
}

#[test]
fn a_bad_port_name_is_a_warning() {
    assert_eq!(
        warnings(parse_main(
            "compatibility_level = 2\nknown_tcp_ports = a=1, b = x\n"
        )),
        ["main.cf: line 2: column 19: known_tcp_ports: in \"b = x\": non-numerical service port"]
    );
}

#[test]
fn a_finding_that_two_parameters_share_is_reported_once() {
    let errors = errors(parse_main("a = $\nsyslog_name = $a\nmail_owner = $a\n"));
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn findings_come_in_the_order_of_lines() {
    let main_cf = "service_kill_time = 0\ninet_protocols = x\ndefault_process_limit = 0\n";
    let errors = errors(parse_main(main_cf));
    let lines: Vec<&str> = errors.iter().map(|e| &e[..15]).collect();
    assert_eq!(
        lines[..3],
        ["main.cf: line 1", "main.cf: line 2", "main.cf: line 3"]
    );
}

fn read_stand_alone(user: Option<User>, master_toml: &str) -> Result<Parameters, Diagnostics> {
    let mut sources = stand_alone(user, "");
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: master_toml.into(),
    });
    Parameters::parse(&sources, &FakeSystem::default())
}

const ORDINARY_USER: User = User {
    uid: 1000,
    gid: 1000,
};

#[test]
fn without_postfix_defaults_are_for_anybody() {
    let parameters = read_stand_alone(None, "").expect("good defaults");
    assert_eq!(parameters.daemon_directory, Path::new("/opt/master/bin"));
    assert_eq!(parameters.queue_directory, Path::new("/run/user/$1/master"));
    assert_eq!(parameters.mail_owner.0, "nobody");
    assert_eq!(parameters.syslog_name, "master");
    assert_eq!(parameters.default_process_limit, 100);
    let kept = ImportedVariable::Keep("PATH".into());
    assert!(parameters.import_environment.contains(&kept));
    assert!(parameters.stand_alone);
}

#[test]
fn without_root_everything_runs_as_one_user() {
    let parameters = read_stand_alone(Some(ORDINARY_USER), "maillog_file = \"/home/a/log\"\n")
        .expect("a user's own file");
    assert_eq!(parameters.mail_owner, ("1000".to_owned(), ORDINARY_USER));
    assert_eq!(parameters.maillog_file, "/home/a/log");
}

#[test]
fn master_toml_overrides_what_stands_alone() {
    let toml = "queue_directory = \"/srv/q\"\nmail_owner = \"postfix\"\n";
    let parameters = read_stand_alone(None, toml).expect("a good master.toml");
    assert_eq!(parameters.queue_directory, Path::new("/srv/q"));
    assert_eq!(parameters.mail_owner.0, "postfix");
}

#[test]
fn what_no_file_says_is_looked_for_in_master_toml() {
    let mut system = FakeSystem::default();
    system.users.retain(|(name, _)| *name != "nobody");
    let errors = errors(Config::parse(
        &stand_alone(None, "a unix - - - - - a\n"),
        &system,
    ));
    assert_eq!(
        errors,
        ["/etc/postfix/master.toml: parameter mail_owner: unknown user name value: nobody"]
    );
}

/// The parameters in a section of the manual page, each with the text in parentheses.
fn manual(section: &str) -> Vec<(String, String)> {
    let page = include_str!("../../../man/master.5");
    let start = page.find(section).expect("the section");
    let text = &page[start..];
    let end = text.find(".El\n").expect("the end of the list");
    let entry = |line: &str| {
        let entry = line.strip_prefix(".It Va ")?;
        let (name, default) = entry.split_once(" Pq ").unwrap_or((entry, ""));
        Some((name.to_owned(), default.to_owned()))
    };
    text[..end].lines().filter_map(entry).collect()
}

#[test]
fn the_manual_has_every_parameter_and_its_default() {
    let documented = manual("The master reads these");
    let mut read: Vec<_> = names().collect();
    read.sort_unstable();
    let in_manual: Vec<_> = documented.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(in_manual, read);
    for (name, value) in DEFAULTS {
        let (_, shown) = documented.iter().find(|(known, _)| known == name).unwrap();
        let expected = match (name, value) {
            ("import_environment", _) => "see below",
            (_, "") => "empty",
            (_, value) => value,
        };
        assert_eq!(shown, expected, "{name}");
    }
}

#[test]
fn the_manual_has_every_default_that_differs_without_postfix() {
    let documented: Vec<_> = manual(".Ss Defaults without Postfix").into_iter().collect();
    for (name, _) in STAND_ALONE_DEFAULTS {
        assert!(documented.iter().any(|(known, _)| known == name), "{name}");
    }
    assert_eq!(
        documented.len(),
        STAND_ALONE_DEFAULTS.len() + 4,
        "{documented:?}"
    );
}

#[test]
fn the_log_has_one_form_and_one_place() {
    assert_eq!(read("").log_format, LogFormat::Text);
    assert_eq!(read("log_format = json\n").log_format, LogFormat::Json);
    assert_eq!(
        read("log_format = journal\n").log_format,
        LogFormat::Journal
    );
    assert_eq!(
        only_error("log_format = xml\n"),
        "main.cf: line 1: column 14: parameter log_format: bad value: xml: expected text, json or \
         journal"
    );
    assert_eq!(
        only_error("log_format = journal\nmaillog_file = /var/log/maillog\n"),
        "main.cf: line 1: column 14: parameter log_format: journal and maillog_file are two \
         places: expected one of them"
    );
}
