//! Attempts to freeze the master: programs that cannot be run, descriptors that children and others
//! send, files that are not regular, many ends at once, listeners that are shut down. In each test,
//! the clients of another service must be served without delay.
//!
//! Nothing may outlast its test: every obstacle is released before the master is stopped, also when
//! the test fails.

mod fanotify; // programs whose exec is not permitted
mod fuse; // programs in a file system that does not answer
mod lease; // programs with a lease that is not released
mod lingering; // TCP connections whose last close takes time
mod stage; // a master with a service whose clients are measured

mod burden; // descriptors that are sent to the master
mod crowd; // many children that end at once
mod exec; // programs whose exec hangs
mod files; // configuration that is no regular file
mod flood; // clients that come faster than children start
mod hold; // locks that a child holds
mod leave; // children that are told to leave
mod manager; // sockets of a service manager
mod shutdown; // listeners that a child shuts down
mod start; // starts that fail

fn main() -> std::process::ExitCode {
    testkit::main()
}
