//! A master that is looked at and steered, by masterctl and by whoever else finds its sockets; as
//! root's and as an ordinary user's.

mod backlog; // how many clients wait, and where
mod backoff; // what a master has learned about its services' commands
mod commands; // what masterctl does
mod crowds; // many readers while clients are served
mod objects; // log lines for machines
mod refusals; // what masterctl cannot do, and says so
mod sockets; // who may come, and what they may say
mod stage; // services that do as they are told, and what the master tells

fn main() -> std::process::ExitCode {
    testkit::main()
}
