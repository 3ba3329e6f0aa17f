//! The service's log, which has the same destination as the mail system's.

use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use master::log::{Settings, Severity, Terminal};
use master::protocol::GENERATION;

/// A service's log. Clones write to the same destination.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Mutex<master::log::Log>>,
    verbose: bool,
}

impl Log {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut log = master::log::Log::new(settings);
        log.set_postlogd_available(true);
        Self {
            shared: Arc::new(Mutex::new(log)),
            verbose: false,
        }
    }

    pub(crate) fn set(&mut self, settings: Settings, verbose: bool) {
        self.verbose = verbose;
        self.lock().set(settings);
    }

    /// Writes all lines to standard error, too.
    pub(crate) fn show(&self) {
        self.lock().set_terminal(Terminal::Everything);
    }

    /// Opens the log's socket before a chroot hides its path.
    pub(crate) fn connect(&self) {
        let mut log = self.lock();
        log.connect();
        log.catch_panics();
    }

    /// This process has given up its rights, and keeps no file that it could not open without them.
    pub(crate) fn give_up_file(&self) {
        let mut log = self.lock();
        log.give_up_file();
        // The former hook has a descriptor of its own.
        let _ = std::panic::take_hook();
        log.catch_panics();
    }

    /// This process is a copy of the one that has made the log.
    pub(crate) fn forked(&self) {
        self.lock().forked();
        self.connect();
    }

    /// Writes a line for information.
    pub fn info(&self, text: impl Display) {
        self.lock().info(text);
    }

    /// Writes a warning, for something that an administrator should look into.
    pub fn warning(&self, text: impl Display) {
        self.lock().warning(text);
    }

    /// Writes an error, for something that failed.
    pub fn error(&self, text: impl Display) {
        self.lock().error(text);
    }

    /// Writes a line only if `-v` is set.
    pub fn detail(&self, text: impl Display) {
        if self.verbose {
            self.lock().info(text);
        }
    }

    pub(crate) fn fatal(&self, text: impl Display) {
        self.lock().write(Severity::Fatal, text);
    }

    /// The log. A panic while a line was written has not damaged it.
    fn lock(&self) -> MutexGuard<'_, master::log::Log> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

/// The log until the configuration is read: syslog, or the destination that the master passes.
pub(crate) fn first_log(program: &str) -> Log {
    let variable = |name: &str| std::env::var_os(name);
    // Without a master, the process was started from a terminal.
    let terminal = match variable(GENERATION) {
        Some(_) => Terminal::Lost,
        None => Terminal::Everything,
    };
    let settings = Settings::inherited(variable, "master", program, "mail", terminal);
    Log::new(settings)
}
