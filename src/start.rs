//! From the command line to the running loop, in Postfix's order, and the exit status.

mod configuration;
mod directories;
mod directory;
mod lock;
mod monitor;
mod resume;
mod sanitize;

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use self::configuration::{find_configuration, first_log, variable};
use self::directories::{is_locked, prepare_directories};
use self::monitor::{Monitor, Outcome, Reporter, fork_monitor};
use self::sanitize::{Descriptors, Sanitized, sanitize_process};
use crate::config::{Config, Parameters, RunOptions};
use crate::errors::describe_error;
use crate::files::{Location, beside_this_program};
use crate::log::{Log, Settings, Severity, Terminal};
use crate::options::{Options, USAGE};
use crate::output::answer;
pub use crate::runtime::{Clock, SystemClock};
use crate::runtime::{
    Ending, Inherited, Names, Runtime, Setup, environment, log_error, log_settings,
};
use crate::sandbox;
use crate::sys::privilege::Capability;
use crate::sys::signal::Interrupted;
use crate::sys::supervisor::Supervisor;
use crate::sys::{privilege, process, signal, upgrade};

/// How long `-w` waits (Postfix, `master.c`: names may have to be resolved).
const START_TIME: Duration = Duration::from_secs(100);

/// Runs the master, in a process that has no other thread. Time comes from `clock`, so that tests can
/// turn it.
pub fn main(clock: Rc<dyn Clock>) -> ExitCode {
    // First of all: signals can come from the first moment on.
    if let Err(error) = signal::hold() {
        return complain(&format!(
            "cannot take signals: {}\n",
            describe_error(&error)
        ));
    }
    if !process::is_single_threaded() {
        return complain("the process has other threads: expected none\n");
    }
    let has_variable = |name: &str| std::env::var_os(name).is_some();
    let options = match Options::parse(std::env::args_os().skip(1), has_variable) {
        Ok(options) => options,
        Err(error) => return complain(&format!("{error}\n{USAGE}")),
    };
    if options.help {
        return answer("master", USAGE);
    }
    if options.version {
        return answer(
            "master",
            concat!("master ", env!("CARGO_PKG_VERSION"), "\n"),
        );
    }
    if let Some(fd) = options.resume_check {
        return resume::check(fd);
    }
    let mut inherited: Inherited = std::env::vars_os().collect();
    let mut options = options;
    let (mut failed, mut kept) = (None, None);
    if let Some(fd) = resume::handed_over(&mut inherited) {
        let kept = kept.insert(Vec::new());
        match resume::resume(&options, fd, inherited.clone(), clock.clone(), kept) {
            Ok(resumed) => return exit(resumed.run(&options)),
            Err(error) => failed = Some(error),
        }
        // No process waits for it any more.
        options.wait = false;
    }
    let process = match sanitize_process(&options, &inherited, kept) {
        Ok(process) => process,
        Err(error) => match error.downcast_ref() {
            Some(&interrupted) => return end(&options, interrupted),
            None => return complain(&format!("{}\n", describe_error(error.as_ref()))),
        },
    };
    let mut log = Log::new(first_log(&inherited, "postfix", "mail"));
    if options.attached {
        log.set_terminal(Terminal::Everything);
    }
    if let Some(error) = failed {
        resume::complain(&mut log, &error);
    }
    match run(&options, process, inherited, clock, &mut log) {
        Ok(end) => exit(end),
        Err(error) => {
            if let Some(&interrupted) = error.downcast_ref() {
                log.info(interrupted);
                return end(&options, interrupted);
            }
            log_error(&mut log, Severity::Fatal, &error);
            ExitCode::FAILURE
        }
    }
}

fn exit(end: Exit) -> ExitCode {
    match end {
        Exit::Status(status) => ExitCode::from(status),
        Exit::Signal(number) => signal::die_by(number),
    }
}

/// Ends as a master that serves does.
fn end(options: &Options, Interrupted(number): Interrupted) -> ExitCode {
    if options.init {
        return ExitCode::SUCCESS;
    }
    signal::die_by(number)
}

fn complain(text: &str) -> ExitCode {
    // Without standard error there is no other place yet.
    let _ = write!(io::stderr(), "master: fatal: {text}");
    ExitCode::FAILURE
}

/// How the process ends when all went well.
enum Exit {
    Status(u8),
    Signal(i32),
}

fn run(
    options: &Options,
    process: Sanitized,
    inherited: Inherited,
    clock: Rc<dyn Clock>,
    log: &mut Log,
) -> anyhow::Result<Exit> {
    let mut location = find_configuration(options, &inherited, process.table)?;
    if options.attached {
        location.warn_if_others_may_write();
    }
    if location.is_stand_alone() {
        let terminal = log.settings().terminal;
        log.set(Settings {
            terminal,
            ..first_log(&inherited, "master", "daemon")
        });
    }
    check_privileges(options, &location)?;
    let Some(descriptors) = process.descriptors else {
        return Ok(Exit::Status(u8::from(is_locked(&location, log)?)));
    };
    let mut reporter = None;
    if options.wait {
        match fork_monitor(START_TIME).context("fork")? {
            Monitor::Waited(outcome) => return waited(outcome),
            Monitor::Daemon(daemons) => reporter = Some(daemons),
        }
        // The monitor's log has the monitor's process ID.
        *log = Log::new(log.settings().clone());
    }
    if !(options.init || options.debug || options.attached) {
        process::new_session().context("unable to set session and process group ID")?;
    }
    let master = Master {
        options,
        location,
        inherited,
        reporter,
        program: upgrade::own_path(),
    };
    master.serve(descriptors, clock, log)
}

fn check_privileges(options: &Options, location: &Location) -> anyhow::Result<()> {
    ensure!(
        privilege::is_root() || location.is_stand_alone(),
        "the master command is reserved for the superuser: run it as root, for instance by \
         \"sudo postfix start\", or without Postfix: name a service table with -c"
    );
    ensure_capabilities()?;
    ensure!(
        !privilege::is_setuid(),
        "the master command must not run as a set-uid process: take the set-uid and set-gid bits \
         from its file"
    );
    ensure!(
        !options.init || signal::is_init(),
        "-i is allowed only for PID 1 process: leave it out, or run master as the first process \
         of a container"
    );
    Ok(())
}

/// A container can have a root without capabilities.
fn ensure_capabilities() -> anyhow::Result<()> {
    let needed = [Capability::Setuid, Capability::Setgid];
    let missing = needed.into_iter().filter(|needed| !needed.is_there());
    let missing: Vec<&str> = missing.map(Capability::name).collect();
    ensure!(
        missing.is_empty() || !privilege::is_root(),
        "root lacks {}, which the master needs to make sockets and to start services as another \
         user than root: give it (--cap-add of the container, CapabilityBoundingSet= of systemd), \
         or start the master as another user",
        missing.join(" and ")
    );
    Ok(())
}

fn waited(outcome: Outcome) -> anyhow::Result<Exit> {
    match outcome {
        Outcome::Started => Ok(Exit::Status(0)),
        Outcome::Ended => bail!("daemon initialization failure -- see above or logs for details"),
        Outcome::TimedOut => bail!(
            "daemon initialization took more than {} seconds, perhaps for a name that does not \
             resolve -- see logs for details",
            START_TIME.as_secs()
        ),
    }
}

/// A master about to start.
struct Master<'a> {
    options: &'a Options,
    location: Location,
    inherited: Inherited,
    reporter: Option<Reporter>,
    /// The path by which this program was executed.
    program: Option<PathBuf>,
}

impl Master<'_> {
    fn serve(
        mut self,
        descriptors: Descriptors,
        clock: Rc<dyn Clock>,
        log: &mut Log,
    ) -> anyhow::Result<Exit> {
        if self.options.configuration.is_some() || self.location.is_stand_alone() {
            // The children find their configuration in this way.
            let path = self.location.for_children().as_os_str().to_owned();
            self.inherited.insert("MAIL_CONFIG".into(), path);
        }
        let config = self.read_config(log)?;
        let environment = environment(&config.parameters, &self.inherited);
        process::set_environment(&environment);
        let locks = prepare_directories(&config.parameters, log)?;
        if self.options.debug {
            debug(&config.parameters, log)?;
        }
        let runtimes_log = Log::new(log.settings().clone());
        let Descriptors { spawner, handed } = descriptors;
        let mut setup = self.setup(clock, log);
        setup.locks = locks.iter().map(|lock| lock.as_fd().as_raw_fd()).collect();
        let mut runtime = Runtime::new(setup, config, spawner, handed, runtimes_log)?;
        // From now on there is one log, and no second one that keeps a file open after its renaming.
        log.set(first_log(&self.inherited, "postfix", "mail"));
        runtime.announce();
        self.detach_and_report(runtime.log())?;
        let ending = runtime.run();
        Ok(finish(self.options, ending, runtime.log()))
    }

    /// Reads the configuration, and has the log go where its parameters say, also when the service
    /// table is wrong.
    fn read_config(&mut self, log: &mut Log) -> anyhow::Result<Config> {
        let sources = self.location.read()?;
        self.location.release_pipe();
        let set = |parameters: &Parameters, log: &mut Log| {
            log.set(log_settings(parameters, log.settings().terminal));
        };
        let (parsed, names) = Names::look_up_all(|names| Config::parse(&sources, names))?;
        match parsed {
            Ok(config) => {
                set(&config.parameters, log);
                Ok(config)
            }
            Err(findings) => {
                if let Ok(parameters) = Parameters::parse(&sources, &names) {
                    set(&parameters, log);
                }
                Err(findings.into())
            }
        }
    }

    fn setup(&self, clock: Rc<dyn Clock>, log: &mut Log) -> Setup {
        let exit_time = self.options.exit_time;
        Setup {
            location: self.location.clone(),
            run: RunOptions {
                attached: self.options.attached,
                verbose: self.options.verbose > 0,
                without_root: !privilege::is_root(),
            },
            executor: beside_this_program(sandbox::PROGRAM),
            exit_at: exit_time.map(|time| clock.now() + time),
            clock,
            inherited: self.inherited.clone(),
            supervisor: supervisor(&self.inherited, log),
            program: self.program.clone(),
            locks: Vec::new(),
        }
    }

    /// Writes what else belongs to the start, detaches from the terminal, and tells the process that
    /// waits for `-w`.
    fn detach_and_report(&mut self, log: &mut Log) -> anyhow::Result<()> {
        if let Some(main_cf) = self.location.ignored_main_cf() {
            log.warning(format!(
                "{} is not read, because a service table was named: for Postfix, name its \
                 directory with -c",
                main_cf.display()
            ));
        }
        if !privilege::is_root() {
            log.info(
                "not running as root: all children run as the same user, and the columns \
                 unprivileged and chroot are without effect",
            );
        }
        if privilege::is_root() && !Capability::Kill.is_there() {
            log.warning(
                "root lacks CAP_KILL: children of other users get no signal, and end only when \
                 they leave by themselves",
            );
        }
        if !self.options.attached {
            self.warn_of_lost_lines(log);
            detach(self.options.keep_stdout).context("open /dev/null")?;
            log.set_terminal(Terminal::Nothing);
        }
        if let Some(reporter) = self.reporter.take() {
            reporter.started();
        }
        Ok(())
    }

    /// Says on standard error, while there is one, that log lines have no way out.
    fn warn_of_lost_lines(&self, log: &mut Log) {
        if log.settings().target.is_stdout() && !self.options.keep_stdout {
            log.warning(
                "maillog_file is /dev/stdout, which is /dev/null without -s: start with -s",
            );
        }
        let lost = log.lost().map(|(_, reason)| reason.to_owned());
        if let Some(reason) = lost {
            log.warning(format!(
                "log lines are lost: {reason}: start a process that takes them, or set maillog_file"
            ));
        }
    }
}

/// How the process ends after the loop.
fn finish(options: &Options, ending: anyhow::Result<Ending>, log: &mut Log) -> Exit {
    match ending {
        Ok(Ending::ExitTime) => {
            log.info("master exit time has arrived");
            Exit::Status(0)
        }
        Ok(Ending::Signal(_)) if options.init => Exit::Status(0),
        Ok(Ending::Signal(number)) => Exit::Signal(number),
        Err(error) => {
            log_error(log, Severity::Fatal, &error);
            Exit::Status(1)
        }
    }
}

/// The service manager, as systemd is one. That it cannot be reached is no reason not to serve.
fn supervisor(inherited: &Inherited, log: &mut Log) -> Supervisor {
    let variable = |name: &str| variable(inherited, name);
    Supervisor::from_environment(variable, std::process::id()).unwrap_or_else(|error| {
        let reason = describe_error(&error);
        log.warning(format!(
            "NOTIFY_SOCKET: cannot reach the service manager: {reason}"
        ));
        Supervisor::default()
    })
}

/// Runs the debugger on this process, as far as the user's command does that.
fn debug(parameters: &Parameters, log: &mut Log) -> anyhow::Result<()> {
    let command = &parameters.debugger_command;
    ensure!(
        !command.is_empty(),
        "no debugger_command variable set up: set it in main.cf, or leave out -D"
    );
    log.info(format!("running: {command}"));
    Command::new("/bin/sh")
        .args(["-c", command])
        .status()
        .context("run debugger_command")?;
    Ok(())
}

/// Gives up the terminal.
fn detach(keep_stdout: bool) -> io::Result<()> {
    [0, 1, 2]
        .into_iter()
        .filter(|&fd| !(fd == 1 && keep_stdout))
        .try_for_each(process::to_dev_null)
}
