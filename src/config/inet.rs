//! Protocols, interfaces, and the resolution of names to addresses and ports.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::hostname::check_hostname;
use super::numbers::is_digits;
use super::text::is_blank;
use super::words::Words;
use super::{Family, Resolver};

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    fn wildcard(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// The families that an item of `inet_protocols` names (Postfix, `inet_proto.c`).
pub(super) fn families(item: &[u8]) -> Option<&'static [Family]> {
    match item {
        b"all" => Some(&[Family::Ipv4, Family::Ipv6]),
        b"ipv4" => Some(&[Family::Ipv4]),
        b"ipv6" => Some(&[Family::Ipv6]),
        _ => None,
    }
}

/// The address that a host is given as, with or without brackets, if it is not a name.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    inside.unwrap_or(host).parse().ok()
}

/// The addresses of a host name, or of an address with or without brackets. Only addresses of
/// `families` are returned, in Postfix's order (`inet_addr_list.c`): IPv4 first, no duplicates.
///
/// # Errors
/// Why the name has no address.
pub(super) fn addresses(
    host: &str,
    families: &[Family],
    resolver: &dyn Resolver,
) -> Result<Vec<IpAddr>, String> {
    let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = inside.unwrap_or(host);
    let mut addresses = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => resolver.host(host)?,
    };
    addresses.retain(|&address| families.contains(&Family::of(address)));
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err("it has no address of an enabled protocol".to_owned());
    }
    Ok(addresses)
}

/// Why an address is not listened on, and what to do.
pub(super) const NOT_HERE: &str = "no network interface has it; set bind_missing_addresses to yes \
                                   to listen there before one has";

/// The value of `inet_interfaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interfaces {
    /// The wildcard addresses.
    All,
    /// Sorted, without duplicates.
    Only(Vec<IpAddr>),
}

/// The network parameters, which apply to services without a host in their name.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// The enabled families that the kernel supports; sorted.
    pub(super) families: Vec<Family>,
    /// Also addresses that this machine does not have yet.
    pub(super) bind_missing: bool,
    pub(super) interfaces: Interfaces,
    pub(super) ports: KnownPorts,
}

impl Network {
    /// The addresses of a host. Of a name, those that this machine does not have are put aside, as
    /// `::1` of `localhost` where IPv6 is off, if others are left.
    ///
    /// # Errors
    /// Why the host has no address.
    pub(super) fn addresses(
        &self,
        host: &str,
        resolver: &dyn Resolver,
    ) -> Result<(Vec<IpAddr>, Vec<IpAddr>), String> {
        let found = addresses(host, &self.families, resolver)?;
        if self.bind_missing || found.len() < 2 {
            return Ok((found, Vec::new()));
        }
        let is_here = |address: &IpAddr| resolver.has_address(*address);
        let (here, missing): (Vec<_>, Vec<_>) = found.into_iter().partition(is_here);
        Ok(if here.is_empty() {
            (missing, here)
        } else {
            (here, missing)
        })
    }

    /// The addresses for a service without a host: the wildcards, or the addresses of the
    /// interfaces.
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        match &self.interfaces {
            Interfaces::All => self.families.iter().map(|f| f.wildcard()).collect(),
            Interfaces::Only(addresses) => addresses.clone(),
        }
    }
}

/// `known_tcp_ports`: names that do not need services(5).
#[derive(Clone, Debug, Default)]
pub(super) struct KnownPorts(BTreeMap<Vec<u8>, u16>);

impl KnownPorts {
    pub(super) fn get(&self, name: &str) -> Option<u16> {
        self.0.get(name.as_bytes()).copied()
    }

    /// Adds one item, `name=port` or `name=name=port`.
    ///
    /// # Errors
    /// The first error in it. As in Postfix, its correct names are added nevertheless
    /// (`config_known_tcp_ports.c`).
    pub(super) fn add(&mut self, item: &[u8]) -> Result<(), BadPort> {
        let mut parts: Vec<&[u8]> = item.split(|&b| b == b'=').collect();
        let port = parts.pop().unwrap_or_default();
        if parts.is_empty() {
            return match one_word(port) {
                Ok(None) => Ok(()),
                _ => Err(BadPort::NoAssignment),
            };
        }
        let port = match one_word(port) {
            Ok(Some(word)) => word,
            Ok(None) => return Err(BadPort::MissingPort),
            Err(()) => return Err(BadPort::BlankInPort),
        };
        let results = parts.into_iter().map(|name| self.name(name, port));
        results.fold(Ok(()), Result::and)
    }

    fn name(&mut self, name: &[u8], port: &[u8]) -> Result<(), BadPort> {
        let name = match one_word(name) {
            Ok(Some(word)) => word,
            Ok(None) => return Err(BadPort::MissingName),
            Err(()) => return Err(BadPort::BlankInName),
        };
        if is_digits(name) {
            return Err(BadPort::NumericName);
        }
        if !is_digits(port) {
            return Err(BadPort::NotNumeric);
        }
        if self.0.contains_key(name) {
            return Err(BadPort::Duplicate);
        }
        let number = std::str::from_utf8(port).ok().and_then(|p| p.parse().ok());
        self.0
            .insert(name.to_vec(), number.ok_or(BadPort::OutOfRange)?);
        Ok(())
    }
}

/// The single word of a text; `None` for blank text, an error for several words.
fn one_word(text: &[u8]) -> Result<Option<&[u8]>, ()> {
    let mut words = Words::new(text, is_blank);
    match (words.word(), words.word()) {
        (_, Some(_)) => Err(()),
        (word, None) => Ok(word.map(|range| &text[range])),
    }
}

/// What is wrong with an item of `known_tcp_ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadPort {
    NoAssignment,
    MissingPort,
    BlankInPort,
    MissingName,
    BlankInName,
    NumericName,
    NotNumeric,
    OutOfRange,
    Duplicate,
}

impl fmt::Display for BadPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAssignment => "is not in \"name = value\" form",
            Self::MissingPort => "missing port value after \"=\"",
            Self::BlankInPort => "whitespace in port number",
            Self::MissingName => "missing service name before \"=\"",
            Self::BlankInName => "whitespace in service name",
            Self::NumericName => "numerical service name",
            Self::NotNumeric => "non-numerical service port",
            Self::OutOfRange => "port number out of range: expected at most 65535",
            Self::Duplicate => "duplicate service name",
        })
    }
}

/// The first column of an `inet` service: an optional host, and a port number or name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPort<'a> {
    pub(super) host: Option<&'a str>,
    pub(super) port: &'a str,
}

/// Why the name of an `inet` service is invalid, in Postfix's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHostPort {
    MissingBracket,
    GarbageAfterBracket,
    MalformedIpv6,
    MissingService,
    BadHost,
    MappedIpv4,
    MulticastIpv6,
    GarbageAfterNumber,
}

impl fmt::Display for BadHostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingBracket => "missing \"]\"",
            Self::GarbageAfterBracket => "garbage after \"]\"",
            Self::MalformedIpv6 => "malformed IPv6 address",
            Self::MissingService => "missing service information",
            Self::BadHost => "valid hostname or network address required",
            Self::MappedIpv4 => "IPv4 address in the form of IPv6",
            Self::MulticastIpv6 => "multicast address",
            Self::GarbageAfterNumber => "garbage after numerical service",
        })
    }
}

impl<'a> HostPort<'a> {
    /// Reads `port`, `:port`, `host:port`, `[address]:port` or `[ipv6:address]:port` (Postfix,
    /// `host_port.c`).
    ///
    /// # Errors
    /// What is wrong with the name; every form requires a port.
    pub(super) fn parse(name: &'a str) -> Result<Self, BadHostPort> {
        let parsed = match name.strip_prefix('[') {
            Some(rest) => Self::bracketed(rest)?,
            None => Self::bare(name),
        };
        if parsed.port.is_empty() {
            return Err(BadHostPort::MissingService);
        }
        if parsed.host.is_some_and(|host| !is_host(host)) {
            return Err(BadHostPort::BadHost);
        }
        // The kernel refuses them for listeners of IPv6 alone.
        if let Some(Ok(address)) = parsed.host.map(str::parse::<Ipv6Addr>) {
            if address.to_ipv4_mapped().is_some() {
                return Err(BadHostPort::MappedIpv4);
            }
            if address.is_multicast() {
                return Err(BadHostPort::MulticastIpv6);
            }
        }
        let numeric = parsed.port.starts_with(|c: char| c.is_ascii_digit());
        if numeric && !is_digits(parsed.port.as_bytes()) {
            return Err(BadHostPort::GarbageAfterNumber);
        }
        Ok(parsed)
    }

    fn bracketed(rest: &'a str) -> Result<Self, BadHostPort> {
        let (inside, after) = rest.split_once(']').ok_or(BadHostPort::MissingBracket)?;
        let port = match after.strip_prefix(':') {
            Some(port) => port,
            None if after.is_empty() => after,
            None => return Err(BadHostPort::GarbageAfterBracket),
        };
        let host = match strip_ipv6_tag(inside) {
            Some(address) if address.parse::<Ipv6Addr>().is_err() => {
                return Err(BadHostPort::MalformedIpv6);
            }
            Some(address) => address,
            None => inside,
        };
        Ok(Self {
            host: Some(host),
            port,
        })
    }

    fn bare(name: &'a str) -> Self {
        match name.rsplit_once(':') {
            Some((host, port)) => Self {
                host: (!host.is_empty()).then_some(host),
                port,
            },
            None => Self {
                host: None,
                port: name,
            },
        }
    }
}

/// The address after the tag `IPv6:` of RFC 5321.
fn strip_ipv6_tag(text: &str) -> Option<&str> {
    let (tag, address) = text.split_at_checked("ipv6:".len())?;
    tag.eq_ignore_ascii_case("ipv6:").then_some(address)
}

fn is_host(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok() || check_hostname(host).is_ok()
}

#[cfg(test)]
mod tests;
