//! The package `services`: its programs, and with them its library, under the master.
//!
//! What is promised here is promised under Postfix's own master too: run the tests with
//! `MASTER_UNDER_TEST`, as the others.

mod datagrams; // syslog-sink
mod hand; // without a master
mod limits; // when a process leaves
mod multi; // proxy: many clients in one process
mod own; // under Postfix's own master, whichever is under test
mod small; // echo, discard, daytime
mod spawn; // commands
mod stage; // a master with a service
mod start; // options, parameters, privileges, the log
mod trigger; // wake-ups
mod waiting; // what waiting costs

fn main() -> std::process::ExitCode {
    testkit::main()
}
