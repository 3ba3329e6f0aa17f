//! Tests of whole configurations: Debian's, and damaged ones.

use std::time::{Duration, Instant};

use super::testing::{FakeSystem, sources};
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
        (smtp.canonical.as_str(), smtp.endpoint.listeners()),
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
