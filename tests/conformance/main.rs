//! Tests of master(8): one test for each sentence of its manual and for each fact that a Postfix
//! installation relies on. Every test runs on our master and on the original; `testkit` describes
//! how to choose. The children are puppets, so that only the master is tested; `tests/postfix` has
//! real daemons.
//!
//! The fact that a test verifies is quoted in its comment. If our master differs from the original
//! on purpose, the test calls `differs`, runs under both, and is listed in `man/differences.md`.

mod lines; // the log lines of the policy, and that each has a scenario
mod list; // the list of deliberate differences

mod care; // settings of master.toml for children that fail or run too long
mod environment; // the environment of children
mod faults; // faults in the environment of a running master
mod flow; // the pipe that all children share
mod limits; // the process limit
mod listen; // listeners of all types
mod locks; // one master at a time
mod logging; // the destinations and the format of log lines
mod options; // the command line
mod reload; // changes of a running system
mod signals; // signals to the master, and the signal state of children
mod spawn; // when a child is started, and how
mod status; // what children report
mod stress; // stress mode
mod throttle; // services whose children fail
mod transaction; // failed reloads
mod vain; // children that end at once and take no client
mod wakeup; // wake-ups of each type

fn main() -> std::process::ExitCode {
    testkit::main()
}
