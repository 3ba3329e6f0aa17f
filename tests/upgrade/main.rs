//! Upgrades in place: another program goes on in the master's process, with its listeners, children
//! and counters; and programs that cannot do so, of which the master must take no harm.

mod refusals; // programs and states that are refused
mod states; // the states of released formats
mod takeover; // what is carried over

fn main() -> std::process::ExitCode {
    testkit::main()
}
