//! Where a service listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_derive::{Deserialize, Serialize};

/// The addresses or the path on which a service listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Endpoint {
    /// One listener for each address; never empty, no duplicates.
    Inet(Vec<SocketAddr>),
    /// A path relative to `queue_directory`, in `private/` or `public/`; of `also_listen`, it may be
    /// absolute.
    Path(PathBuf),
}

/// Where one listener of a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress<'a> {
    Inet(SocketAddr),
    Path(&'a Path),
}

impl ListenAddress<'_> {
    pub fn is_path(self) -> bool {
        matches!(self, Self::Path(_))
    }
}

impl fmt::Display for ListenAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl Endpoint {
    /// The TCP addresses; empty for a path.
    pub fn addresses(&self) -> &[SocketAddr] {
        match self {
            Self::Inet(addresses) => addresses,
            Self::Path(_) => &[],
        }
    }

    /// Where each of its listeners is.
    pub fn listen_addresses(&self) -> impl Iterator<Item = ListenAddress<'_>> {
        let path = match self {
            Self::Inet(_) => None,
            Self::Path(path) => Some(ListenAddress::Path(path)),
        };
        let addresses = self.addresses().iter().copied();
        addresses.map(ListenAddress::Inet).chain(path)
    }
}

/// The setting `also_listen`, and what goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AlsoListen {
    /// They follow the service's own endpoint.
    pub endpoints: Vec<Endpoint>,
    pub rights: SocketRights,
}

/// Which local users may connect to the sockets of `also_listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SocketRights {
    pub mode: u32,
    /// The owners, unless they are those of the process that makes the socket.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl SocketRights {
    /// As of all sockets of services: the directory decides which users may connect.
    pub const DEFAULT: Self = Self {
        mode: 0o666,
        uid: None,
        gid: None,
    };
}

impl Default for SocketRights {
    fn default() -> Self {
        Self::DEFAULT
    }
}
