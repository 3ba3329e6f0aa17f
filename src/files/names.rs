//! The system's names: of hosts, services, users and network interfaces.

use std::ffi::CString;
use std::io::ErrorKind;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{self, AccessFlags, Gid, Uid};

use super::needed::needed_files;
use super::trust;
use crate::config::{Family, Resolver, User};
use crate::errors::{describe_errno, describe_error};
use crate::sys::{file, names, privilege};

/// The system's names, for the configuration.
#[derive(Debug)]
pub struct Names;

impl Resolver for Names {
    /// `localhost` when the machine has no name that can be read.
    fn hostname(&self) -> String {
        unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "localhost".to_owned())
    }

    /// In the resolver's order. This may wait for the network.
    fn host(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let addresses = (name, 0)
            .to_socket_addrs()
            .map_err(|error| error.to_string())?;
        Ok(addresses.map(|address| address.ip()).collect())
    }

    fn tcp_service(&self, name: &str) -> Option<u16> {
        names::tcp_service(name)
    }

    /// In the kernel's order.
    fn interfaces(&self) -> Vec<IpAddr> {
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

    /// Also one that no interface has, but a route or a setting of the kernel.
    fn has_address(&self, address: IpAddr) -> bool {
        let bound = UdpSocket::bind((address, 0));
        !bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
    }

    fn user(&self, name: &str) -> Option<User> {
        let user = unistd::User::from_name(name).ok()??;
        Some(User {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
    }

    fn user_name(&self, uid: u32) -> Option<String> {
        let user = unistd::User::from_uid(Uid::from_raw(uid)).ok()??;
        Some(user.name)
    }

    /// The user's own group alone where the system does not tell.
    fn groups(&self, user: &str, gid: u32) -> Vec<u32> {
        let found = CString::new(user).ok();
        let found = found.and_then(|user| unistd::getgrouplist(&user, Gid::from_raw(gid)).ok());
        found.map_or_else(
            || vec![gid],
            |groups| groups.into_iter().map(Gid::as_raw).collect(),
        )
    }

    fn group(&self, name: &str) -> Option<u32> {
        let group = unistd::Group::from_name(name).ok()??;
        Some(group.gid.as_raw())
    }

    fn real_path(&self, path: &Path) -> Result<PathBuf, String> {
        path.canonicalize().map_err(|error| describe_error(&error))
    }

    fn needed_files(&self, program: &Path) -> Vec<PathBuf> {
        needed_files(program)
    }

    fn landlock_version(&self) -> u32 {
        privilege::landlock_version()
    }

    fn has_family(&self, family: Family) -> bool {
        let family = match family {
            Family::Ipv4 => AddressFamily::Inet,
            Family::Ipv6 => AddressFamily::Inet6,
        };
        let made = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        !matches!(made, Err(Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT))
    }

    fn process_id(&self) -> u32 {
        std::process::id()
    }

    /// The rights of this process count where its user is the master's: root, or without
    /// Postfix anyone.
    fn check_log_file(&self, path: &Path, alone: bool) -> Result<(), String> {
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err("a slash at its end, expected the name of a file".to_owned());
        }
        let expected = |error| format!("{error} or /dev/stdout");
        file::check_regular(path).map_err(expected)?;
        if alone {
            file::check_unlinked(path).map_err(expected)?;
        }
        let directory = path.parent().unwrap_or(path);
        let shown = directory.display();
        let is_there = path.symlink_metadata().is_ok();
        match directory.metadata() {
            Ok(metadata) if !metadata.is_dir() => {
                let kind = file::kind(metadata.file_type());
                return Err(format!("{shown} is {kind}, expected a directory"));
            }
            Err(error)
                if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) =>
            {
                let reason = describe_error(&error);
                return Err(format!("{shown}: {reason}: make the directory"));
            }
            _ => {}
        }
        if alone || privilege::is_root() {
            let (written, problem) = if is_there {
                (path, "cannot write to it")
            } else {
                (directory, "cannot make it")
            };
            unistd::eaccess(written, AccessFlags::W_OK)
                .map_err(|errno| format!("{problem}: {}", describe_errno(errno as i32)))?;
        }
        Ok(())
    }

    fn check_trust(&self, path: &Path) -> Result<(), String> {
        trust::check(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_addresses_are_found_or_the_resolvers_words() {
        let addresses = Names.host("localhost").unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        assert!(!addresses.is_empty());
        assert_ne!(Names.host("no host").unwrap_err(), "");
    }

    #[test]
    fn a_machine_has_its_loopback_network_and_no_address_for_documentation() {
        for (address, expected) in [("127.0.0.7", true), ("192.0.2.7", false)] {
            assert_eq!(Names.has_address(address.parse().unwrap()), expected);
        }
    }
}
