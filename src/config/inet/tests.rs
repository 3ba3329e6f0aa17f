use super::*;
use crate::config::testing::{FakeSystem, ips};

const BOTH: [Family; 2] = [Family::Ipv4, Family::Ipv6];

fn parse(name: &str) -> Result<(Option<&str>, &str), BadHostPort> {
    HostPort::parse(name).map(|HostPort { host, port }| (host, port))
}

#[test]
fn a_name_without_a_host_is_a_port() {
    assert_eq!(parse("25"), Ok((None, "25")));
    assert_eq!(parse("smtp"), Ok((None, "smtp")));
    assert_eq!(parse(":25"), Ok((None, "25")));
}

#[test]
fn a_host_comes_before_the_last_colon() {
    assert_eq!(parse("localhost:smtp"), Ok((Some("localhost"), "smtp")));
    assert_eq!(parse("127.0.0.1:25"), Ok((Some("127.0.0.1"), "25")));
    assert_eq!(parse("::1:25"), Ok((Some("::1"), "25")));
}

#[test]
fn a_host_in_brackets_may_have_the_ipv6_tag() {
    assert_eq!(parse("[::1]:25"), Ok((Some("::1"), "25")));
    assert_eq!(parse("[IPv6:::1]:25"), Ok((Some("::1"), "25")));
    assert_eq!(parse("[localhost]:25"), Ok((Some("localhost"), "25")));
}

#[test]
fn a_name_that_is_not_host_and_port_says_why() {
    for (name, why) in [
        ("[::1:25", BadHostPort::MissingBracket),
        ("[::1]25", BadHostPort::GarbageAfterBracket),
        ("[ipv6:127.0.0.1]:25", BadHostPort::MalformedIpv6),
        ("[::1]", BadHostPort::MissingService),
        ("[::1]:", BadHostPort::MissingService),
        ("localhost:", BadHostPort::MissingService),
        ("[]:25", BadHostPort::BadHost),
        ("a_b-:25", BadHostPort::BadHost),
        ("256.0.0.1:25", BadHostPort::BadHost),
        ("25x", BadHostPort::GarbageAfterNumber),
        ("[::ffff:127.0.0.1]:25", BadHostPort::MappedIpv4),
        ("[ipv6:::FFFF:7f00:1]:25", BadHostPort::MappedIpv4),
        ("[ff02::1]:25", BadHostPort::MulticastIpv6),
    ] {
        assert_eq!(parse(name), Err(why), "{name}");
    }
}

#[test]
fn addresses_are_sorted_and_unique() {
    let system = FakeSystem::default();
    assert_eq!(
        addresses("mail.example.com", &BOTH, &system),
        Ok(ips(&["192.0.2.1", "2001:db8::1"]))
    );
    assert_eq!(
        addresses("localhost", &BOTH, &system),
        Ok(ips(&["127.0.0.1", "::1"]))
    );
}

#[test]
fn an_address_needs_no_resolver() {
    let system = FakeSystem::default();
    assert_eq!(addresses("[::2]", &BOTH, &system), Ok(ips(&["::2"])));
    assert_eq!(
        addresses("192.0.2.9", &BOTH, &system),
        Ok(ips(&["192.0.2.9"]))
    );
}

#[test]
fn addresses_of_disabled_protocols_do_not_count() {
    let system = FakeSystem::default();
    let ipv4 = [Family::Ipv4];
    assert_eq!(
        addresses("localhost", &ipv4, &system),
        Ok(ips(&["127.0.0.1"]))
    );
    assert!(addresses("::1", &ipv4, &system).is_err());
    assert!(addresses("v6.example.com", &ipv4, &system).is_err());
}

#[test]
fn wildcards_begin_with_ipv4() {
    let network = Network {
        families: BOTH.to_vec(),
        bind_missing: false,
        interfaces: Interfaces::All,
        ports: KnownPorts::default(),
    };
    assert_eq!(network.own_addresses(), ips(&["0.0.0.0", "::"]));
}

#[test]
fn addresses_of_a_name_that_are_missing_are_put_aside_if_others_are_left() {
    let system = FakeSystem::default();
    let with = |bind_missing, host| {
        let network = Network {
            families: BOTH.to_vec(),
            bind_missing,
            interfaces: Interfaces::All,
            ports: KnownPorts::default(),
        };
        network.addresses(host, &system).unwrap()
    };
    let (here, missing) = (ips(&["192.0.2.1"]), ips(&["192.0.2.9"]));
    assert_eq!(with(false, "partly.example.com"), (here, missing.clone()));
    let both = ips(&["192.0.2.1", "192.0.2.9"]);
    assert_eq!(with(true, "partly.example.com"), (both, vec![]));
    // There is no other address.
    assert_eq!(with(false, "192.0.2.9"), (missing, vec![]));
    assert_eq!(with(false, "many.example.com").0.len(), 257);
}

#[test]
fn several_names_may_share_a_port() {
    let mut ports = KnownPorts::default();
    assert_eq!(ports.add(b" smtps = submissions=465"), Ok(()));
    assert_eq!(ports.get("smtps"), Some(465));
    assert_eq!(ports.get("submissions"), Some(465));
    assert_eq!(ports.get("smtp"), None);
}

#[test]
fn a_bad_name_leaves_the_others() {
    let mut ports = KnownPorts::default();
    assert_eq!(ports.add(b"1=smtp=25"), Err(BadPort::NumericName));
    assert_eq!(ports.get("smtp"), Some(25));
    assert_eq!(ports.add(b"smtp=26"), Err(BadPort::Duplicate));
    assert_eq!(ports.get("smtp"), Some(25));
}

#[test]
fn a_bad_port_says_why() {
    for (item, why) in [
        ("smtp", BadPort::NoAssignment),
        ("smtp 25", BadPort::NoAssignment),
        ("smtp=", BadPort::MissingPort),
        ("smtp=2 5", BadPort::BlankInPort),
        ("=25", BadPort::MissingName),
        ("s m=25", BadPort::BlankInName),
        ("smtp=x", BadPort::NotNumeric),
        ("smtp=65536", BadPort::OutOfRange),
    ] {
        assert_eq!(
            KnownPorts::default().add(item.as_bytes()),
            Err(why),
            "{item}"
        );
    }
    assert_eq!(KnownPorts::default().add(b"  "), Ok(()));
}
