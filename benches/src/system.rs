//! A private Postfix configuration for measurements, on a file system in memory, where sockets are
//! created fastest. Its children do almost nothing.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::process::Process;

/// The program that build.rs has built from `child/main.rs`.
pub const CHILD: &str = env!("CHILD");
/// A service that gets very many children, and another service.
pub const CROWD: &str = "s0 unix - - n - 0 child hold\nother unix - - n - 0 child once\n";
/// The other service alone.
pub const OTHER_ALONE: &str = "other unix - - n - 0 child once\n";
/// A file system in memory.
const MEMORY: &str = "/dev/shm";
/// Timeout for everything.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The directories of a mail system.
pub struct System {
    directory: TempDir,
}

/// A running master; it is stopped on drop.
pub struct Running<'a> {
    system: &'a System,
    child: Child,
    /// The control group of the master and its children, if available.
    group: Option<Cgroup>,
}

impl System {
    pub fn new() -> Result<Self> {
        let directory = if Path::new(MEMORY).is_dir() {
            tempfile::tempdir_in(MEMORY)
        } else {
            tempfile::tempdir()
        };
        let system = Self {
            directory: directory.context("a directory for the queue")?,
        };
        let owner = User::from_name("postfix")?.context("no user \"postfix\": install Postfix")?;
        let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
        fs::set_permissions(system.path(""), Permissions::from_mode(0o755))?;
        for (name, mode, owned) in [
            ("etc", 0o755, false),
            ("sbin", 0o755, false),
            ("queue", 0o755, false),
            ("queue/pid", 0o755, false),
            ("queue/public", 0o755, true),
            ("queue/private", 0o700, true),
            ("data", 0o700, true),
        ] {
            let path = system.path(name);
            fs::create_dir(&path)?;
            if owned {
                chown(&path, Some(uid), Some(gid))?;
            }
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        system.install(Path::new(CHILD), "child")?;
        let main_cf = system.main_cf();
        system.write("etc/main.cf", &main_cf)?;
        Ok(system)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Installs a program in `daemon_directory`.
    pub fn install(&self, program: &Path, name: &str) -> Result<()> {
        let to = self.path("sbin").join(name);
        fs::copy(program, to).with_context(|| program.display().to_string())?;
        Ok(())
    }

    /// The socket of a service.
    pub fn socket(&self, service: &str) -> PathBuf {
        self.path("queue/private").join(service)
    }

    fn main_cf(&self) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        format!(
            "compatibility_level = 3.6\n\
             queue_directory = {}\n\
             data_directory = {}\n\
             daemon_directory = {}\n\
             maillog_file = {}\n\
             maillog_file_prefixes = {}\n\
             mail_owner = postfix\n\
             setgid_group = postdrop\n\
             myhostname = host.test\n\
             inet_protocols = ipv4\n",
            path("queue"),
            path("data"),
            path("sbin"),
            path("log"),
            path(""),
        )
    }

    /// Writes a file with an older modification time, because Postfix waits if main.cf has just
    /// been changed.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        let past = SystemTime::now() - Duration::from_secs(60);
        fs::File::options()
            .append(true)
            .open(&path)?
            .set_modified(past)?;
        Ok(())
    }

    /// Writes a master.cf with these lines.
    pub fn configure(&self, table: &str) -> Result<()> {
        self.write("etc/master.cf", table)
    }

    /// Starts a master and waits until it serves.
    pub fn start(&self, master: &Path) -> Result<Running<'_>> {
        let _ = fs::remove_file(self.path("log"));
        fs::write(self.path("times"), "")?;
        let group = Cgroup::make();
        let mut command = Command::new(master);
        if let Some(group) = &group {
            let members = group.members()?;
            // SAFETY: between fork and exec the closure makes only one system call, and does not
            // allocate.
            unsafe { command.pre_exec(move || (&members).write_all(b"0")) };
        }
        let child = command
            .arg("-c")
            .arg(self.path("etc"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("MASTER_TIMES_FILE", self.path("times"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| master.display().to_string())?;
        let mut running = Running {
            system: self,
            child,
            group,
        };
        running.wait_for("daemon started -- version")?;
        Ok(running)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until this is so.
    fn until(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + TIMEOUT;
        while !is_so()? {
            ensure!(Instant::now() < end, "no \"{what}\": {}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Running<'_> {
    pub fn process(&self) -> Process {
        Process(self.child.id() as i32)
    }

    /// The processor time of the master and of all its processes, for a start or a reload without
    /// clients. Without control groups, only the master's own threads and running helpers are
    /// counted.
    pub fn cpu_of_all(&self) -> Result<Duration> {
        match &self.group {
            Some(group) => group.usage(),
            None => self.process().cpu_with_helpers(),
        }
    }

    /// Waits until the log contains a line and the master is idle.
    fn wait_for(&mut self, line: &str) -> Result<()> {
        let system = self.system;
        system.until(line, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the master ended: {status}: {}", system.log());
            }
            Ok(system.log().contains(line) && self.process().is_idle())
        })
    }

    /// Reloads the configuration and waits until that is done.
    pub fn reload(&mut self) -> Result<()> {
        fs::write(self.system.path("log"), "")?;
        self.signal(Signal::SIGHUP)?;
        self.wait_for("reload -- version")
    }

    /// Has the same program go on in the master's place, and waits for its log line about it.
    pub fn upgrade(&self) -> Result<()> {
        fs::write(self.system.path("log"), "")?;
        self.signal(Signal::SIGUSR2)?;
        let line = "lost, took ";
        self.system
            .until(line, || Ok(self.system.log().contains(line)))
    }

    /// What the last upgrade took, by the master's log.
    pub fn upgrade_took(&self) -> Result<Duration> {
        let log = self.system.log();
        let (_, rest) = log.rsplit_once("lost, took ").context("no upgrade")?;
        let number = rest.split(' ').next().context("a number")?;
        Ok(Duration::from_millis(number.parse()?))
    }

    /// Waits until the master is idle.
    pub fn rest(&self) -> Result<()> {
        self.system.until("rest", || Ok(self.process().is_idle()))
    }

    /// Waits until nearly all children have been reaped; another service may have one at any time.
    pub fn wait_for_few_children(&self) -> Result<()> {
        let end = Instant::now() + TIMEOUT;
        while self.process().children().context("its children")? > 2 {
            ensure!(Instant::now() < end, "children that do not leave");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.process().0), signal)?)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // SIGTERM ends the children, too. It fails only if the master has already ended.
        let _ = self.signal(Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A master.cf with `services` lines. The children of the first service use this mode; the others
/// are idle.
pub fn table(services: usize, kind: &str) -> String {
    let mut text = format!("s0 unix - - n - - child {kind}\n");
    for n in 1..services {
        let _ = writeln!(text, "s{n} unix - - n - - child once");
    }
    text
}
