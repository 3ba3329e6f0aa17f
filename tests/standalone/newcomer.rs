//! Common mistakes in a first table, and their messages.

use testkit::standalone::Standalone;
use testkit::test;

const GOOD: &str = "hello unix n - - - 5 true\n";

/// Mistakes in the table, each with the error message after the file's name.
const TABLE_MISTAKES: [(&str, &str); 10] = [
    (
        "hello unix n - - - 5\n",
        "line 1: column 21: missing \"command\" field",
    ),
    (
        "hello tcp n - - - 5 true\n",
        "line 1: column 7: bad transport type: tcp: expected inet, unix, unix-dgram, fifo, pass",
    ),
    (
        "127.0.0.1:8080 inet - - - - 5 true\n",
        "line 1: column 21: inet service cannot be private: expected \"n\"",
    ),
    (
        "127.0.0.1:htpp inet n - - - 5 true\n",
        "line 1: column 1: bad port: \"htpp\": expected 1..65535, or a TCP service",
    ),
    (
        "127.0.0.1:80800 inet n - - - 5 true\n",
        "line 1: column 1: bad port: \"80800\": expected 1..65535",
    ),
    (
        "hello unix no - - - 5 true\n",
        "line 1: column 12: field \"private\": bad value: \"no\": expected \"y\", \"n\" or \"-\"",
    ),
    (
        "hello unix n - - - many true\n",
        "line 1: column 20: field \"max_proc\": bad value: \"many\": expected a number of processes",
    ),
    (
        "hello unix n - - 1m 5 true\n",
        "line 1: column 19: field \"wakeup_time\": ignoring \"m\" after \"1\"",
    ),
    (
        "../hello unix n - - - 5 true\n",
        "line 1: column 1: bad service name: \"../hello\": expected a path without empty parts",
    ),
    (
        "hello unix n - - - 5 true { -x\n",
        "line 1: column 27: missing '}' in \"{ -x\"",
    ),
];

/// Mistakes in `master.toml`.
const TOML_MISTAKES: [(&str, &str); 6] = [
    (
        "default_proces_limit = 5\n",
        "line 1: column 1: unknown key \"default_proces_limit\": did you mean \
         \"default_process_limit\"?",
    ),
    (
        "default_process_limit = [5]\n",
        "line 1: column 25: bad value of \"default_process_limit\": expected a string or an integer",
    ),
    (
        "service_throttle_time = \"soon\"\n",
        "line 1: column 26: parameter service_throttle_time: bad time value or unit: soon: expected a number and s, m, h, d or w",
    ),
    (
        "default_process_limit = 0\n",
        "line 1: column 25: invalid default_process_limit",
    ),
    ("syslog_name = \"me\n", "line 1: column 18: "),
    (
        "syslog_facility = \"maill\"\n",
        "line 1: column 20: parameter syslog_facility: unrecognized value: maill: expected one of",
    ),
];

#[test]
fn a_mistake_in_the_table_is_told_and_changes_nothing() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(GOOD).start();
    for (table, expected) in TABLE_MISTAKES {
        standalone.write_table(table);
        let said = standalone.reload();
        let expected = format!("{}: {expected}", standalone.table().display());
        assert!(said.contains(&expected), "{table}{expected}\n{said}");
        let is_warning = expected.contains("ignoring");
        assert_eq!(
            said.contains("reload failed and changed nothing"),
            !is_warning,
            "{said}"
        );
        let socket = standalone.queue().join("public/hello");
        assert!(
            std::os::unix::net::UnixStream::connect(socket).is_ok(),
            "it serves on"
        );
    }
}

#[test]
fn a_mistake_in_master_toml_is_told_and_changes_nothing() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(GOOD).start();
    for (toml, expected) in TOML_MISTAKES {
        standalone.write_toml(toml);
        let said = standalone.reload();
        let expected = format!("{}/master.toml: {expected}", standalone.path().display());
        assert!(said.contains(&expected), "{toml}{expected}\n{said}");
        assert!(said.contains("reload failed and changed nothing"), "{said}");
    }
    standalone.write_toml("");
    assert!(standalone.reload().contains("reload done"));
}

#[test]
fn a_command_that_is_not_there_is_told_with_its_line() {
    let mut standalone = Standalone::of_a_user();
    standalone
        .write_table("# first\nwoken fifo n - - 60 1 ecko\n")
        .start();
    let path = standalone.path().join("ecko");
    let expected = format!(
        "warning: exec {}: No such file or directory -- see line 2 of {}",
        path.display(),
        standalone.table().display()
    );
    standalone.wait_for_line(&expected);
}
