//! Real Postfix daemons under the tested master; `testkit` describes how to choose another master,
//! such as Postfix's own.

mod children; // the environment of a new child
mod confined; // the whole of Debian's table with contrib/postfix/master.toml
mod control; // postfix(1), and the sudden death of a master
mod errors; // error messages for users
mod leaks; // descriptors do not accumulate
mod mail; // mail is delivered
mod options; // the command line
mod partners; // TLS, passwords, a mail filter and postscreen, confined
mod reload; // changes of a running system

fn main() -> std::process::ExitCode {
    testkit::main()
}
