use super::*;
use crate::config::testing::{FakeSystem, errors, sources, stand_alone, warnings};
use crate::config::{Config, Sources};

fn parse(master_toml: &[u8], main_cf: &str) -> Result<Config, Diagnostics> {
    let mut sources = sources(main_cf, "a unix - n n - - a\n");
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: master_toml.to_vec(),
    });
    Config::parse(&sources, &FakeSystem::default())
}

fn error(master_toml: &str) -> String {
    let errors = errors(parse(master_toml.as_bytes(), ""));
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

#[test]
fn parameters_have_main_cfs_names() {
    let text = b"# comment\ndefault_process_limit = 7\nservice_kill_time = \"2m\"\n";
    let parameters = parse(text, "").expect("a good file").parameters;
    assert_eq!(parameters.default_process_limit, 7);
    assert_eq!(parameters.service_kill_time.as_secs(), 120);
}

#[test]
fn values_are_expanded() {
    let text = b"syslog_name = \"x-${mail_owner}\"\n";
    let parameters = parse(text, "").expect("a good file").parameters;
    assert_eq!(parameters.syslog_name, "x-postfix");
}

#[test]
fn a_parameter_in_both_files_is_an_error_that_names_both_places() {
    let text = b"\ndefault_process_limit = 7\n";
    assert_eq!(
        errors(parse(text, "# c\ndefault_process_limit = 7\n")),
        [
            "master.toml: line 2: column 1: \"default_process_limit\" is also set in main.cf: \
             line 2: column 25: expected it in one file only"
        ]
    );
}

#[test]
fn an_unknown_key_suggests_the_nearest_name() {
    assert_eq!(
        error("  defualt_process_limit = 7\n"),
        "master.toml: line 1: column 3: unknown key \"defualt_process_limit\": \
         did you mean \"default_process_limit\"?"
    );
    assert_eq!(
        error("smtpd_banner = \"x\"\n"),
        "master.toml: line 1: column 1: unknown key \"smtpd_banner\": \
         expected a parameter that the master reads"
    );
}

#[test]
fn other_tables_are_unknown_keys() {
    assert_eq!(
        error("[servce.\"a/unix\"]\nmin_children = 1\n"),
        "master.toml: line 1: column 2: unknown key \"servce\": \
         did you mean \"service\"?"
    );
}

#[test]
fn a_value_is_a_string_or_an_integer() {
    for value in [
        "true",
        "1.5",
        "[1]",
        "{}",
        "1979-05-27",
        "\"a\\u0000\"",
        "0xffffffffffffffff",
    ] {
        assert_eq!(
            error(&format!("mail_owner = {value}\n")),
            "master.toml: line 1: column 14: bad value of \"mail_owner\": \
             expected a string or an integer, without null bytes"
        );
    }
}

#[test]
fn a_boolean_is_true_or_false() {
    for (value, expected) in [("true", true), ("false", false), ("\"yes\"", true)] {
        let text = format!("allow_empty_table = {value}\n");
        let parameters = parse(text.as_bytes(), "").expect("a good file").parameters;
        assert_eq!(parameters.allow_empty_table, expected);
    }
    assert_eq!(
        error("allow_empty_table = [true]\n"),
        "master.toml: line 1: column 21: bad value of \"allow_empty_table\": expected true or false"
    );
}

#[test]
fn a_syntax_error_has_its_place() {
    for (text, place) in [
        ("a = 1\nb = ?\n", "master.toml: line 2: column 5: "),
        ("a = \"x\n", "master.toml: line 1: column "),
        ("a = 1\na = 2\n", "master.toml: line 2: column 1: "),
    ] {
        let errors = errors(parse(text.as_bytes(), ""));
        assert!(errors[0].starts_with(place), "{errors:?}");
    }
}

#[test]
fn the_file_is_utf_8() {
    assert_eq!(
        errors(parse(b"a = 1\n# \xc3\xa4 \xe4\n", "")),
        ["master.toml: line 2: column 5: expected UTF-8"]
    );
}

#[test]
fn an_error_in_a_string_has_its_column() {
    let error = error("syslog_name = \"a${b c}\"\n");
    assert!(
        error.starts_with("master.toml: line 1: column 20: attribute name"),
        "{error}"
    );
}

#[test]
fn an_error_in_a_string_with_escapes_has_the_strings_column() {
    let error = error("syslog_name = \"\\ta${b c}\"\n");
    assert!(
        error.starts_with("master.toml: line 1: column 15: attribute name"),
        "{error}"
    );
}

#[test]
fn the_nearest_name_is_a_slip_away() {
    let nearest = |name| nearest(name, parameters::names());
    assert_eq!(nearest("mail_ownr"), Some("mail_owner"));
    assert_eq!(nearest("mail"), None);
}

#[test]
fn a_byte_order_mark_is_no_text_and_has_no_column() {
    parse("\u{feff}default_process_limit = 7\n".as_bytes(), "").expect("a good file");
    assert_eq!(
        error("\u{feff}a = 1\n"),
        "master.toml: line 1: column 1: unknown key \"a\": expected a parameter that the master reads"
    );
}

#[test]
fn a_character_that_is_not_what_it_seems_to_be_is_named() {
    for (text, expected) in [
        (
            "mail_owner\u{a0}= \"postfix\"\n",
            "line 1: column 11: unexpected character U+00A0 (no-break space): expected a space",
        ),
        (
            "# \u{201c}x\u{201d}\nmail_owner = \u{201c}postfix\u{201d} # \u{2013}\n",
            "line 2: column 14: unexpected character U+201C (a typographic quotation mark): \
             expected \" or '",
        ),
        (
            "\"mail_owner\u{200b}\" = \"postfix\"\n",
            "line 1: column 12: unexpected character U+200B (zero-width space): \
             expected nothing in its place",
        ),
        (
            "[service.\"a/unix\u{feff}\"]\nmin_idle = 1\n",
            "line 1: column 17: unexpected character U+FEFF (byte-order mark): \
             expected nothing in its place",
        ),
        (
            "[service.\"a/unix\"]\naccept = \"shared\u{a0}\"\n",
            "line 2: column 17: unexpected character U+00A0 (no-break space): expected a space",
        ),
    ] {
        let errors = errors(parse(text.as_bytes(), ""));
        assert_eq!(errors[0], format!("master.toml: {expected}"));
    }
}

#[test]
fn a_character_of_a_value_that_cannot_be_seen_is_a_warning_beside_the_error() {
    let text = "mail_owner = \"postfix\u{a0}\"\n";
    assert_eq!(
        errors(parse(text.as_bytes(), "")),
        [
            "master.toml: line 1: column 15: parameter mail_owner: unknown user name value: \
             postfix<U+00A0>",
            "master.toml: line 1: column 22: unexpected character U+00A0 (no-break space): \
             expected a space",
        ]
    );
}

#[test]
fn a_file_in_utf_16_is_told_as_that() {
    assert_eq!(
        errors(parse(b"\xff\xfea\0", "")),
        ["master.toml: line 1: column 1: the file is in UTF-16: expected UTF-8"]
    );
}

#[test]
fn a_relative_path_is_below_the_files_directory() {
    for (value, expected) in [
        ("\"run\"", "/etc/postfix/run"),
        ("'../run'", "/etc/postfix/../run"),
        ("\"/run\"", "/run"),
        ("\"$config_directory/run\"", "/etc/postfix/run"),
        ("\"\\u0072un\"", "/etc/postfix/run"),
    ] {
        let text = format!("queue_directory = {value}\n");
        let parameters = parse(text.as_bytes(), "").expect("a good file").parameters;
        assert_eq!(parameters.queue_directory, Path::new(expected));
    }
    assert_eq!(
        error("queue_directory = \"~/run\"\n"),
        "master.toml: line 1: column 20: bad value of \"queue_directory\": \"~\" has no meaning: \
         expected a path"
    );
}

/// Reads `master.toml` and further files beside a table with the service `a/unix`.
fn files(master_toml: &str, more: &[(&str, &str)]) -> Result<Config, Diagnostics> {
    let mut sources = sources("", "a unix - - n - - a\n");
    let source = |path: String, text: &str| Source {
        path: path.into(),
        text: text.into(),
    };
    sources.master_toml = Some(source("master.toml".into(), master_toml));
    let more = more.iter();
    sources.more_toml = more
        .map(|(name, text)| source(format!("master.toml.d/{name}"), text))
        .collect();
    Config::parse(&sources, &FakeSystem::default())
}

#[test]
fn files_add_to_each_other_and_to_each_others_tables() {
    let config = files(
        "service_kill_time = 7\n[service.\"a/unix\"]\nmin_idle = 1\n",
        &[
            ("a.toml", "queue_directory = \"q\"\n"),
            ("b.toml", "[service.\"a/unix\"]\naccept = \"ordered\"\n"),
            ("c.toml", "[service.\"a/unix\"]\nmin_children = 3\n"),
        ],
    )
    .expect("good files");
    assert_eq!(config.parameters.service_kill_time.as_secs(), 7);
    // A relative path is one of the configuration directory.
    assert_eq!(
        config.parameters.queue_directory,
        Path::new("/etc/postfix/q")
    );
    let pool = config.services[0].pool();
    assert!(pool.is_ordered());
    assert_eq!((pool.min_idle, pool.min_children), (1, 3));
}

#[test]
fn a_key_of_two_files_is_an_error_that_names_both() {
    let key = "# c\nservice_kill_time = 7\n";
    let setting = "[service.\"a/unix\"]\nmin_idle = 1\n";
    assert_eq!(
        errors(files(
            key,
            &[("a.toml", setting), ("b.toml", key), ("c.toml", setting)]
        )),
        [
            "master.toml.d/b.toml: line 2: column 1: \"service_kill_time\" is also set in \
             master.toml: line 2: column 21: expected it in one file only",
            "master.toml.d/c.toml: line 2: column 1: \"min_idle\" is also set in \
             master.toml.d/a.toml: line 2: column 1: expected it in one file only"
        ]
    );
}

#[test]
fn mistakes_of_further_files_have_their_file_and_place() {
    let found = errors(files(
        "x = 1\n",
        &[
            ("a.toml", "\n[service.\"a/unix\"]\nmin_idle = -1\n"),
            ("b.toml", "a = ?\n"),
            ("c.toml", "service_kill_time = \"x\"\n"),
        ],
    ));
    let places = [
        "master.toml: line 1: column 1: ",
        "master.toml.d/a.toml: line 3: column 12: ",
        "master.toml.d/b.toml: line 1: column 5: ",
        "master.toml.d/c.toml: line 1: column 22: ",
    ];
    assert_eq!(found.len(), places.len(), "{found:?}");
    for (error, place) in found.iter().zip(places) {
        assert!(error.starts_with(place), "{found:?}");
    }
}

#[test]
fn the_directory_of_tables_is_an_absolute_path_and_has_no_effect_beside_a_named_table() {
    let directory = |toml: &str| files(toml, &[]).map(|config| config.parameters.table_directory);
    assert_eq!(directory(""), Ok(None));
    assert_eq!(
        directory("table_directory = \"d\"\n"),
        Ok(Some("/etc/postfix/d".into()))
    );
    let mut sources = sources("table_directory = d\n", "a unix - - n - - a\n");
    let read = |sources: &Sources| Config::parse(sources, &FakeSystem::default());
    assert_eq!(
        errors(read(&sources)),
        [
            "main.cf: line 1: column 19: parameter table_directory: bad parameter value: d: \
             expected an absolute path, or none"
        ]
    );
    sources.has_drop_ins = false;
    let config = read(&sources).expect("it has no effect");
    assert_eq!(config.parameters.table_directory, None);
    assert_eq!(
        warnings(Ok(config)),
        [
            "main.cf: line 1: column 19: \"table_directory\" has no effect: the service table is \
             named with -c"
        ]
    );
    let alone = stand_alone(None, "a unix n - n - - a\n");
    let config = read(&alone).expect("a table");
    let default = Some("/etc/postfix/master.cf.d".into());
    assert_eq!(config.parameters.table_directory, default);
}

#[test]
fn a_value_without_quotation_marks_is_told_as_that() {
    let expected = |at: &str, value: &str| {
        format!(
            "master.toml: {at}: bad value {value}: expected an integer without zeros before it, or a \
             string: \"{value}\""
        )
    };
    let table = "[service.\"a/unix\"]\n";
    for (value, text) in [
        ("200:100", "limit_nofile = 200:100\n"),
        ("0027", "umask = 0027 # octal\n"),
        ("30s", "stop_timeout = 30s"),
        ("100/10s", "start_limit  =  100/10s\r\n"),
        ("127.0.0.1", "user = 127.0.0.1\n"),
    ] {
        let column = text.find(value).unwrap() + 1;
        let at = format!("line 2: column {column}");
        assert_eq!(error(&format!("{table}{text}")), expected(&at, value));
    }
    // The parser's own words are better here.
    for text in ["30s = 1 2\n", "a = \"0\n", "a = [01, \"2\"]\n", "a = 1 2\n"] {
        let errors = errors(parse(text.as_bytes(), ""));
        assert!(
            errors.iter().all(|e| !e.contains("without zeros")),
            "{errors:?}"
        );
    }
}

#[test]
fn what_a_file_with_a_syntax_error_may_set_is_not_called_a_default() {
    let mut sources = stand_alone(None, "a unix - n n - - a\n");
    let toml = |text: &str| {
        Some(Source {
            path: "master.toml".into(),
            text: text.into(),
        })
    };
    let told = |sources: &Sources| {
        let parsed = Config::parse(sources, &FakeSystem::default());
        let findings = parsed.map_or_else(|findings| findings.0, |config| config.warnings);
        let is_it = |finding: &Diagnostic| finding.message.contains("the services run as nobody");
        findings.iter().any(is_it)
    };
    assert!(told(&sources));
    sources.master_toml = toml("mail_owner = \"a\"\nservice_kill_time = 30s\n");
    assert!(!told(&sources));
}
