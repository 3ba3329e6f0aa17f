//! Runs a command for each client, as an unprivileged user and for a limited time. The connection
//! is the command's standard input, output and error (Postfix, `spawn.c`).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Gid, Group, Pid, Uid, User, geteuid, getuid, setegid, seteuid, setgroups};
use services::{About, Client, Error, Guard, Log, Service};

/// How long a command has to end when this process is told to.
const END_TIME: Duration = Duration::from_secs(5);

/// The search path for commands (`_PATH_DEFPATH`).
const PATH: &str = "/usr/bin:/bin";

const ABOUT: About = About {
    summary: "Runs a command for each client.",
    arguments: "[user=USER[:GROUP]] argv=COMMAND [argument ...]",
    version: env!("CARGO_PKG_VERSION"),
};

fn main() -> ExitCode {
    services::run_as(&ABOUT, |mut service| {
        service.require_privileges()?;
        let spawner = Spawner::new(&mut service)?;
        service.drop_privileges()?;
        // It needs the rights to end commands of other users.
        let mut guard = Guard::start().map_err(Error::system("cannot start a process"))?;
        spawner.drop_root()?;
        service.single(move |client| spawner.serve(client, &mut guard))
    })
}

/// The command, and the user that runs it.
struct Spawner {
    command: Vec<OsString>,
    /// `None` if this process is not root: the command then runs as this process's user.
    user: Option<(Uid, Gid)>,
    /// The effective user of this process while it does not need privileges.
    owner: (Uid, Gid),
    environment: Vec<(OsString, OsString)>,
    limit: Duration,
    log: Log,
}

impl Spawner {
    fn new(service: &mut Service) -> Result<Self, Error> {
        let (user, command) = attributes(service.arguments())?;
        let owner = service.mail_owner()?;
        let owner = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        let limit = format!("{}_time_limit", service.name());
        service.set_default("command_time_limit", "1000s");
        Ok(Self {
            user: user_of(user.as_deref(), owner)?,
            command,
            owner,
            environment: environment(&service.string("export_environment", "TZ MAIL_CONFIG LANG")?),
            limit: service.time(&limit, "$command_time_limit")?,
            log: service.log(),
        })
    }

    /// Gives up root's effective privileges until a command is started or killed.
    fn drop_root(&self) -> Result<(), Error> {
        if self.user.is_none() {
            return Ok(());
        }
        let (uid, gid) = self.owner;
        setgroups(&[gid])
            .and_then(|()| setegid(gid))
            .and_then(|()| seteuid(uid))
            .map_err(Error::system("cannot become mail_owner"))
    }

    /// Runs `act` with root's privileges if this process has them.
    fn as_root<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.user.is_none() {
            return act();
        }
        seteuid(getuid())?;
        let result = act();
        // To continue with root's privileges would be worse than to end.
        seteuid(self.owner.0).expect("root can become any user");
        result
    }

    /// Runs the command for a client. A signal that ends this process waits until the command has
    /// ended.
    fn serve(&self, client: &mut Client, guard: &mut Guard) -> io::Result<()> {
        let before = stop_signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let served = self.run(client, guard);
        before.thread_set_mask()?;
        served
    }

    fn run(&self, client: &Client, guard: &mut Guard) -> io::Result<()> {
        let signals = SignalFd::with_flags(&stop_signals(), SfdFlags::SFD_CLOEXEC)?;
        let name = self.command[0].to_string_lossy().into_owned();
        let mut child = match self.start(client) {
            Ok(child) => child,
            Err(error) => {
                let reason = master::errors::describe_error(&error);
                return Err(io::Error::other(format!("cannot run {name}: {reason}")));
            }
        };
        let pid = child.id();
        guard.tell(Some(Pid::from_raw(pid as i32)));
        let waited = self.wait(&mut child, &signals);
        guard.tell(None);
        let (status, in_time) = waited?;
        if !in_time {
            self.log.warning(format!(
                "{name}: process id {pid}: command time limit exceeded"
            ));
        }
        if let Some(end) = failure(status) {
            self.log.warning(format!("command {name} {end}"));
        }
        Ok(())
    }

    fn start(&self, client: &Client) -> io::Result<Child> {
        let mut command = Command::new(&self.command[0]);
        let (input, output) = client.stdio()?;
        let (_, error) = client.stdio()?;
        command
            .args(&self.command[1..])
            .env_clear()
            .envs(self.environment.iter().cloned())
            .env("PATH", PATH)
            .stdin(input)
            .stdout(output)
            .stderr(error)
            // The command's children are in its process group, so that they can be killed together.
            .process_group(0);
        if let Some((uid, gid)) = self.user {
            // `uid` also removes the supplementary groups.
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        services::end_with_parent(&mut command);
        self.as_root(|| command.spawn())
    }

    /// Waits for the command's end. When its time is over, kills it and returns false. When this
    /// process is told to end, ends the command first.
    fn wait(&self, child: &mut Child, signals: &SignalFd) -> io::Result<(ExitStatus, bool)> {
        // A process ID fits into a `pid_t`.
        let pid = Pid::from_raw(child.id() as i32);
        let waited = wait_for_end(pid, Some(signals), self.limit);
        let in_time = match waited {
            Ok(Woken::End) => true,
            Ok(Woken::Signal) => {
                self.kill(pid, Signal::SIGTERM)?;
                if !matches!(wait_for_end(pid, None, END_TIME), Ok(Woken::End)) {
                    self.kill(pid, Signal::SIGKILL)?;
                }
                true
            }
            Ok(Woken::Time) | Err(_) => {
                self.kill(pid, Signal::SIGKILL)?;
                false
            }
        };
        let status = child.wait()?;
        waited.map(|_| (status, in_time))
    }

    /// Signals the command and its process group: the command may have left it, and its children may
    /// be in it.
    fn kill(&self, pid: Pid, signal: Signal) -> io::Result<()> {
        self.as_root(|| {
            let _ = killpg(pid, signal);
            Ok(kill(pid, signal)?)
        })
    }
}

/// Signals that end this process, and then the command with it.
fn stop_signals() -> SigSet {
    [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
    ]
    .into_iter()
    .collect()
}

/// What a wait for a command has ended by.
#[derive(Clone, Copy)]
enum Woken {
    End,
    Signal,
    Time,
}

/// Waits for the end of a child, for a stop signal, which stays to be delivered, or until the time is
/// over.
fn wait_for_end(pid: Pid, signals: Option<&SignalFd>, limit: Duration) -> io::Result<Woken> {
    let process = services::process_fd(pid)?;
    let begin = Instant::now();
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        let mut fds = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        fds.extend(signals.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        // A longer time is waited for in parts.
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) if fds[0].any() == Some(true) => return Ok(Woken::End),
            Ok(1..) => return Ok(Woken::Signal),
            Ok(_) if begin.elapsed() >= limit => return Ok(Woken::Time),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads `user=USER[:GROUP] argv=COMMAND...`: the user, and the command with its arguments.
fn attributes(arguments: &[OsString]) -> Result<(Option<String>, Vec<OsString>), Error> {
    let mut user = None;
    for (at, argument) in arguments.iter().enumerate() {
        if let Some(value) = value(argument, "user=") {
            user = Some(value.to_string_lossy().into_owned());
        } else if let Some(program) = value(argument, "argv=") {
            let rest = arguments[at + 1..].iter().cloned();
            let command: Vec<OsString> = std::iter::once(program.to_owned()).chain(rest).collect();
            return if command[0].is_empty() {
                Err(Error::Usage("argv=: expected a command".into()))
            } else {
                Ok((user, command))
            };
        } else {
            let argument = argument.to_string_lossy();
            let argument = argument.escape_default();
            return Err(Error::Usage(format!(
                "unknown attribute name: {argument}: expected user=USER[:GROUP] argv=COMMAND..."
            )));
        }
    }
    Err(Error::Usage("missing argv= attribute".into()))
}

/// The text after the attribute name, which may be in capitals.
fn value<'a>(argument: &'a OsStr, name: &str) -> Option<&'a OsStr> {
    let (head, value) = argument.as_bytes().split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name.as_bytes())
        .then(|| OsStr::from_bytes(value))
}

/// The user and group of the command. They must not be root's, and not the mail system's, which
/// owns the queue. Only root can choose.
fn user_of(user: Option<&str>, owner: (Uid, Gid)) -> Result<Option<(Uid, Gid)>, Error> {
    let uid = geteuid();
    let Some(text) = user else {
        return if uid.is_root() {
            Err(Error::Usage("missing user= attribute".into()))
        } else {
            Ok(None)
        };
    };
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let found = User::from_name(name).map_err(Error::system(format!("user {name}")))?;
    let found = found.ok_or_else(|| Error::Usage(format!("unknown user name: {name}")))?;
    if !uid.is_root() {
        // As with the table's columns for privileges: this process has none to give up.
        return Ok(None);
    }
    let gid = match group {
        Some(group) => group_id(group)?,
        None => found.gid,
    };
    let problem = match (found.uid, gid) {
        (uid, _) if uid.is_root() => "as root",
        (uid, _) if uid == owner.0 => "as mail system owner",
        (_, gid) if gid.as_raw() == 0 => "with root's group",
        (_, gid) if gid == owner.1 => "with the group of the mail system owner",
        (uid, gid) if uid.as_raw() == u32::MAX || gid.as_raw() == u32::MAX => "with an ID of -1",
        (uid, gid) => return Ok(Some((uid, gid))),
    };
    Err(Error::Usage(format!(
        "user={text}: request to run a command {problem}"
    )))
}

fn group_id(name: &str) -> Result<Gid, Error> {
    let found = Group::from_name(name).map_err(Error::system(format!("group {name}")))?;
    let unknown = || Error::Usage(format!("unknown group name: {name}"));
    Ok(found.ok_or_else(unknown)?.gid)
}

/// The command's environment: `NAME` is copied from this process, `NAME=VALUE` is set.
fn environment(list: &str) -> Vec<(OsString, OsString)> {
    let words = list.split(|c: char| c == ',' || c.is_ascii_whitespace());
    let variables = words.filter_map(|word| match word.split_once('=') {
        Some((name, value)) => Some((name.into(), value.into())),
        None => Some((word.into(), std::env::var_os(word)?)),
    });
    variables
        .filter(|(name, _): &(OsString, _)| !name.is_empty())
        .collect()
}

/// A description of an unsuccessful end; `None` for exit status 0.
fn failure(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit status {code}")),
        (None, Some(signal)) => Some(format!("killed by signal {signal}")),
        (None, None) => Some(status.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Option<String>, Vec<String>), String> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let (user, command) = attributes(&words).map_err(|error| error.to_string())?;
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        Ok((user, command.iter().map(text).collect()))
    }

    #[test]
    fn the_command_is_all_that_follows_argv() {
        let (user, command) = parse("USER=me:us argv=/bin/sh -c user=x").unwrap();
        assert_eq!(user.as_deref(), Some("me:us"));
        assert_eq!(command, ["/bin/sh", "-c", "user=x"]);
    }

    #[test]
    fn a_command_line_without_a_command_is_refused() {
        for bad in ["", "user=me", "argv=", "me", "u argv=x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_is_never_run_as_root_or_as_the_owner_of_the_mail_system() {
        if !geteuid().is_root() {
            return;
        }
        let owner = User::from_name("nobody").unwrap().unwrap();
        let owner = (owner.uid, owner.gid);
        assert!(user_of(Some("daemon"), owner).unwrap().is_some());
        for bad in [
            "root",
            "daemon:root",
            "nobody",
            "daemon:nogroup",
            "no-such-user",
            "daemon:no",
        ] {
            assert!(user_of(Some(bad), owner).is_err(), "{bad}");
        }
        assert!(user_of(None, owner).is_err());
    }

    #[test]
    fn who_is_not_root_runs_everything_as_themselves() {
        if geteuid().is_root() {
            return;
        }
        assert_eq!(
            user_of(Some("daemon"), (geteuid(), Gid::from_raw(0))).unwrap(),
            None
        );
    }

    #[test]
    fn only_what_is_listed_is_exported() {
        let found = environment("A=1, B=, NO_SUCH_VARIABLE");
        let expected = [("A", "1"), ("B", "")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(found, expected);
    }
}
