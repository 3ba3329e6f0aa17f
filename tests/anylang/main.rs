//! Tests that the children in `services/examples`, each in another language, do what
//! `man/master-protocol.7` requires of a child. Every test runs on our master and on the original;
//! `testkit` describes how to choose.

mod examples; // the programs, and services that run them

mod leave; // when a child leaves
mod serve; // serving clients
mod start; // the command line
mod trigger; // the child for services of type fifo

fn main() -> std::process::ExitCode {
    testkit::main()
}
