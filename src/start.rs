//! From the command line to the running loop, in Postfix's order, and the exit status.

use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};

use crate::config::{Config, Parameters, RunOptions, User};
use crate::errors::describe_error;
use crate::files::{Location, Names, POSTFIX};
use crate::log::{Log, Settings, Severity, Terminal};
use crate::options::{Options, USAGE};
use crate::runtime::{
    Clock, Ending, Inherited, Runtime, Setup, environment, log_error, log_settings,
};
use crate::sys::lock::{LockError, LockFile};
use crate::sys::process::{self, Monitor, Outcome, Reporter};
use crate::sys::spawn::Spawner;
use crate::sys::supervisor::Supervisor;
use crate::sys::{directory, handed};
use crate::sys::{privilege, signal};

/// The file that a running master holds locked, below the queue directory.
const PID_FILE: &str = "pid/master.pid";
/// How long `-w` waits (Postfix, `master.c`: names may have to be resolved).
const START_TIME: Duration = Duration::from_secs(100);

/// Runs the master. Time comes from `clock`, so that tests can turn it.
pub fn main(clock: Box<dyn Clock>) -> ExitCode {
    let has_variable = |name: &str| std::env::var_os(name).is_some();
    let options = match Options::parse(std::env::args_os().skip(1), has_variable) {
        Ok(options) => options,
        Err(error) => return complain(&format!("{error}\n{USAGE}")),
    };
    if options.help {
        return answer(USAGE);
    }
    if options.version {
        return answer(concat!("master ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    let descriptors = match clean_up(&options) {
        Ok(descriptors) => descriptors,
        Err(error) => return complain(&format!("{}\n", describe_error(error.as_ref()))),
    };
    let inherited: Inherited = std::env::vars_os().collect();
    let mut log = Log::new(first_log(&inherited, "postfix", "mail"));
    if options.attached {
        log.set_terminal(Terminal::Everything);
    }
    match run(&options, descriptors, inherited, clock, &mut log) {
        Ok(Exit::Status(status)) => ExitCode::from(status),
        Ok(Exit::Signal(number)) => signal::die_by(number),
        Err(error) => {
            log_error(&mut log, Severity::Fatal, &error);
            ExitCode::FAILURE
        }
    }
}

fn answer(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) -> ExitCode {
    // Nobody listens if not there.
    let _ = write!(io::stderr(), "master: fatal: {text}");
    ExitCode::FAILURE
}

/// How the process ends when all went well.
enum Exit {
    Status(u8),
    Signal(i32),
}

/// The descriptors with which the master begins.
struct Descriptors {
    spawner: Spawner,
    /// Listeners of a service manager's.
    handed: Vec<OwnedFd>,
}

/// Leaves behind what the parent process had set, and takes the descriptors that the children will
/// want before anything else does. For `-t`, which has no children, any descriptors will do.
fn clean_up(options: &Options) -> anyhow::Result<Option<Descriptors>> {
    process::set_umask(0o077);
    signal::reset().context("cannot reset signals")?;
    if options.test_lock {
        handed::take(0, 0)?;
        process::open_standard_descriptors().context("open /dev/null")?;
        return Ok(None);
    }
    process::raise_limits().context("cannot raise the limits")?;
    let count = handed::count(|name| std::env::var_os(name), std::process::id());
    let handed = handed::take(count, Spawner::END).context("LISTEN_FDS")?;
    process::open_standard_descriptors().context("open /dev/null")?;
    let spawner = Spawner::new().context(
        "cannot reserve descriptors for the children, some 270 are needed: raise \"ulimit -n\"",
    )?;
    Ok(Some(Descriptors { spawner, handed }))
}

fn run(
    options: &Options,
    descriptors: Option<Descriptors>,
    inherited: Inherited,
    clock: Box<dyn Clock>,
    log: &mut Log,
) -> anyhow::Result<Exit> {
    let location = location(options, &inherited)?;
    if location.is_stand_alone() {
        let terminal = log.settings().terminal;
        log.set(Settings {
            terminal,
            ..first_log(&inherited, "master", "daemon")
        });
    }
    check_privileges(options, &location)?;
    let Some(descriptors) = descriptors else {
        return test_lock(&location, log);
    };
    let mut reporter = None;
    if options.wait {
        match process::fork_monitor(START_TIME).context("fork")? {
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
    };
    master.serve(descriptors, clock, log)
}

/// `-t`: whether a master is running, told by the exit status.
fn test_lock(location: &Location, log: &mut Log) -> anyhow::Result<Exit> {
    let sources = location.read_parameters()?;
    let parameters = Parameters::parse(&sources, &Names)?;
    let path = parameters.queue_directory.join(PID_FILE);
    if !path.try_exists().unwrap_or(true) {
        return Ok(Exit::Status(0));
    }
    match LockFile::acquire(&path) {
        Ok(_) => Ok(Exit::Status(0)),
        Err(LockError::Held(_)) => Ok(Exit::Status(1)),
        Err(error) => {
            // No master holds what no master could have opened; scripts that believe otherwise
            // send signals to whatever process a stale file names.
            log.warning(format!(
                "lock file {}: {}",
                path.display(),
                describe_error(&error)
            ));
            Ok(Exit::Status(0))
        }
    }
}

fn check_privileges(options: &Options, location: &Location) -> anyhow::Result<()> {
    ensure!(
        privilege::is_root() || location.is_stand_alone(),
        "the master command is reserved for the superuser: run it as root, for instance by \
         \"sudo postfix start\", or without Postfix: name a service table with -c"
    );
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

/// Until the configuration is known: the system's log, or what a parent Postfix program names.
fn first_log(inherited: &Inherited, name: &str, facility: &str) -> Settings {
    let variable = |name: &str| inherited.get(Path::new(name).as_os_str()).cloned();
    Settings::inherited(variable, name, "master", facility, Terminal::Problems)
}

/// Postfix's configuration is found without being named; others are not, lest a `main.cf` that
/// is gone make another system of it.
fn location(options: &Options, inherited: &Inherited) -> anyhow::Result<Location> {
    let variable = |name: &str| inherited.get(Path::new(name).as_os_str()).cloned();
    let named = options.configuration.clone();
    let named = named.or_else(|| variable("MAIL_CONFIG").map(PathBuf::from));
    let location = Location::find(named.as_deref().unwrap_or(Path::new(POSTFIX)), variable)?;
    ensure!(
        named.is_some() || !location.is_stand_alone(),
        "{POSTFIX} has no main.cf: name the directory of main.cf and master.cf, or a \
         service table, with -c"
    );
    Ok(location)
}

/// A master about to start.
struct Master<'a> {
    options: &'a Options,
    location: Location,
    inherited: Inherited,
    reporter: Option<Reporter>,
}

impl Master<'_> {
    fn serve(
        mut self,
        descriptors: Descriptors,
        clock: Box<dyn Clock>,
        log: &mut Log,
    ) -> anyhow::Result<Exit> {
        if self.options.configuration.is_some() || self.location.is_stand_alone() {
            // The children find their configuration in this way.
            let path = self.location.path().as_os_str().to_owned();
            self.inherited.insert("MAIL_CONFIG".into(), path);
        }
        let config = self.read_config(log)?;
        let _locks = self.move_in(&config.parameters)?;
        if self.options.debug {
            debug(&config.parameters, log)?;
        }
        let runtimes_log = Log::new(log.settings().clone());
        let Descriptors { spawner, handed } = descriptors;
        let setup = self.setup(clock, log);
        let mut runtime = Runtime::new(setup, config, spawner, handed, runtimes_log)?;
        // From now on there is one log, and no second one that holds on to a file of yesterday.
        log.set(first_log(&self.inherited, "postfix", "mail"));
        runtime.announce();
        self.let_go(runtime.log())?;
        let ending = runtime.run();
        let log = runtime.log();
        Ok(match ending {
            Ok(Ending::ExitTime) => {
                log.info("master exit time has arrived");
                Exit::Status(0)
            }
            Ok(Ending::Signal(_)) if self.options.init => Exit::Status(0),
            Ok(Ending::Signal(number)) => Exit::Signal(number),
            Err(error) => {
                log_error(log, Severity::Fatal, &error);
                Exit::Status(1)
            }
        })
    }

    /// Reads the configuration, and has the log go where its parameters say, also when the service
    /// table is wrong.
    fn read_config(&self, log: &mut Log) -> anyhow::Result<Config> {
        let sources = self.location.read()?;
        let set = |parameters: &Parameters, log: &mut Log| {
            log.set(log_settings(parameters, log.settings().terminal));
        };
        match Config::parse(&sources, &Names) {
            Ok(config) => {
                set(&config.parameters, log);
                Ok(config)
            }
            Err(findings) => {
                if let Ok(parameters) = Parameters::parse(&sources, &Names) {
                    set(&parameters, log);
                }
                Err(findings.into())
            }
        }
    }

    /// Takes possession of the environment, the working directory, and the two directories that
    /// no other master may have; until the locks are dropped.
    fn move_in(&self, parameters: &Parameters) -> anyhow::Result<[LockFile; 2]> {
        process::set_environment(&environment(parameters, &self.inherited));
        if privilege::is_root() {
            privilege::drop_groups().context("cannot give up supplementary groups")?;
        }
        if parameters.stand_alone {
            make_directories(parameters)?;
        }
        let queue = &parameters.queue_directory;
        std::env::set_current_dir(queue).map_err(|error| {
            let (directory, reason) = (queue.display(), describe_error(&error));
            anyhow!(
                "queue_directory {directory}: cannot enter it: {reason}: \"postfix check\" makes it"
            )
        })?;
        Ok([lock_pid_file(parameters)?, lock_data_directory(parameters)?])
    }

    fn setup(&self, clock: Box<dyn Clock>, log: &mut Log) -> Setup {
        let exit_time = self.options.exit_time;
        Setup {
            location: self.location.clone(),
            run: RunOptions {
                attached: self.options.attached,
                verbose: self.options.verbose > 0,
                without_root: !privilege::is_root(),
            },
            exit_at: exit_time.map(|time| clock.now() + time),
            clock,
            inherited: self.inherited.clone(),
            supervisor: self.supervisor(log),
        }
    }

    /// The service manager, as systemd is one, which is no reason not to serve.
    fn supervisor(&self, log: &mut Log) -> Supervisor {
        let variable = |name: &str| self.inherited.get(Path::new(name).as_os_str()).cloned();
        Supervisor::from_environment(variable, std::process::id()).unwrap_or_else(|error| {
            let reason = describe_error(&error);
            log.warning(format!(
                "NOTIFY_SOCKET: cannot reach the service manager: {reason}"
            ));
            Supervisor::default()
        })
    }

    /// Says what else there is to say at the start, and lets go of the terminal and of who waits.
    fn let_go(&mut self, log: &mut Log) -> anyhow::Result<()> {
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
        if !self.options.attached {
            detach(self.options.keep_stdout).context("open /dev/null")?;
            log.set_terminal(Terminal::Nothing);
        }
        if let Some(reporter) = self.reporter.take() {
            reporter.started();
        }
        Ok(())
    }
}

/// Makes what is missing of the directories that Postfix's own tools would make. Sockets are
/// their owner's to make; a private one is reached by nobody else.
fn make_directories(parameters: &Parameters) -> anyhow::Result<()> {
    let (queue, data) = (&parameters.queue_directory, &parameters.data_directory);
    let (own, owner) = (privilege::user(), parameters.mail_owner.1);
    let owner = (owner.uid, owner.gid);
    for (path, mode, (uid, gid)) in [
        (queue.clone(), 0o755, own),
        (queue.join("pid"), 0o755, own),
        (queue.join("public"), 0o755, owner),
        (queue.join("private"), 0o700, owner),
        (data.clone(), 0o700, owner),
    ] {
        directory::ensure(&path, mode, uid, gid).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Locks the queue directory against another master, ours or Postfix's.
fn lock_pid_file(parameters: &Parameters) -> anyhow::Result<LockFile> {
    let path = parameters.queue_directory.join(PID_FILE);
    let locked = LockFile::acquire(&path).map_err(|error| {
        let advice = match &error {
            LockError::Held(_) if parameters.stand_alone => {
                ": a master is running here already; to run another, give it a queue_directory \
                 and a data_directory of its own in master.toml"
            }
            LockError::Held(_) => ": a master is running here already; \"postfix stop\" ends it",
            LockError::Open(error) if error.kind() == ErrorKind::NotFound => {
                ": the directory pid is missing; \"postfix check\" makes it"
            }
            _ => "",
        };
        anyhow!(
            "lock file {}: {}{advice}",
            path.display(),
            describe_error(&error)
        )
    });
    written(locked?, &path)
}

/// Locks the directory that belongs to the mail owner, as the mail owner.
fn lock_data_directory(parameters: &Parameters) -> anyhow::Result<LockFile> {
    let (name, User { uid, gid }) = &parameters.mail_owner;
    let directory = parameters.data_directory.display();
    let path = parameters.data_directory.join("master.lock");
    let locked = privilege::as_user(*uid, *gid, || Ok(LockFile::acquire(&path)))?;
    let locked = locked.map_err(|error| {
        let advice = match &error {
            LockError::Held(_) => {
                ": a master of another queue directory uses this data_directory; give each its own"
                    .into()
            }
            LockError::Open(error) if error.kind() == ErrorKind::NotFound => {
                format!(": make the data_directory with \"install -d -o {name} {directory}\"")
            }
            LockError::Open(error) if error.kind() == ErrorKind::PermissionDenied => format!(
                ": the data_directory must belong to mail_owner: \"chown {name} {directory}\""
            ),
            _ => String::new(),
        };
        anyhow!(
            "lock file {}: {}{advice}",
            path.display(),
            describe_error(&error)
        )
    });
    written(locked?, &path)
}

fn written(mut lock: LockFile, path: &Path) -> anyhow::Result<LockFile> {
    lock.write_pid(std::process::id())
        .with_context(|| format!("cannot update lock file {}", path.display()))?;
    Ok(lock)
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

/// Lets go of the terminal.
fn detach(keep_stdout: bool) -> io::Result<()> {
    let standard = [0, 1, 2].into_iter();
    let mut standard = standard.filter(|&fd| !(fd == 1 && keep_stdout));
    standard.try_for_each(process::to_dev_null)
}
