//! The children of `services/examples`, each in another language, under a master: what
//! `man/master-protocol.7` asks of a child, they do. Every test runs on ours and on the original;
//! see `testkit` for how to choose.

mod examples; // the programs, and services that run them

mod leave; // when a child leaves
mod serve; // clients, and how many children they have
mod start; // what a child makes of its command line
mod trigger; // the child for services of type fifo

fn main() -> std::process::ExitCode {
    testkit::main()
}
