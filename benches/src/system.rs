//! A mail system for measuring: a private Postfix configuration on a file system in memory, where
//! making a socket costs least, with children that do next to nothing.

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

/// What build.rs has made of `child/main.rs`.
pub const CHILD: &str = env!("CHILD");
/// A service that gets very many children, and another one.
pub const CROWD: &str = "s0 unix - - n - 0 child hold\nother unix - - n - 0 child once\n";
/// The other one without it.
pub const OTHER_ALONE: &str = "other unix - - n - 0 child once\n";
/// A file system in memory.
const MEMORY: &str = "/dev/shm";
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Directories whose content is about to be served.
pub struct System {
    directory: TempDir,
}

/// A master that serves; it is stopped when this is dropped.
pub struct Running<'a> {
    system: &'a System,
    child: Child,
    /// What it is in with all that it starts, if the system has such groups.
    group: Option<Cgroup>,
}

impl System {
    pub fn new() -> Result<Self> {
        let directory = match Path::new(MEMORY).is_dir() {
            true => tempfile::tempdir_in(MEMORY),
            false => tempfile::tempdir(),
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

    /// Puts a program where services find their commands.
    pub fn install(&self, program: &Path, name: &str) -> Result<()> {
        let to = self.path("sbin").join(name);
        fs::copy(program, to).with_context(|| program.display().to_string())?;
        Ok(())
    }

    /// Where a service listens.
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

    /// Writes a file that looks older than it is: Postfix waits for a main.cf that has just changed.
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

    /// Configures these lines of master.cf.
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
            // SAFETY: between fork and exec the child makes one system call, and allocates nothing.
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
}

impl Running<'_> {
    pub fn process(&self) -> Process {
        Process(self.child.id() as i32)
    }

    /// The processor time of the master and of all processes that it has started, where it has none
    /// that serve: what it does at a start or a reload. Without control groups that of its threads
    /// and living helpers alone.
    pub fn cpu_of_all(&self) -> Result<Duration> {
        match &self.group {
            Some(group) => group.usage(),
            None => self.process().cpu_with_helpers(),
        }
    }

    /// Waits until the log has a line and the master has nothing more to do.
    fn wait_for(&mut self, line: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !(self.system.log().contains(line) && self.process().is_idle()) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the master ended: {status}: {}", self.system.log());
            }
            ensure!(Instant::now() < end, "no \"{line}\": {}", self.system.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Has the master read its configuration again, and waits until it has done so.
    pub fn reload(&mut self) -> Result<()> {
        fs::write(self.system.path("log"), "")?;
        self.signal(Signal::SIGHUP)?;
        self.wait_for("reload -- version")
    }

    /// Waits until the master has nothing to do.
    pub fn rest(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.process().is_idle() {
            ensure!(Instant::now() < end, "the master does not rest");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until nearly all children have been reaped: another service may have one now and then.
    pub fn wait_for_few_children(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
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
        // It has its children end too; one that is gone already has done so.
        let _ = self.signal(Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// So many lines of master.cf: the first service's children are of the kind named, the others are
/// there and idle.
pub fn table(services: usize, kind: &str) -> String {
    let mut text = format!("s0 unix - - n - - child {kind}\n");
    for n in 1..services {
        let _ = writeln!(text, "s{n} unix - - n - - child once");
    }
    text
}
