//! The command line.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};
use master::files::Location;

/// Where Postfix's configuration is unless told otherwise.
const CONFIGURATION: &str = "/etc/postfix";

/// Sees and steers a running master(8).
#[derive(Debug, Parser)]
#[command(name = "masterctl", version, max_term_width = 100)]
pub struct Arguments {
    /// The master's configuration: the directory, or the service table, that its -c names
    #[arg(
        short,
        long,
        value_name = "CONFIGURATION",
        env = "MAIL_CONFIG",
        global = true
    )]
    config: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the configuration as a reload would, and show all that is wrong
    ///
    /// The exit status is 0 when a reload would succeed, and 1 when it would fail.
    Check,
    /// Show the services of a running master, live
    ///
    /// The key ? shows what the others do.
    Top {
        /// Print one picture of all services, and leave
        #[arg(long)]
        once: bool,
    },
}

impl Arguments {
    /// Where the configuration is.
    ///
    /// # Errors
    /// There is none.
    pub fn location(&self) -> Result<Location> {
        let path = self.config.as_deref().unwrap_or(Path::new(CONFIGURATION));
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
}
