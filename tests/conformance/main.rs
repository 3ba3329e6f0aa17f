//! What master(8) does, one test for each sentence of its manual and for each fact that a Postfix
//! installation relies on. Every test runs on ours and on the original; see `testkit` for how to
//! choose. The children are puppets, so that the master is all there is to see; `tests/postfix`
//! has real daemons.
//!
//! The fact that a test is about is quoted in its comment. Where ours differs from the original on
//! purpose, the test says `differs`, runs under both, and is listed in `man/differences.md`.

mod lines; // the log lines of the policy, and that each has a scenario
mod list; // the list of deliberate differences

mod care; // children that fail or stay too long, where master.toml says so
mod environment; // what children find in their environment
mod faults; // what goes wrong around a master that runs
mod flow; // the pipe that all children share
mod limits; // how many children there are
mod listen; // listeners of all types
mod locks; // one master at a time
mod logging; // where log lines go, and their form
mod options; // the command line
mod reload; // changes of a running system
mod signals; // signals to the master, and those that children find
mod spawn; // when a child is started, and how
mod status; // what children report
mod stress; // services that strangers keep busy
mod throttle; // services whose children fail
mod transaction; // reloads that cannot be done
mod wakeup; // wake-ups of each type

fn main() -> std::process::ExitCode {
    testkit::main()
}
