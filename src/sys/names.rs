//! The system's names: of hosts, services, users and network interfaces.

use std::ffi::CString;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{Uid, User};

/// The machine's own name; `localhost` when it has none that can be read.
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// The addresses of a host, in the resolver's order. This may wait for the network.
///
/// # Errors
/// The resolver's words.
pub fn host(name: &str) -> Result<Vec<IpAddr>, String> {
    let addresses = (name, 0)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?;
    Ok(addresses.map(|address| address.ip()).collect())
}

/// getservbyname(3) returns a pointer to storage that the next call overwrites.
static SERVICES: Mutex<()> = Mutex::new(());

/// The port of a TCP service in services(5).
pub fn tcp_service(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let _only_caller = SERVICES.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: both strings end in a zero byte. The result is null or points at static storage, which
    // stays as it is until the next call: no other code of this process makes one, and here the lock
    // keeps other threads away until the port is copied.
    unsafe {
        let entry = libc::getservbyname(name.as_ptr(), c"tcp".as_ptr());
        let port = entry.as_ref()?.s_port;
        Some(u16::from_be(port as u16))
    }
}

/// The addresses of all interfaces that are up, in the kernel's order.
pub fn interfaces() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    interfaces
        .filter(|i| i.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|i| {
            let address = i.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .collect()
}

/// A user's ID and group ID.
pub fn user(name: &str) -> Option<(u32, u32)> {
    let user = User::from_name(name).ok()??;
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// The name that passwd(5) has first for a user ID.
pub fn user_name(uid: u32) -> Option<String> {
    Some(User::from_uid(Uid::from_raw(uid)).ok()??.name)
}

/// Whether the kernel makes sockets of IPv4 or, with `v6`, of IPv6.
pub fn has_inet_family(v6: bool) -> bool {
    use nix::errno::Errno::{EAFNOSUPPORT, EPROTONOSUPPORT};
    let family = if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let made = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    !matches!(made, Err(EAFNOSUPPORT | EPROTONOSUPPORT))
}
