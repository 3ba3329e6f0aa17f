//! The command line.

use std::path::{Path, PathBuf};

use crate::connection::StatusReply;
use crate::process;
use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use master::files::{Location, POSTFIX};

use crate::advise::Options as Advising;
use crate::simulate::Options as Simulation;

/// The help text of an argument that names a service.
const SERVICE: &str = "The service: \"smtp\", \"private/smtp\" or \"smtp/unix\"";

/// The help text after the list of commands.
const EXAMPLES: &str = "\
Examples:
  masterctl status                    all services, and what is wrong
  masterctl status smtp/inet          one service, with its children
  masterctl plan && masterctl reload  what an edit changes, and then change it
  masterctl pause private/policy      have clients wait, until \"resume\"

The manual, masterctl(1), has the columns, the exit status and the JSON document.";

/// The help text after the options of `simulate`.
const SIMULATION: &str = "\
Example: 200 clients a second of 1.5 s, some of them of 20 s; what do these limits do?
  masterctl simulate --rate 200 --time 1.5s --slow 5%:20s --maxproc 100,300,600";

/// Shows and controls a running master(8).
#[derive(Debug, Parser)]
#[command(name = "masterctl", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Arguments {
    /// The master's configuration, as in its option -c: the directory, or the service table; by
    /// default /etc/postfix
    #[arg(
        short,
        long,
        value_name = "CONFIGURATION",
        env = "MAIL_CONFIG",
        global = true
    )]
    config: Option<PathBuf>,

    /// The master's queue directory, if it differs from the configuration's
    #[arg(long, value_name = "DIRECTORY", global = true)]
    pub queue: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the status of the master and its services
    Status {
        /// Show one service with its children, by its name: "smtp", "private/smtp" or "smtp/unix"
        name: Option<String>,
        /// Show the status document as the master sends it
        #[arg(long, conflicts_with = "name")]
        json: bool,
    },
    /// Show the services of a running master, continuously
    ///
    /// The key ? shows the other keys.
    Top {
        /// Print one picture of all services and exit
        #[arg(long)]
        once: bool,
    },
    /// Check the configuration as a reload does, and show all errors and warnings
    ///
    /// The exit status is 0 when a reload would succeed, and 1 when it would fail.
    Check,
    /// Show what a reload would change
    ///
    /// The exit status is 1 when the reload would fail.
    Plan,
    /// Show what a child of a service may do, by the limits and the sandbox in the configuration
    Sandbox {
        #[arg(help = SERVICE)]
        name: String,
    },
    /// Reload the master's configuration and report the result
    ///
    /// The files are checked first. If they have errors, the master is not signalled. The exit
    /// status is 1 when the reload fails; a failed reload changes nothing.
    Reload {
        /// Only replace the children of this service: "smtp", "private/smtp" or "smtp/unix"
        name: Option<String>,
    },
    /// Stop the master and wait until it has ended
    Stop,
    /// Have a new version of the program go on in the master's place
    ///
    /// The process, its children, listeners, clients and counters stay. The new program is checked
    /// first; the exit status is 1 if it cannot go on, and the master then serves as before.
    Upgrade {
        /// The new program; by default the path by which the master was started
        #[arg(long, value_name = "PATH")]
        program: Option<PathBuf>,
    },
    /// Pause a service: its clients wait
    ///
    /// The listeners stay open and no child is started. Running children leave when they have
    /// finished with their client. A reload does not end the pause.
    Pause {
        #[arg(help = SERVICE)]
        name: String,
    },
    /// Resume a paused service
    Resume {
        #[arg(help = SERVICE)]
        name: String,
    },
    /// Wake a service up now
    Wake {
        #[arg(help = SERVICE)]
        name: String,
    },
    /// Set how much the master logs
    LogLevel {
        /// The level
        level: Level,
    },
    /// Show what other process limits would do to a service, in simulated time
    ///
    /// The master's own rules decide. Clients come at random times, independently of each other.
    #[command(after_help = SIMULATION)]
    Simulate(Box<Simulation>),
    /// Show which settings the last day of the services suggests
    ///
    /// The day is what statusd has seen, or else the counters since the master's start. Where the rate
    /// of clients is known, a proposal is simulated.
    Advise(Advising),
    /// Print a script for the shell that completes these commands
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// The amount of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Only important events
    Quiet,
    /// Each decision as well, as with the master's -v
    Verbose,
}

impl Arguments {
    /// The location of the configuration.
    ///
    /// # Errors
    /// There is no configuration.
    pub fn location(&self) -> Result<Location> {
        self.find(Path::new(POSTFIX))
    }

    /// The location of the configuration of the master that sent `reply`.
    ///
    /// # Errors
    /// There is no configuration.
    pub fn location_of(&self, reply: &StatusReply) -> Result<Location> {
        let mut location = match self.queue {
            Some(_) => self.find(Path::new(&reply.document.configuration))?,
            None => self.location()?,
        };
        if process::user(reply.pid).is_some_and(|user| user.uid != 0) {
            location.ignore_if_others_may_write();
        }
        if process::is_attached_master(reply.pid) {
            location.warn_if_others_may_write();
        }
        Ok(location)
    }

    fn find(&self, usual: &Path) -> Result<Location> {
        let path = self.config.as_deref().unwrap_or(usual);
        Location::find(path, |name| std::env::var_os(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn everything_has_help() {
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name}: {argument}");
            }
        }
    }
}
