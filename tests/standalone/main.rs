//! Services without Postfix: a table of one's own, run by root or by anybody.

mod bundled; // the services that lie beside it
mod config_files; // files that are none, and a table that comes through a pipe
mod directories; // where sockets and locks are, and who may write there
mod environment; // what execve(2) allows, and std::env does not
mod journal; // lines in systemd's journal
mod newcomer; // the mistakes that people make, and what they are told
mod output; // what children print, and the form of the log
mod supervisor; // what a service manager is told
mod terminal; // what is seen on the terminal
mod user; // what somebody without root's privileges has

fn main() -> std::process::ExitCode {
    testkit::main()
}
