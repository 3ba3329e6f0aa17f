//! The endpoint of a service and its canonical name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::config::inet::{BadHostPort, HostPort, Network};
use crate::config::numbers::is_digits;
use crate::config::text::shown;
use crate::config::{Endpoint, Kind, Resolver};
use crate::protocol::LISTENERS_MAX;

/// Maximum length of a socket's path in bytes, without the terminating null byte (unix(7)).
pub(in crate::config) const SOCKET_PATH_MAX: usize = 107;

/// The endpoint of a service, and the name that, together with the type, identifies the service.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) struct Location {
    pub(in crate::config) canonical: String,
    pub(in crate::config) endpoint: Endpoint,
    /// Addresses of the host that this machine does not have.
    pub(in crate::config) missing: Vec<IpAddr>,
}

/// Why the first column gives no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum BadEndpoint {
    Syntax(BadHostPort, String),
    UnknownHost(String, String),
    UnknownPort(String),
    NoInterface,
    TooManyListeners(usize),
    BadPath(String),
    PathTooLong(usize),
}

impl fmt::Display for BadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(problem, name) => write!(
                f,
                "{problem} in \"{name}\": expected \"port\", \"host:port\" or \"[address]:port\""
            ),
            Self::UnknownHost(host, why) => {
                write!(f, "bad hostname or network address: {host}: {why}")
            }
            Self::UnknownPort(port) => write!(
                f,
                "bad port: \"{port}\": expected 1..65535, or a TCP service of known_tcp_ports \
                 or services(5)"
            ),
            Self::NoInterface => f.write_str(
                "service definition requires valid host name or address, or non-empty \
                 inet_interfaces setting",
            ),
            Self::TooManyListeners(n) => {
                write!(f, "{n} addresses: expected at most {LISTENERS_MAX}")
            }
            Self::BadPath(name) => write!(
                f,
                "bad service name: \"{name}\": expected a path without empty parts, \".\" and \
                 \"..\""
            ),
            Self::PathTooLong(length) => write!(
                f,
                "unix-domain name too long: {length} bytes: expected at most {SOCKET_PATH_MAX}"
            ),
        }
    }
}

/// Resolves the first column of a service's line.
pub(super) fn locate(
    name: &str,
    kind: Kind,
    private: bool,
    network: &Network,
    resolver: &dyn Resolver,
) -> Result<Location, BadEndpoint> {
    match kind {
        Kind::Inet => locate_inet(name, network, resolver),
        Kind::Unix | Kind::UnixDgram | Kind::Fifo | Kind::Pass => locate_path(name, kind, private),
    }
}

/// Resolves addresses and a port.
pub(in crate::config) fn locate_inet(
    name: &str,
    network: &Network,
    resolver: &dyn Resolver,
) -> Result<Location, BadEndpoint> {
    let HostPort { host, port } = HostPort::parse(name)
        .map_err(|problem| BadEndpoint::Syntax(problem, shown(name.as_bytes())))?;
    let port = port_number(port, network, resolver)
        .ok_or_else(|| BadEndpoint::UnknownPort(shown(port.as_bytes())))?;
    let (addresses, missing) = match host {
        Some(host) => network
            .addresses(host, resolver)
            .map_err(|why| BadEndpoint::UnknownHost(shown(host.as_bytes()), why))?,
        None => (network.own_addresses(), Vec::new()),
    };
    match addresses.len() {
        0 => return Err(BadEndpoint::NoInterface),
        n if n > LISTENERS_MAX => return Err(BadEndpoint::TooManyListeners(n)),
        _ => {}
    }
    let addresses = addresses.iter().map(|&ip| SocketAddr::new(ip, port));
    Ok(Location {
        canonical: canonical_inet(host, port),
        endpoint: Endpoint::Inet(addresses.collect()),
        missing,
    })
}

/// Ports by number, so that a reload finds the same service after its entry was changed from `25`
/// to `smtp`. Host names stay, because they would need a resolver.
fn canonical_inet(host: Option<&str>, port: u16) -> String {
    match host.map(|host| (host, host.parse::<IpAddr>())) {
        None => port.to_string(),
        Some((_, Ok(address))) => format!("[{address}]:{port}"),
        Some((name, Err(_))) => format!("[{name}]:{port}"),
    }
}

/// Port 0 is an error: the kernel would choose a different port at each start.
fn port_number(port: &str, network: &Network, resolver: &dyn Resolver) -> Option<u16> {
    let number = if is_digits(port.as_bytes()) {
        port.parse().ok()
    } else {
        let known = network.ports.get(port);
        known.or_else(|| resolver.tcp_service(port))
    };
    number.filter(|&number| number != 0)
}

fn locate_path(name: &str, kind: Kind, private: bool) -> Result<Location, BadEndpoint> {
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(BadEndpoint::BadPath(shown(name.as_bytes())));
    }
    let class = if private { "private" } else { "public" };
    let path = format!("{class}/{name}");
    if kind != Kind::Fifo && path.len() > SOCKET_PATH_MAX {
        return Err(BadEndpoint::PathTooLong(path.len()));
    }
    Ok(Location {
        endpoint: Endpoint::Path(PathBuf::from(&path)),
        canonical: path,
        missing: Vec::new(),
    })
}
