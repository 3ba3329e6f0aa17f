//! Whole configurations: the ones that people have, and the ones that nobody should.

use std::time::{Duration, Instant};

use super::testing::{FakeSystem, sources};
use super::*;

/// The settings of the `main.cf` that Debian ships.
const DEBIAN_MAIN_CF: &str = "\
smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)
biff = no
append_dot_mydomain = no
readme_directory = /usr/share/doc/postfix
compatibility_level = 3.6
smtpd_tls_cert_file=/etc/ssl/certs/ssl-cert-snakeoil.pem
smtpd_tls_key_file=/etc/ssl/private/ssl-cert-snakeoil.key
smtpd_tls_security_level=may
smtp_tls_CApath=/etc/ssl/certs
smtp_tls_security_level=may
smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache
smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination
myhostname = vm
alias_maps = hash:/etc/aliases
alias_database = hash:/etc/aliases
mydestination = $myhostname, vm, localhost.localdomain, , localhost
relayhost =
mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128
mailbox_size_limit = 0
recipient_delimiter = +
inet_interfaces = all
inet_protocols = all
html_directory = /usr/share/doc/postfix/html
";

/// The entries of the `master.cf` that Debian ships.
pub(super) const DEBIAN_MASTER_CF: &str = "\
smtp      inet  n       -       y       -       -       smtpd
pickup    unix  n       -       y       60      1       pickup
cleanup   unix  n       -       y       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       y       1000?   1       tlsmgr
rewrite   unix  -       -       y       -       -       trivial-rewrite
bounce    unix  -       -       y       -       0       bounce
defer     unix  -       -       y       -       0       bounce
trace     unix  -       -       y       -       0       bounce
verify    unix  -       -       y       -       1       verify
flush     unix  n       -       y       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       y       -       -       smtp
relay     unix  -       -       y       -       -       smtp
        -o syslog_name=postfix/$service_name
showq     unix  n       -       y       -       -       showq
error     unix  -       -       y       -       -       error
retry     unix  -       -       y       -       -       error
discard   unix  -       -       y       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       y       -       -       lmtp
anvil     unix  -       -       y       -       1       anvil
scache    unix  -       -       y       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
maildrop  unix  -       n       n       -       -       pipe
  flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient}
uucp      unix  -       n       n       -       -       pipe
  flags=Fqhu user=uucp argv=uux -r -n -z -a$sender - $nexthop!rmail ($recipient)
ifmail    unix  -       n       n       -       -       pipe
  flags=F user=ftn argv=/usr/lib/ifmail/ifmail -r $nexthop ($recipient)
bsmtp     unix  -       n       n       -       -       pipe
  flags=Fq. user=bsmtp argv=/usr/lib/bsmtp/bsmtp -t$nexthop -f$sender $recipient
scalemail-backend unix -       n       n       -       2       pipe
  flags=R user=scalemail argv=/usr/lib/scalemail/bin/scalemail-store ${nexthop} ${user} ${extension}
mailman   unix  -       n       n       -       -       pipe
  flags=FRX user=list argv=/usr/lib/mailman/bin/postfix-to-mailman.py ${nexthop} ${user}
";

/// A sample with something of everything, small enough to mutate at every byte.
const SAMPLE_MAIN_CF: &str = "\
compatibility_level = 3.6
mydomain = example.com
syslog_name = ${{$mail_owner} == {postfix} ? {$(a?b)} : {c$$}}
a = ${{3} <level {3.6}?{x}:{y}}$mail_owner
# ä
inet_interfaces = 127.0.0.1,
  [::1]
known_tcp_ports = smtp=25, a=b=1
import_environment = { A = b } C
service_throttle_time = 1m
";

const SAMPLE_MASTER_CF: &str = "\
localhost:smtp inet n - y - 5 smtpd
# c
  -o a=b { c d }
[::1]:25 inet n - - - - a
a unix - n - 60? 0 b
d pass n - - - - b
";

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

/// All beginnings of a text, and the text with every byte replaced by some others.
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
    let config = parse(SAMPLE_MAIN_CF.as_bytes(), SAMPLE_MASTER_CF.as_bytes(), None);
    let config = config.expect("the samples");
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
