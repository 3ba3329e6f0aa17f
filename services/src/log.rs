//! The service's log lines, which go where the mail system's go.

use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use master::log::{Settings, Severity, Terminal};
use master::protocol::GENERATION;

/// Where a service writes its log. A copy writes to the same place.
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

    /// Prepares for a chroot, in which the files of the system cannot be found.
    pub(crate) fn connect(&self) {
        let mut log = self.lock();
        log.connect();
        log.catch_panics();
    }

    /// Writes a line for information.
    pub fn info(&self, text: impl Display) {
        self.lock().info(text);
    }

    /// Writes a line that an administrator should look into.
    pub fn warning(&self, text: impl Display) {
        self.lock().warning(text);
    }

    /// Writes a line about something that failed.
    pub fn error(&self, text: impl Display) {
        self.lock().error(text);
    }

    /// Writes a line that only `-v` asks for.
    pub fn detail(&self, text: impl Display) {
        if self.verbose {
            self.lock().info(text);
        }
    }

    pub(crate) fn fatal(&self, text: impl Display) {
        self.lock().write(Severity::Fatal, text);
    }

    /// The log; a line that panicked half-way has not broken it.
    fn lock(&self) -> MutexGuard<'_, master::log::Log> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

/// Until the configuration is known: the system's log, or what the master names.
pub(crate) fn first_log(program: &str) -> Log {
    let variable = |name: &str| std::env::var_os(name);
    // Without a master, the process was started on a terminal.
    let terminal = match variable(GENERATION) {
        Some(_) => Terminal::Nothing,
        None => Terminal::Everything,
    };
    let settings = Settings::inherited(variable, "master", program, "mail", terminal);
    Log::new(settings)
}
