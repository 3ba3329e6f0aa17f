//! What Debian's table does not have, with `contrib/postfix/master.toml`: TLS, passwords, a mail filter,
//! and postscreen with its helpers. Nothing of it is refused.

use std::path::Path;
use std::process::Command;

use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::ports::Port;
use testkit::run::{Finished, Running, run};
use testkit::{file, needs_ours, needs_root, skip, test};

use crate::confined::{confined, refusals, write_toml};

/// A certificate and its key, which Debian's package ssl-cert makes for tests.
const CERTIFICATE: &str = "/etc/ssl/certs/ssl-cert-snakeoil.pem";
const KEY: &str = "/etc/ssl/private/ssl-cert-snakeoil.key";

fn partner(arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(file("tests/programs/mail_partners.py"))
        .args(arguments);
    command
}

/// A server at a socket in `private`.
fn server(postfix: &Instance, kind: &str, name: &str) -> Running {
    let socket = postfix.queue().join("private").join(name);
    let path = socket.display().to_string();
    let running = Running::start(&mut partner(&[kind, &path]));
    until(SOON, "the server's socket", || socket.exists());
    running
}

/// Sends a message over TLS, as this user with a password if there is one.
fn send(address: &str, to: &str, user: Option<&str>) -> Finished {
    let arguments = ["client", address, to];
    run(partner(&arguments).args(user), SOON)
}

#[test]
fn tls_passwords_filters_and_postscreen_are_not_refused_anything() {
    needs_root("to run a mail system");
    needs_ours("the original has no master.toml");
    if !Path::new(CERTIFICATE).exists() || !Path::new(KEY).exists() {
        skip("needs the certificate of Debian's package ssl-cert");
    }
    let mut postfix = confined();
    let port = Port::reserve();
    let screened = format!("127.0.0.1:{port}");
    let more = [
        format!("{screened}/inet"),
        "smtpd/pass".into(),
        "dnsblog/unix".into(),
        "tlsproxy/unix".into(),
    ];
    for line in [
        &format!("{screened} inet n - y - 1 postscreen"),
        "smtpd pass - - y - - smtpd",
        "dnsblog unix - - y - 0 dnsblog",
        "tlsproxy unix - - y - 0 tlsproxy",
    ] {
        postfix.service(line);
    }
    let address = postfix.address();
    for (name, value) in [
        ("mynetworks", ""),
        ("mydestination", ""),
        (
            "transport_maps",
            &format!(
                "inline:{{remote.test=smtp:[127.0.0.1]:{}}}",
                own_port(&address)
            ),
        ),
        (
            "smtpd_relay_restrictions",
            "permit_sasl_authenticated, defer_unauth_destination",
        ),
        (
            "smtpd_recipient_restrictions",
            "permit_sasl_authenticated, reject_unverified_recipient",
        ),
        ("smtpd_tls_cert_file", CERTIFICATE),
        ("smtpd_tls_key_file", KEY),
        ("smtpd_tls_security_level", "may"),
        ("smtpd_tls_loglevel", "1"),
        ("smtp_tls_security_level", "encrypt"),
        ("smtp_tls_loglevel", "1"),
        (
            "smtpd_tls_session_cache_database",
            "btree:${data_directory}/smtpd_scache",
        ),
        (
            "smtp_tls_session_cache_database",
            "btree:${data_directory}/smtp_scache",
        ),
        ("smtpd_sasl_auth_enable", "yes"),
        ("smtpd_sasl_type", "dovecot"),
        ("smtpd_sasl_path", "private/auth"),
        ("smtpd_milters", "unix:private/milter"),
        ("non_smtpd_milters", "unix:private/milter"),
        ("milter_default_action", "tempfail"),
        ("postscreen_access_list", ""),
        ("postscreen_dnsbl_sites", "dnsbl.test"),
        ("postscreen_greet_wait", "1s"),
        ("postscreen_greet_action", "enforce"),
        ("postscreen_pipelining_enable", "yes"),
        ("postscreen_pipelining_action", "enforce"),
        ("postscreen_tls_security_level", "may"),
        (
            "postscreen_cache_map",
            "btree:$data_directory/postscreen_cache",
        ),
        ("address_verify_map", "btree:$data_directory/verify_cache"),
    ] {
        postfix.set(name, value);
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    write_toml(&postfix, &more);
    let _auth = server(&postfix, "auth", "auth");
    let _milter = server(&postfix, "milter", "milter");
    postfix.start();
    // The second client finds the session of the first in tlsmgr's cache.
    for _ in 0..2 {
        send(&address, "to@example.test", None).expect_success();
    }
    send(&address, "x@remote.test", Some("user")).expect_success();
    let relayed = send(&address, "x@remote.test", None).expect_failure();
    assert!(
        relayed.stderr.contains("Relay access denied"),
        "{relayed:?}"
    );
    // Its address is new: postscreen tests it, through tlsproxy, and lets it in the next time.
    let tested = send(&screened, "to@example.test", None).expect_failure();
    assert!(tested.stderr.contains("450"), "{tested:?}");
    send(&screened, "to@example.test", None).expect_success();
    let arguments = ["-f", "from@example.test", "to@example.test"];
    run(&mut postfix.sendmail(&arguments), SOON).expect_success();
    postfix.wait_for_delivery(4, SOON);
    until(SOON, "an outgoing connection over TLS", || {
        let log = postfix.log();
        log.contains("TLS connection established to 127.0.0.1")
    });
    for message in std::fs::read_dir(postfix.mailbox()).expect("mail") {
        let text = std::fs::read_to_string(message.expect("mail").path()).expect("a message");
        assert!(text.contains("X-Filtered: yes"), "{text}");
    }
    let log = postfix.log();
    // What smtpd and postscreen have told clients.
    let told = ["Relay access denied", "Service currently unavailable"];
    let is_refusal = |line: &&str| !told.iter().any(|words| line.contains(words));
    let refused: Vec<_> = refusals(&log).into_iter().filter(is_refusal).collect();
    assert_eq!(refused, [""; 0]);
}

/// The port of an address.
fn own_port(address: &str) -> &str {
    address.rsplit_once(':').expect("an address").1
}
