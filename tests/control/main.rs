//! The status socket and the control socket of a master, with masterctl and with other clients; as
//! root and as an ordinary user.

mod advise; // services that run
mod backlog; // how many clients wait, and where
mod backoff; // the back-off state of services
mod commands; // the commands of masterctl
mod crowds; // many readers while clients are served
mod objects; // log lines for machines
mod refusals; // errors of masterctl
mod simulate; // a simulated service beside a real one
mod sockets; // access rights, and invalid messages

fn main() -> std::process::ExitCode {
    testkit::main()
}
