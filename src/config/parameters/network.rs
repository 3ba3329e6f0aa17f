//! `inet_protocols`, `inet_interfaces` and `known_tcp_ports`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::reader::Reader;
use crate::config::inet::{
    Interfaces, KnownPorts, NOT_HERE, Network, addresses, families, literal,
};
use crate::config::text::{is_list_separator, shown, trimmed};
use crate::config::words::Words;
use crate::config::{Family, Resolver};

/// Reads the network parameters.
pub(super) fn network(
    reader: &mut Reader<'_>,
    bind_missing: bool,
    resolver: &dyn Resolver,
) -> Network {
    let families = enabled_families(reader, resolver);
    Network {
        interfaces: interfaces(reader, &families, bind_missing, resolver),
        bind_missing,
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

fn interfaces(
    reader: &mut Reader<'_>,
    families: &[Family],
    bind_missing: bool,
    resolver: &dyn Resolver,
) -> Interfaces {
    let Some(value) = reader.string("inet_interfaces") else {
        return Interfaces::All;
    };
    if value == "all" {
        return Interfaces::All;
    }
    let mut local = resolver.interfaces();
    local.retain(|&address| families.contains(&Family::of(address)));
    let is_here = |address: &IpAddr| bind_missing || local.contains(address);
    let mut chosen = match value.as_str() {
        _ if families.is_empty() => Vec::new(),
        "loopback-only" => local.into_iter().filter(IpAddr::is_loopback).collect(),
        list => listed(reader, list, families, is_here, resolver),
    };
    chosen.sort_unstable();
    chosen.dedup();
    Interfaces::Only(chosen)
}

/// Resolves a list of host names and addresses. Addresses must be local. What is wrong with a name is
/// only a warning if another address is left.
fn listed(
    reader: &mut Reader<'_>,
    list: &str,
    families: &[Family],
    is_here: impl Fn(&IpAddr) -> bool,
    resolver: &dyn Resolver,
) -> Vec<IpAddr> {
    let name = "inet_interfaces";
    // Look up each name once: nested references can repeat a few names very often, and a lookup is
    // slow.
    let hosts: BTreeSet<&str> = list
        .split([' ', '\t', ','])
        .filter(|host| !host.is_empty())
        .collect();
    let (mut chosen, mut left_out) = (BTreeSet::new(), Vec::new());
    for host in hosts {
        let found = match addresses(host, families, resolver) {
            Ok(found) => found,
            Err(why) => {
                let host = shown(host.as_bytes());
                left_out.push(format!("host not found: {host}: {why}"));
                continue;
            }
        };
        let (here, missing): (Vec<_>, Vec<_>) = found.into_iter().partition(&is_here);
        chosen.extend(here);
        for address in missing {
            let problem = format!("no local interface found for {address}: {NOT_HERE}");
            if literal(host).is_some() {
                reader.reject(name, problem);
            } else {
                left_out.push(problem);
            }
        }
    }
    for problem in left_out {
        if chosen.is_empty() {
            reader.reject(name, problem);
        } else {
            reader.warn(name, format!("parameter {name}: {problem}: left out"));
        }
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
