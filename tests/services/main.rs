//! Tests of the package `services`, its programs and its library, under the master.
//!
//! The programs must work under Postfix's own master, too: run the tests with `MASTER_UNDER_TEST`.

mod datagrams; // syslog-sink
mod hand; // without a master
mod limits; // when a process leaves
mod multi; // proxy: many clients in one process
mod own; // always under Postfix's own master
mod small; // echo, discard, daytime
mod spawn; // commands
mod stage; // a master with a service
mod start; // options, parameters, privileges, the log
mod trigger; // wake-ups
mod waiting; // the cost of waiting

fn main() -> std::process::ExitCode {
    testkit::main()
}
