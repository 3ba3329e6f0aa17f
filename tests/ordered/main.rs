//! Ordered pools and idle children of shared services, with real processes: children that use
//! SpamAssassin's module from Debian's package, and children that violate the protocol.

mod load; // concurrent clients
mod pool; // a master with one pool

mod cost; // the cost of a client for the master
mod faults; // the fault injection of debug builds
mod hurt; // children that are killed, stopped, or violate the protocol
mod local; // a pool on a socket in the file system
mod preload; // children that a template forks
mod preload_hostile; // templates and children that do harm on purpose
mod preload_long; // the same under load, with all faults together
mod recycle; // children that leave for others
mod reload; // changes of a running pool
mod renewal; // templates that are replaced because they are old
mod rust; // children that use the library
mod serve; // which child serves which client
mod spamd; // SpamAssassin's children, and its own client
mod warm; // idle children of shared services

fn main() -> std::process::ExitCode {
    testkit::main()
}
