//! Upgrades in place: another program goes on in the master's process, with its listeners, children
//! and counters; and programs that cannot do so, of which the master must take no harm.

mod crowds; // thousands of services and children
mod groups; // control groups are carried over
mod load; // many upgrades under load
mod mail; // with real Postfix
mod moments; // during a reload, a stop and the like
mod preload; // templates of preloaded services are
mod refusals; // programs and states that are refused
mod stage;
mod states; // the states of released formats
mod takeover; // what else is carried over
mod versions; // other versions, and what is shown of them
mod wakeups; // wake-ups under way go on

fn main() -> std::process::ExitCode {
    testkit::main()
}
