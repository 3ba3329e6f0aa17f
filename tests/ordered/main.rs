//! Ordered pools and warm children, with real processes: children that use SpamAssassin's own
//! module as Debian ships it, and children that break the rules on purpose.

mod load; // many clients at a time
mod pool; // a master with one pool

mod cost; // what a client costs the master
mod faults; // the faults that a debug build can be asked for
mod hurt; // children that are killed, stopped, or rogue
mod local; // a pool whose clients are of this machine
mod reload; // changes of a running pool
mod rust; // children that the library is for
mod serve; // who is served, by whom
mod spamd; // SpamAssassin's children, and its own client
mod warm; // children of shared services that wait

fn main() -> std::process::ExitCode {
    testkit::main()
}
