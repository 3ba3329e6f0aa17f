//! `inet_protocols`, `inet_interfaces` and `known_tcp_ports`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::reader::Reader;
use crate::config::inet::{Interfaces, KnownPorts, Network, addresses, families};
use crate::config::text::{is_list_separator, shown, trimmed};
use crate::config::words::Words;
use crate::config::{Family, Resolver};

/// Reads the network parameters.
pub(super) fn network(reader: &mut Reader<'_>, resolver: &dyn Resolver) -> Network {
    let families = enabled_families(reader, resolver);
    Network {
        interfaces: interfaces(reader, &families, resolver),
        ports: known_ports(reader),
        families,
    }
}

/// The requested families that the kernel supports. As in Postfix, an empty result is only a
/// warning, because services of other types can run.
fn enabled_families(reader: &mut Reader<'_>, resolver: &dyn Resolver) -> Vec<Family> {
    let name = "inet_protocols";
    let value = reader.value(name).unwrap_or_default();
    let mut enabled = Vec::new();
    for item in Words::all(&value, is_list_separator) {
        match families(item) {
            Some(families) => enabled.extend_from_slice(families),
            None => {
                let message = format!(
                    "unknown {name} value \"{}\" in \"{}\": expected \"all\", \"ipv4\" or \"ipv6\"",
                    shown(item),
                    shown(&value)
                );
                reader.error(name, message);
                return Vec::new();
            }
        }
    }
    enabled.sort_unstable();
    enabled.dedup();
    enabled.retain(|&family| {
        let known = resolver.has_family(family);
        if !known {
            let message = format!(
                "{name}: disabling {family} name/address support: the kernel does not have it"
            );
            reader.warn(name, message);
        }
        known
    });
    if enabled.is_empty() {
        let value = shown(&value);
        let message = format!("all network protocols are disabled ({name} = {value})");
        reader.warn(name, message);
        let message = "disabling all type \"inet\" services in master.cf".to_owned();
        reader.warn(name, message);
    }
    enabled
}

fn interfaces(reader: &mut Reader<'_>, families: &[Family], resolver: &dyn Resolver) -> Interfaces {
    let Some(value) = reader.string("inet_interfaces") else {
        return Interfaces::All;
    };
    if value == "all" {
        return Interfaces::All;
    }
    let mut local = resolver.interfaces();
    local.retain(|&address| families.contains(&Family::of(address)));
    let mut chosen = match value.as_str() {
        _ if families.is_empty() => Vec::new(),
        "loopback-only" => local.into_iter().filter(IpAddr::is_loopback).collect(),
        list => listed(reader, list, families, &local, resolver),
    };
    chosen.sort_unstable();
    chosen.dedup();
    Interfaces::Only(chosen)
}

/// Resolves a list of host names and addresses. All results must be local addresses.
fn listed(
    reader: &mut Reader<'_>,
    list: &str,
    families: &[Family],
    local: &[IpAddr],
    resolver: &dyn Resolver,
) -> Vec<IpAddr> {
    let name = "inet_interfaces";
    // Look up each name once: nested references can repeat a few names very often, and a lookup is
    // slow.
    let hosts: BTreeSet<&str> = list
        .split([' ', '\t', ','])
        .filter(|host| !host.is_empty())
        .collect();
    let mut chosen = BTreeSet::new();
    for host in hosts {
        match addresses(host, families, resolver) {
            Ok(found) => chosen.extend(found),
            Err(why) => {
                let host = shown(host.as_bytes());
                reader.reject(name, format!("host not found: {host}: {why}"));
            }
        }
    }
    for stranger in chosen.iter().filter(|address| !local.contains(address)) {
        reader.reject(name, format!("no local interface found for {stranger}"));
    }
    chosen.into_iter().collect()
}

/// As in Postfix, an invalid item is a warning, and the other items are used.
fn known_ports(reader: &mut Reader<'_>) -> KnownPorts {
    let name = "known_tcp_ports";
    let value = reader.value(name).unwrap_or_default();
    let mut ports = KnownPorts::default();
    for item in value.split(|&b| b == b',') {
        if let Err(problem) = ports.add(item) {
            let item = shown(&item[trimmed(item)]);
            reader.warn(name, format!("{name}: in \"{item}\": {problem}"));
        }
    }
    ports
}
