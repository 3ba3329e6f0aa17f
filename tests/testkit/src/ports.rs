//! Ports that belong to one test. A socket that is bound and never listens reserves the port. With
//! `SO_REUSEPORT`, the master, which sets it as well and has the same user, can bind the port, too,
//! and no other program can.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};

/// A TCP port (of all IPv4 addresses) that is reserved until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _holder: OwnedFd,
}

impl Port {
    pub fn reserve() -> Self {
        let holder = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .expect("a socket");
        setsockopt(&holder, sockopt::ReuseAddr, &true).expect("SO_REUSEADDR");
        setsockopt(&holder, sockopt::ReusePort, &true).expect("SO_REUSEPORT");
        // All addresses, to exclude other tests' wildcard listeners as well.
        bind(holder.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 0)).expect("a free port");
        let address: SockaddrIn = getsockname(holder.as_raw_fd()).expect("an address");
        Self {
            number: address.port(),
            _holder: holder,
        }
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}
