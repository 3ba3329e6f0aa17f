//! Real Postfix under the master under test: see `testkit` for how to choose another master, such
//! as Postfix's own.

mod children; // what a child finds when it begins to run
mod control; // postfix(1), and the sudden end of a master
mod errors; // what a user is told who did something wrong
mod leaks; // descriptors do not pile up
mod mail; // mail gets through
mod options; // the command line
mod reload; // changes of a running system

fn main() -> std::process::ExitCode {
    testkit::main()
}
