use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::config::testing::{FakeSystem, errors, parse_master, sources, stand_alone, warnings};
use crate::config::{Config, Diagnostics, Endpoint, Kind, Service, Source, Wakeup};

fn services(master_cf: &str) -> Vec<Service> {
    let config = parse_master(master_cf).expect("a good table");
    config.services.iter().map(|s| Service::clone(s)).collect()
}

fn service(line: &str) -> Service {
    let mut services = services(line);
    assert_eq!(services.len(), 1);
    services.remove(0)
}

fn only_error(master_cf: &str) -> String {
    let errors = errors(parse_master(master_cf));
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

fn names(main_cf: &str, master_cf: &str) -> Vec<String> {
    let config = Config::parse(&sources(main_cf, master_cf), &FakeSystem::default());
    let services = config.expect("a good table").services;
    services.iter().map(|s| s.name.clone()).collect()
}

fn addresses(name: &str) -> Vec<String> {
    match service(&format!("{name} inet n - - - - a\n")).endpoint {
        Endpoint::Inet(addresses) => addresses.iter().map(SocketAddr::to_string).collect(),
        Endpoint::Path(path) => panic!("{path:?} is no address"),
    }
}

fn canonical(name: &str) -> String {
    service(&format!("{name} inet n - - - - a\n")).canonical
}

fn name_error(name: &str) -> String {
    only_error(&format!("{name} inet n - - - - a\n"))
}

#[test]
fn a_hyphen_takes_the_default() {
    let service = service("bounce unix - - - - - bounced\n");
    assert_eq!(service.kind, Kind::Unix);
    assert_eq!(service.canonical, "private/bounce");
    assert_eq!(service.endpoint, Endpoint::Path("private/bounce".into()));
    assert!(service.unprivileged);
    assert!(!service.chroot);
    assert_eq!(service.wakeup, None);
    assert_eq!(service.max, 100);
    assert_eq!(service.backlog, 100);
    assert_eq!(service.path, Path::new("/usr/lib/postfix/sbin/bounced"));
    assert_eq!(service.throttle_time, Duration::from_secs(60));
    assert_eq!(service.line, 1);
}

#[test]
fn columns_may_be_written_out() {
    let service = service("\n# c\npickup fifo n n y 60 500 dir/pickup\n");
    assert_eq!(service.kind, Kind::Fifo);
    assert_eq!(service.canonical, "public/pickup");
    assert!(!service.unprivileged);
    assert!(service.chroot);
    assert_eq!(service.max, 500);
    assert_eq!(service.backlog, 500);
    assert_eq!(service.command, "dir/pickup");
    assert_eq!(service.line, 3);
}

#[test]
fn all_types_are_known() {
    let table = "25 inet n - - - - a\nb unix - - - - - a\nc unix-dgram - - - - - a\n\
                 d fifo - - - - - a\ne pass - - - - - a\n";
    let kinds: Vec<Kind> = services(table).iter().map(|s| s.kind).collect();
    assert_eq!(kinds, Kind::ALL);
}

#[test]
fn a_command_that_begins_with_a_slash_stays_in_the_daemon_directory() {
    assert_eq!(
        service("a unix - - - - - /bin/sh\n").path,
        Path::new("/usr/lib/postfix/sbin//bin/sh")
    );
}

#[test]
fn a_wakeup_comes_every_so_many_seconds() {
    let every = |seconds| Duration::from_secs(seconds);
    assert_eq!(
        service("a unix - - - 60 - a\n").wakeup,
        Some(Wakeup {
            every: every(60),
            conditional: false
        })
    );
    assert_eq!(service("a unix - - - 0 - a\n").wakeup, None);
    assert_eq!(service("a unix - - - 0? - a\n").wakeup, None);
}

#[test]
fn a_conditional_wakeup_waits_for_first_use() {
    let wakeup = service("a unix - - - 1000? - a\n")
        .wakeup
        .expect("a wake-up");
    assert!(wakeup.conditional);
    assert_eq!(wakeup.every.as_secs(), 1000);
}

#[test]
fn text_after_a_number_is_ignored_with_a_warning() {
    let table = "a unix - - - 60m 5? a\n";
    assert_eq!(service(table).wakeup.map(|w| w.every.as_secs()), Some(60));
    assert_eq!(service(table).max, 5);
    assert_eq!(
        warnings(parse_master(table)),
        [
            "master.cf: line 1: column 16: field \"wakeup_time\": ignoring \"m\" after \"60\": \
             expected seconds, at most 2147483647, perhaps with \"?\" after them, or \"-\"",
            "master.cf: line 1: column 19: field \"max_proc\": ignoring \"?\" after \"5\": \
             expected a number of processes, at most 2147483647, 0 for no limit, or \"-\"",
        ]
    );
}

#[test]
fn a_datagram_service_cannot_be_woken_up() {
    let table = "a unix-dgram - - - 60 - a\n";
    assert_eq!(service(table).wakeup, None);
    assert!(warnings(parse_master(table))[0].contains("a unix-dgram service cannot be woken up"));
}

#[test]
fn zero_processes_are_no_limit() {
    let service = service("a unix - - - - 0 a\n");
    assert_eq!(service.max, 0);
    assert_eq!(service.backlog, 100);
}

#[test]
fn arguments_continue_on_lines_that_begin_with_white_space() {
    let service = service("a unix - - - - - a\n  -o x=y\n# c\n\t{ -o } {x = {a} b }\n");
    assert_eq!(service.args, ["-o", "x=y", "-o", "x = {a} b"]);
}

#[test]
fn braces_inside_an_argument_stay() {
    assert_eq!(
        service("a unix - - - - - a b={c d} {}\n").args,
        ["b={c d}", ""]
    );
}

#[test]
fn braces_must_match() {
    assert_eq!(
        only_error("a unix - - - - - a b {c d\n"),
        "master.cf: line 1: column 22: missing '}' in \"{c d\""
    );
    assert_eq!(
        only_error("a unix - - - - - a\n  {c}d e\n"),
        "master.cf: line 2: column 6: syntax error after '}' in \"{c}d\": expected white space"
    );
}

#[test]
fn arguments_are_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let sources = sources(
        "compatibility_level = 2\n",
        b"a unix - - - - - a \xff\n".to_vec(),
    );
    let config = Config::parse(&sources, &FakeSystem::default()).expect("a good table");
    assert_eq!(config.services[0].args[0].as_bytes(), b"\xff");
}

#[test]
fn names_and_commands_are_utf_8() {
    let sources = sources(
        "compatibility_level = 2\n",
        b"\xff unix - - - - - \xff\n".to_vec(),
    );
    let errors = errors(Config::parse(&sources, &FakeSystem::default()));
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[test]
fn a_port_without_a_host_listens_on_the_interfaces() {
    assert_eq!(addresses("25"), ["0.0.0.0:25", "[::]:25"]);
    assert_eq!(addresses("smtp"), ["0.0.0.0:25", "[::]:25"]);
    assert_eq!(addresses("http"), ["0.0.0.0:80", "[::]:80"]);
}

#[test]
fn a_host_listens_on_its_addresses() {
    assert_eq!(addresses("127.0.0.1:10025"), ["127.0.0.1:10025"]);
    assert_eq!(addresses("[::1]:smtp"), ["[::1]:25"]);
    assert_eq!(addresses("localhost:25"), ["127.0.0.1:25", "[::1]:25"]);
    assert_eq!(
        addresses("mail.example.com:25"),
        ["192.0.2.1:25", "[2001:db8::1]:25"]
    );
}

#[test]
fn canonical_names_have_numbers() {
    assert_eq!(canonical("smtp"), "25");
    assert_eq!(canonical(":025"), "25");
    assert_eq!(canonical("127.0.0.1:smtp"), "[127.0.0.1]:25");
    assert_eq!(canonical("[IPv6:0:0::1]:smtp"), "[::1]:25");
    assert_eq!(canonical("localhost:smtp"), "[localhost]:25");
    assert_eq!(canonical("[localhost]:25"), "[localhost]:25");
}

#[test]
fn a_host_must_have_an_address() {
    assert_eq!(
        name_error("nowhere:25"),
        "master.cf: line 1: column 1: bad hostname or network address: nowhere: \
         Name or service not known"
    );
}

#[test]
fn a_port_is_a_number_or_a_known_service() {
    for port in ["0", "65536", "99999999999999999999", "nothing"] {
        assert_eq!(
            name_error(port),
            format!(
                "master.cf: line 1: column 1: bad port: \"{port}\": expected 1..65535, or a TCP \
                 service of known_tcp_ports or services(5)"
            )
        );
    }
}

#[test]
fn a_malformed_name_says_what_was_expected() {
    assert_eq!(
        name_error("[::1:25"),
        "master.cf: line 1: column 1: missing \"]\" in \"[::1:25\": expected \"port\", \
         \"host:port\" or \"[address]:port\""
    );
}

#[test]
fn an_inet_service_cannot_be_private() {
    for private in ["-", "y"] {
        assert_eq!(
            only_error(&format!("25 inet {private} - - - - a\n")),
            "master.cf: line 1: column 9: inet service cannot be private: expected \"n\""
        );
    }
}

#[test]
fn the_number_of_listeners_has_a_limit() {
    assert!(name_error("many.example.com:25").ends_with("257 addresses: expected at most 256"));
}

#[test]
fn a_path_stays_in_its_directory() {
    for name in ["../a", "a/../b", "/a", "a/", "a//b", ".", ".."] {
        let error = only_error(&format!("{name} unix - - - - - a\n"));
        assert!(error.contains("bad service name"), "{error}");
    }
    assert_eq!(service("a/b unix n - - - - a\n").canonical, "public/a/b");
}

#[test]
fn a_socket_path_fits_its_address() {
    let line = |length: usize, kind: &str| {
        let name = "a".repeat(length - "private/".len());
        format!("{name} {kind} - - - - - a\n")
    };
    assert_eq!(service(&line(107, "unix")).canonical.len(), 107);
    assert!(only_error(&line(108, "unix")).contains("unix-domain name too long: 108 bytes"));
    assert!(only_error(&line(108, "pass")).contains("unix-domain name too long"));
    assert_eq!(service(&line(108, "fifo")).canonical.len(), 108);
}

#[test]
fn every_bad_column_is_an_error_of_its_own() {
    assert_eq!(
        errors(parse_master("a unix x yes N x -1 - {\n")),
        [
            "master.cf: line 1: column 8: field \"private\": bad value: \"x\": \
             expected \"y\", \"n\" or \"-\"",
            "master.cf: line 1: column 10: field \"unprivileged\": bad value: \"yes\": \
             expected \"y\", \"n\" or \"-\"",
            "master.cf: line 1: column 14: field \"chroot\": bad value: \"N\": \
             expected \"y\", \"n\" or \"-\"",
            "master.cf: line 1: column 16: field \"wakeup_time\": bad value: \"x\": \
             expected seconds, at most 2147483647, perhaps with \"?\" after them, or \"-\"",
            "master.cf: line 1: column 18: field \"max_proc\": bad value: \"-1\": \
             expected a number of processes, at most 2147483647, 0 for no limit, or \"-\"",
            "master.cf: line 1: column 21: field \"command\" has no default value",
            "master.cf: line 1: column 23: missing '}' in \"{\"",
        ]
    );
}

#[test]
fn numbers_have_32_bits() {
    assert_eq!(service("a unix - - - - 2147483647 a\n").max, 2_147_483_647);
    assert!(only_error("a unix - - - - 2147483648 a\n").contains("bad value: \"2147483648\""));
}

#[test]
fn the_first_missing_column_is_named() {
    assert_eq!(
        only_error("a unix - -\n"),
        "master.cf: line 1: column 11: missing \"chroot\" field"
    );
    assert_eq!(
        only_error("a\n"),
        "master.cf: line 1: column 2: missing \"transport type\" field"
    );
}

#[test]
fn a_type_has_no_default() {
    assert_eq!(
        only_error("a - - - - - - a\n"),
        "master.cf: line 1: column 3: field \"transport type\" has no default value"
    );
    assert_eq!(
        only_error("a tcp - - - - - a\n"),
        "master.cf: line 1: column 3: bad transport type: tcp: \
         expected inet, unix, unix-dgram, fifo, pass"
    );
}

#[test]
fn errors_of_all_lines_are_found() {
    assert_eq!(errors(parse_master("a tcp - - - - - a\nb unix\n")).len(), 2);
}

#[test]
fn the_last_entry_of_a_service_wins_with_a_warning() {
    let table = "smtp inet n - - - - a\nx unix - - - - - x\n25 inet n - - - - b\n";
    let services = services(table);
    let found: Vec<_> = services.iter().map(|s| (s.name.as_str(), s.line)).collect();
    assert_eq!(found, [("x", 2), ("25", 3)]);
    assert_eq!(
        warnings(parse_master(table)),
        [
            "master.cf: line 3: column 1: duplicate master.cf entry for service \"smtp\" (25) \
             -- using the last entry"
        ]
    );
}

#[test]
fn a_name_may_have_several_types_with_different_endpoints() {
    assert_eq!(
        services("smtp inet n - - - - a\nsmtp unix - - - - - a\n").len(),
        2
    );
    assert_eq!(
        services("a unix n - - - - a\na unix y - - - - a\n").len(),
        2
    );
}

#[test]
fn two_types_cannot_share_a_path() {
    assert_eq!(
        only_error("a unix - - - - - a\na fifo - - - - - a\n"),
        "master.cf: line 2: column 1: \"private/a\" is the path of the unix service on line 1 \
         already: expected another name, or the other class"
    );
}

#[test]
fn disabled_services_are_left_out_whatever_their_line_says() {
    let table = "25 inet bad\nb unix - - - - - b\nc fifo\n";
    let main_cf = "compatibility_level = 2\nmaster_service_disable = inet, C/fifo\n";
    assert_eq!(names(main_cf, table), ["b"]);
}

#[test]
fn a_negation_keeps_a_service() {
    let table = "25 inet n - - - - a\n26 inet n - - - - a\n";
    let main_cf = "compatibility_level = 2\nmaster_service_disable = !26/inet inet\n";
    assert_eq!(names(main_cf, table), ["26"]);
}

#[test]
fn before_compatibility_level_1_chroot_is_the_default_with_a_warning() {
    let sources = sources("", "a unix - - - - - a\nb unix - - n - - a\n");
    let parse = || Config::parse(&sources, &FakeSystem::default());
    let services = parse().expect("a good table").services;
    assert!(services[0].chroot);
    assert!(!services[1].chroot);
    assert_eq!(
        warnings(parse()),
        [
            "master.cf: line 1: column 12: using backwards-compatible default setting chroot=y: \
             write \"y\", or set compatibility_level to 1 or more in main.cf for \"n\""
        ]
    );
}

#[test]
fn parameters_set_the_limits() {
    let main_cf = "compatibility_level = 2\ndefault_process_limit = 7\n\
                   service_throttle_time = 5s\ndaemon_directory = /d\n";
    let sources = sources(main_cf, "a unix - - - - - a\nb unix - - - - 9 b\n");
    let services = Config::parse(&sources, &FakeSystem::default())
        .expect("a good table")
        .services;
    assert_eq!((services[0].max, services[0].backlog), (7, 7));
    assert_eq!((services[1].max, services[1].backlog), (9, 9));
    assert_eq!(services[0].throttle_time.as_secs(), 5);
    assert_eq!(services[0].path, Path::new("/d/a"));
}

#[test]
fn an_absolute_command_is_a_path_of_its_own_only_without_postfix() {
    let table = "a unix - - - - - /bin/a\n";
    let path = |sources| {
        let config = Config::parse(&sources, &FakeSystem::default());
        config.expect("a good table").services[0].path.clone()
    };
    assert_eq!(path(stand_alone(None, table)), Path::new("/bin/a"));
    let postfix = sources("compatibility_level = 2\ndaemon_directory = /d\n", table);
    assert_eq!(path(postfix), Path::new("/d//bin/a"));
}

#[test]
fn an_empty_table_is_a_warning_and_in_the_place_of_services_an_error() {
    let finding = "master.cf: the service table is empty: expected services; if none is meant, set \
                   allow_empty_table to yes";
    for empty in ["", "# nothing\n", "\n \n", " continues nothing\n"] {
        let warned = warnings(parse_master(empty));
        assert!(warned.contains(&finding.to_owned()), "{warned:?}");
        let read = |main_cf: &str, has_services| {
            let sources = sources(main_cf, empty);
            Config::parse_to_replace(&sources, has_services, &FakeSystem::default())
        };
        assert!(errors(read("", true)).contains(&finding.to_owned()));
        read("", false).expect("no service ends");
        let allowed = read("allow_empty_table = yes\n", true).expect("it is allowed");
        assert_eq!(allowed.services, []);
        assert!(!warnings(Ok(allowed)).contains(&finding.to_owned()));
    }
}

#[test]
fn an_address_of_a_host_that_this_machine_does_not_have_is_left_out() {
    let table = "partly.example.com:25 inet n - n - - smtpd\n";
    let config = parse_master(table);
    let warned = warnings(config.clone());
    assert_eq!(
        warned,
        [
            "master.cf: line 1: column 1: not listening on 192.0.2.9: no network interface has it; \
          set bind_missing_addresses to yes to listen there before one has"
        ]
    );
    let services = config.expect("a configuration").services;
    let addresses = services[0].endpoint.addresses();
    assert_eq!(addresses, ["192.0.2.1:25".parse().expect("an address")]);
}

#[test]
fn a_table_of_disabled_services_is_not_empty() {
    let main_cf = "compatibility_level = 3.6\nmaster_service_disable = unix\n";
    let sources = sources(main_cf, "a unix - - - - - a\n");
    let config = Config::parse_to_replace(&sources, true, &FakeSystem::default());
    assert_eq!(warnings(config), [""; 0]);
}

#[test]
fn two_services_on_one_address_are_warned_about() {
    let table =
        "127.0.0.1:25 inet n - n - - a\n25 inet n - n - - b\n127.0.0.1:smtp inet n - n - - a\n";
    let config = Config::parse(
        &sources("inet_interfaces = 127.0.0.1\n", table),
        &FakeSystem::default(),
    );
    let warnings = warnings(config);
    assert_eq!(
        warnings.last().unwrap(),
        "master.cf: line 3: column 1: this service and the one on line 2 both listen on \
         127.0.0.1:25: clients will reach either of them"
    );
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn a_character_that_is_not_what_it_seems_to_be_is_the_only_error_of_its_line() {
    let nothing = "expected nothing in its place";
    for (line, column, expected) in [
        (
            "\u{feff}a unix - - - - - a",
            1,
            format!("U+FEFF (byte-order mark): {nothing}"),
        ),
        (
            "a\u{a0}unix - - - - - a",
            2,
            "U+00A0 (no-break space): expected a space".to_owned(),
        ),
        (
            "a unix -\u{a0}- - - - a",
            9,
            "U+00A0 (no-break space): expected a space".to_owned(),
        ),
        (
            "a unix - - - - 1\u{200b} a",
            17,
            format!("U+200B (zero-width space): {nothing}"),
        ),
        (
            "a unix - - - - - a\u{ad}b",
            19,
            format!("U+00AD (soft hyphen): {nothing}"),
        ),
        (
            "a unix \u{2013} - - - - a",
            8,
            "U+2013 (a dash, not a hyphen): expected \"-\"".to_owned(),
        ),
        (
            "\u{feff}# a",
            1,
            format!("U+FEFF (byte-order mark): {nothing}"),
        ),
    ] {
        let found = errors(parse_master(line));
        let expected =
            format!("master.cf: line 1: column {column}: unexpected character {expected}");
        assert_eq!(found, [expected], "{line}");
    }
}

#[test]
fn an_argument_may_be_any_text_but_is_warned_about() {
    let table = "a unix - - - - - a \u{2013}o x\u{a0}y { b\u{a0}c } d\u{2013}e\n";
    let config = parse_master(table).expect("arguments");
    let given = ["\u{2013}o", "x\u{a0}y", "b\u{a0}c", "d\u{2013}e"];
    assert_eq!(config.services[0].args, given);
    assert_eq!(
        warnings(Ok(config)),
        [
            "master.cf: line 1: column 20: unexpected character U+2013 (a dash, not a hyphen): \
             expected \"-\"",
            "master.cf: line 1: column 24: unexpected character U+00A0 (no-break space): \
             expected a space",
        ]
    );
}

#[test]
fn a_table_in_utf_16_is_told_as_that() {
    assert_eq!(
        errors(Config::parse(
            &sources("", b"\xfe\xff\0a".as_slice()),
            &FakeSystem::default()
        )),
        ["master.cf: the file is in UTF-16: expected UTF-8"]
    );
}

#[test]
fn an_argument_that_looks_like_a_comment_is_warned_about() {
    let table = "a unix - - - - - a -x # not a comment\nb unix - - - - - b a#b { #c }\n";
    assert_eq!(
        warnings(parse_master(table)),
        [
            "master.cf: line 1: column 23: \"#\" begins a comment only as the first character of a \
             line: here it is text"
        ]
    );
}

#[test]
fn a_continuation_that_looks_like_a_service_is_warned_about() {
    let table = "a unix - - n - - a\n  -o x=y\n# c\n   b inet n - n - - b\n c unix\n";
    let warnings = warnings(parse_master(table));
    assert_eq!(
        warnings,
        [
            "master.cf: line 4: column 4: this looks like a service, but continues the line above: \
             expected no white space before it"
        ]
    );
}

/// Reads `master.cf` and further tables.
fn tables(master_cf: &str, more: &[(&str, &str)]) -> Result<Config, Diagnostics> {
    let mut sources = sources("compatibility_level = 3.6\n", master_cf);
    let more = more.iter().map(|(name, text)| Source {
        path: format!("master.cf.d/{name}").into(),
        text: (*text).into(),
    });
    sources.more_tables = more.collect();
    Config::parse_to_replace(&sources, true, &FakeSystem::default())
}

#[test]
fn further_tables_follow_in_their_order_and_services_know_their_file_and_line() {
    let more = [
        ("a.cf", "b unix - - - - - b\n"),
        ("b.cf", "# c\nc unix - - - - - c\n"),
    ];
    let config = tables("d unix - - - - - d\ne unix - - - - - e\n", &more);
    assert_eq!(warnings(config.clone()), [""; 0]);
    let services = config.expect("good tables").services;
    let found: Vec<_> = services
        .iter()
        .map(|s| (s.name.as_str(), s.table.to_str().unwrap_or(""), s.line))
        .collect();
    assert_eq!(
        found,
        [
            ("d", "master.cf", 1),
            ("e", "master.cf", 2),
            ("b", "master.cf.d/a.cf", 1),
            ("c", "master.cf.d/b.cf", 2)
        ]
    );
}

#[test]
fn a_service_of_two_files_is_an_error_and_of_two_lines_of_one_a_warning() {
    let line = "a unix - - - - - a\n";
    let twice = line.repeat(2);
    assert_eq!(warnings(tables("", &[("a.cf", &twice)])).len(), 1);
    let more = [("a.cf", "# c\nb unix - - - - - b\na unix y - - - - x\n")];
    assert_eq!(
        errors(tables(line, &more)),
        [
            "master.cf.d/a.cf: line 3: column 1: the service \"a\" (private/a) is also on line 1 \
             of master.cf: expected it in one file only"
        ]
    );
    // The same port under two names.
    let more = [
        ("a.cf", "smtp inet n - - - - a\n"),
        ("b.cf", "25 inet n - - - - a\n"),
    ];
    assert_eq!(
        errors(tables("", &more)),
        [
            "master.cf.d/b.cf: line 1: column 1: the service \"smtp\" (25) is also on line 1 of \
             master.cf.d/a.cf: expected it in one file only"
        ]
    );
}

#[test]
fn what_two_services_share_names_both_files() {
    let more = [("a.cf", "a fifo y - - - - x\n")];
    assert_eq!(
        errors(tables("a unix - - - - - a\n", &more)),
        [
            "master.cf.d/a.cf: line 1: column 1: \"private/a\" is the path of the unix service on \
             line 1 of master.cf already: expected another name, or the other class"
        ]
    );
    let more = [("a.cf", "192.0.2.1:25 inet n - n - - x\n")];
    let warned = warnings(tables("partly.example.com:25 inet n - n - - a\n", &more));
    let expected = "master.cf.d/a.cf: line 1: column 1: this service and the one on line 1 of \
                    master.cf both listen on 192.0.2.1:25";
    assert!(warned.iter().any(|w| w.starts_with(expected)), "{warned:?}");
}

#[test]
fn mistakes_of_further_tables_are_told_with_file_and_line() {
    let more = [("a.cf", "# c\na unix\n"), ("b.cf", "b unix q - - - - b\n")];
    let errors = errors(tables("c unix - x - - - c\n", &more));
    let places = [
        "master.cf: line 1: ",
        "master.cf.d/a.cf: line 2: ",
        "master.cf.d/b.cf: line 1: ",
    ];
    assert_eq!(errors.len(), places.len(), "{errors:?}");
    for (error, place) in errors.iter().zip(places) {
        assert!(error.starts_with(place), "{errors:?}");
    }
}

#[test]
fn a_line_continues_none_of_another_file() {
    let warned = warnings(tables("a unix - - - - - a\n", &[("a.cf", "  -x\n")]));
    let expected = "master.cf.d/a.cf: line 1: column 1: logical line must not start";
    assert!(warned[0].starts_with(expected), "{warned:?}");
}

#[test]
fn tables_are_empty_if_all_of_them_are() {
    let service = "a unix - - - - - a\n";
    for (first, more) in [("", service), (service, "# nothing\n")] {
        assert_eq!(warnings(tables(first, &[("a.cf", more)])), [""; 0]);
    }
    let found = errors(tables("", &[("a.cf", "# nothing\n")]));
    assert!(
        found[0].starts_with("master.cf: the service table is empty"),
        "{found:?}"
    );
}
