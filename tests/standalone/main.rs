//! Services without Postfix: a stand-alone table, run by root or by an ordinary user.

mod addresses; // TCP addresses at which something listens already
mod also_listen; // several endpoints for one service
mod answers; // questions to the programs, and output that cannot be written
mod bundled; // the bundled services
mod capabilities; // root without capabilities
mod config_files; // files that are not regular, and a table from a pipe
mod directories; // the directories for sockets and locks
mod drop_in; // further tables and settings in directories
mod environment; // what execve(2) allows, and std::env does not
mod first_signals; // signals before the master serves
mod journal; // lines in systemd's journal
mod last_words; // what children write before they fail
mod log_loss; // a log that goes nowhere
mod newcomer; // common mistakes, and their messages
mod output; // children's output, and the format of the log
mod paths; // paths that are long, relative, or not UTF-8
mod supervisor; // notifications to a service manager
mod terminal; // output on a terminal
mod trust; // files that others can change
mod user; // a master without root's privileges

fn main() -> std::process::ExitCode {
    testkit::main()
}
