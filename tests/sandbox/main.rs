//! What children of services with limits and a sandbox may do, asked from inside of them.

mod calls; // the filter of system calls
mod files; // the files that can be opened
mod groups; // control groups
mod hostile; // what a hostile child can do, free and confined
mod limits; // limits, priorities, umask, processors
mod privileges; // user, groups, capabilities
mod recycle; // children that leave for others to take their places
mod stage;
mod start; // how such children are started, and what is said when they cannot be // services with children that answer

fn main() -> std::process::ExitCode {
    testkit::main()
}
