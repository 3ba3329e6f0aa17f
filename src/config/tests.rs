//! Tests of whole configurations: Debian's, and damaged ones.

use std::time::{Duration, Instant};

use super::testing::{FakeSystem, sources, stand_alone};
use super::*;

/// The settings of the `main.cf` that Debian ships.
const DEBIAN_MAIN_CF: &str = include_str!("../../tests/fuzz/seeds/main_cf/debian");

/// The entries of the `master.cf` that Debian ships.
pub(super) const DEBIAN_MASTER_CF: &str = include_str!("../../tests/fuzz/seeds/master_cf/debian");

/// A file that uses every element of the syntax, small enough to change each of its bytes.
const SAMPLE_MAIN_CF: &str = include_str!("../../tests/fuzz/seeds/main_cf/something_of_everything");

const SAMPLE_MASTER_CF: &str =
    include_str!("../../tests/fuzz/seeds/master_cf/something_of_everything");

fn parse(
    main_cf: &[u8],
    master_cf: &[u8],
    master_toml: Option<&[u8]>,
) -> Result<Config, Diagnostics> {
    let mut sources = sources(main_cf, master_cf);
    sources.master_toml = master_toml.map(|text| Source {
        path: "master.toml".into(),
        text: text.to_vec(),
    });
    Config::parse(&sources, &FakeSystem::default())
}

/// All prefixes of a text, and the text with each byte replaced by several others.
fn variants(text: &str) -> impl Iterator<Item = Vec<u8>> {
    const BYTES: &[u8] = b"\0\n \t#${}()[]:?=!<,-/.\"09a\xff";
    let prefixes = (0..=text.len()).map(|end| text.as_bytes()[..end].to_vec());
    let mutants = (0..text.len()).flat_map(move |at| {
        BYTES.iter().map(move |&byte| {
            let mut mutant = text.as_bytes().to_vec();
            mutant[at] = byte;
            mutant
        })
    });
    prefixes.chain(mutants)
}

#[test]
fn debians_configuration_is_good() {
    let config = parse(DEBIAN_MAIN_CF.as_bytes(), DEBIAN_MASTER_CF.as_bytes(), None)
        .expect("Debian's configuration");
    assert_eq!(config.warnings, []);
    assert_eq!(config.services.len(), 31);
    assert_eq!(config.parameters.myhostname, "vm");
    let smtp = &config.services[0];
    assert_eq!(
        (smtp.canonical.as_str(), smtp.listen_addresses().count()),
        ("25", 2)
    );
    assert!(smtp.chroot && smtp.unprivileged && smtp.stress_eligible());
    let relay = &config.services[14];
    assert_eq!(relay.args, ["-o", "syslog_name=postfix/$service_name"]);
}

#[test]
fn the_samples_are_good() {
    let config =
        parse(SAMPLE_MAIN_CF.as_bytes(), SAMPLE_MASTER_CF.as_bytes(), None).expect("the samples");
    assert_eq!(config.parameters.syslog_name, "b");
    assert_eq!(config.services.len(), 4);
}

#[test]
fn no_main_cf_stops_the_program() {
    let start = Instant::now();
    for main_cf in variants(SAMPLE_MAIN_CF) {
        let _ = parse(&main_cf, SAMPLE_MASTER_CF.as_bytes(), None);
    }
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn no_table_stops_the_program() {
    for master_cf in variants(SAMPLE_MASTER_CF) {
        let _ = parse(SAMPLE_MAIN_CF.as_bytes(), &master_cf, None);
    }
}

#[test]
fn no_master_toml_stops_the_program() {
    const SAMPLE: &str = "mail_owner = \"post\\u0066ix\"\nservice_kill_time = 0x10 # ä\n\
                          syslog_name = '''\n$a'''\n[service.\"a/unix\"]\nx = [1]\n";
    for master_toml in variants(SAMPLE) {
        let _ = parse(b"", SAMPLE_MASTER_CF.as_bytes(), Some(&master_toml));
    }
}

#[test]
fn large_files_take_no_longer_than_their_size_warrants() {
    let deep = ["${a?".repeat(10_000), "}".repeat(10_000)].concat();
    let start = Instant::now();
    for main_cf in [
        format!("a = b\nsyslog_name = {deep}\n"),
        format!("syslog_name = {}\n", "$(".repeat(100_000)),
        format!("syslog_name = {}\n", "$u".repeat(20_000)),
        "x\n".repeat(50_000),
        "a = 1\na = 2\n".repeat(20_000),
        " continuation\n".repeat(100_000),
    ] {
        let _ = parse(main_cf.as_bytes(), b"", None);
    }
    for master_cf in [
        format!("a unix - - n - - a {}\n", "{a} ".repeat(100_000)),
        format!("a unix - - n - - a {}\n", "{".repeat(100_000)),
        "a\n".repeat(50_000),
        "a unix - - n - - a\n".repeat(20_000),
    ] {
        let _ = parse(b"compatibility_level = 2\n", master_cf.as_bytes(), None);
    }
    for master_toml in [
        "]\n".repeat(50_000),
        "?, ".repeat(50_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {{ {} }}", "b = ?, ".repeat(20_000)),
        "a.".repeat(100_000),
        "syslog_name = \"\\t".to_owned() + &"x".repeat(1 << 20) + "\"\n",
    ] {
        let _ = parse(b"", b"", Some(master_toml.as_bytes()));
    }
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn files_and_programs_that_others_can_change_are_told_once_each() {
    let mut sources = stand_alone(None, "a unix n - - - 1 /srv/a\nb unix n - - - 1 /srv/b\n");
    let system = FakeSystem {
        shared: vec!["/srv", "master.cf"],
        ..FakeSystem::default()
    };
    let told = |findings: Vec<Diagnostic>| -> Vec<String> {
        let lines = findings.iter().map(ToString::to_string);
        lines.filter(|line| line.contains("is shared")).collect()
    };
    let expected = [
        "master.cf: root reads this file, and master.cf is shared",
        "master.cf: line 1: column 1: root runs /srv/a, and /srv is shared",
    ];
    sources.if_others_may_write = Some(Severity::Error);
    let findings = Config::parse(&sources, &system).expect_err("errors").0;
    assert_eq!(told(findings), expected);
    sources.if_others_may_write = Some(Severity::Warning);
    let config = Config::parse(&sources, &system).expect("warnings");
    assert_eq!(told(config.warnings), expected);
    // A user's own program is theirs to change.
    sources.master_toml = Some(Source {
        path: "master.toml".into(),
        text: b"[service.\"a/unix\"]\nuser = \"nobody\"\n".to_vec(),
    });
    let config = Config::parse(&sources, &system).expect("warnings");
    let other = "master.cf: line 2: column 1: root runs /srv/b, and /srv is shared";
    assert_eq!(told(config.warnings), [expected[0], other]);
    sources.if_others_may_write = None;
    let config = Config::parse(&sources, &system).expect("no matter");
    assert_eq!(told(config.warnings), [""; 0]);
}

#[test]
fn roots_services_without_a_user_of_their_own_are_warned_of() {
    let warned = |user: Option<User>, toml: &str, system: &FakeSystem| {
        let mut sources = stand_alone(user, "");
        sources.master_toml = Some(Source {
            path: "master.toml".into(),
            text: toml.into(),
        });
        let config = Config::parse(&sources, system).expect("a configuration");
        let warned = config
            .warnings
            .iter()
            .any(|w| w.message.contains("useradd"));
        (warned, config.parameters.mail_owner.0)
    };
    let mut system = FakeSystem::default();
    assert_eq!(warned(None, "", &system), (true, "nobody".into()));
    let chosen = "mail_owner = \"nobody\"\n";
    assert_eq!(warned(None, chosen, &system), (false, "nobody".into()));
    let user = User { uid: 200, gid: 200 };
    assert!(!warned(Some(user), "", &system).0);
    system.users.push(("master", user));
    assert_eq!(warned(None, "", &system), (false, "master".into()));
}
