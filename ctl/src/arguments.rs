//! The command line.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use master::files::{Location, POSTFIX};
use master::status::Document;

/// How a service is named.
const SERVICE: &str = "The service: \"smtp\", \"private/smtp\" or \"smtp/unix\"";

/// After the list of commands.
const EXAMPLES: &str = "\
Examples:
  masterctl status                    all services, and what is wrong
  masterctl status smtp/inet          one service, with its children
  masterctl plan && masterctl reload  what an edit changes, and then change it
  masterctl pause private/policy      have clients wait, until \"resume\"

The manual, masterctl(1), has the columns, the exit status and the JSON document.";

/// Sees and steers a running master(8).
#[derive(Debug, Parser)]
#[command(name = "masterctl", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Arguments {
    /// The master's configuration: the directory, or the service table, that its -c names; by default
    /// /etc/postfix
    #[arg(
        short,
        long,
        value_name = "CONFIGURATION",
        env = "MAIL_CONFIG",
        global = true
    )]
    config: Option<PathBuf>,

    /// The master's queue directory, instead of the configuration's
    #[arg(long, value_name = "DIRECTORY", global = true)]
    pub queue: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the master and its services do
    Status {
        /// One service, with its children, by its name: "smtp", "private/smtp" or "smtp/unix"
        name: Option<String>,
        /// Show the document as the master sends it
        #[arg(long, conflicts_with = "name")]
        json: bool,
    },
    /// Show the services of a running master, live
    ///
    /// The key ? shows what the others do.
    Top {
        /// Print one picture of all services, and leave
        #[arg(long)]
        once: bool,
    },
    /// Check the configuration as a reload would, and show all that is wrong
    ///
    /// The exit status is 0 when a reload would succeed, and 1 when it would fail.
    Check,
    /// Show what a reload would change
    ///
    /// The exit status is 1 when it would fail.
    Plan,
    /// Have the master reload its configuration, and tell what came of it
    ///
    /// What is wrong in the files is told at once, and the master left alone. The exit status is 1
    /// when the reload fails, which changes nothing.
    Reload {
        /// Only replace the children of this service: "smtp", "private/smtp" or "smtp/unix"
        name: Option<String>,
    },
    /// End the master, and wait for its end
    Stop,
    /// Have a service's clients wait
    ///
    /// The listeners stay open, no child is started, and those that are there leave when they have
    /// finished with their client. This outlasts reloads.
    Pause {
        #[arg(help = SERVICE)]
        name: String,
    },
    /// Have a paused service's clients wait no longer
    Resume {
        #[arg(help = SERVICE)]
        name: String,
    },
    /// Wake a service up now
    Wake {
        #[arg(help = SERVICE)]
        name: String,
    },
    /// Have the master log what it decides, or only what matters
    LogLevel {
        /// How much
        level: Level,
    },
    /// Write what a shell needs to complete these commands
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// How much the master logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// What matters
    Quiet,
    /// What it decides, too, as with the master's -v
    Verbose,
}

impl Arguments {
    /// Where the configuration is.
    ///
    /// # Errors
    /// There is none.
    pub fn location(&self) -> Result<Location> {
        self.find(Path::new(POSTFIX))
    }

    /// Where the configuration is of a master that was found without it.
    ///
    /// # Errors
    /// There is none.
    pub fn location_of(&self, document: &Document) -> Result<Location> {
        match self.queue {
            Some(_) => self.find(Path::new(&document.configuration)),
            None => self.location(),
        }
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
