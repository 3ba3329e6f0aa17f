//! Starts a service: the command line, the configuration, and the privileges that are given up.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use master::config::Values;
use master::log::{Format, Settings, Target, Terminal};
use master::protocol::{FLOW_READ, FLOW_WRITE, GENERATION, LISTEN, LISTENERS_MAX, STATUS};
use nix::unistd::{Gid, Uid, chdir, chroot, geteuid, getuid, initgroups, setgid, setuid};

use crate::options::{self, Options, Transport};
use crate::ordered::Orders;
use crate::status::{self, Status};
use crate::worker::{Limits, Worker, spread};
use crate::{Error, Log, parameters, preload, sys};

/// A service that has been started and does not serve yet.
///
/// It has the privileges from the master until [`drop_privileges`](Self::drop_privileges), or the
/// method that serves, gives them up. Until then, the program can read parameters and open files
/// that need privileges.
#[derive(Debug)]
pub struct Service {
    options: Options,
    program: String,
    values: Values,
    log: Log,
    started: Instant,
    inherited: Option<Inherited>,
    /// Whether privileges have not been given up yet.
    privileged: bool,
}

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The name in passwd(5).
    pub name: String,
    /// The user ID.
    pub uid: u32,
    /// The ID of the user's primary group.
    pub gid: u32,
}

/// The descriptors from the master.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) status: Status,
    listeners: Vec<OwnedFd>,
    /// Only a template has it.
    pub(crate) template: Option<OwnedFd>,
}

impl Service {
    /// The service of this process. `log` is used for errors during the start.
    pub(crate) fn start(options: Options, program: &str, log: &Log) -> Result<Self, Error> {
        if let Some(question) = options.question {
            // The answer would go to the client, and not to the administrator of the service table.
            return Err(options::invalid(question.option()));
        }
        if options.attached || options.to_stderr {
            log.show();
        }
        let inherited = match std::env::var_os(GENERATION) {
            _ if options.standard => None,
            Some(generation) => Some(Inherited::take(&generation, options.listeners)?),
            None => {
                let program = program.to_owned();
                return Err(Error::ByHand { program });
            }
        };
        let (values, findings) = parameters::read(&options, program)?;
        let mut service = Self {
            program: program.to_owned(),
            values,
            log: log.clone(),
            started: Instant::now(),
            privileged: options.chroot || options.unprivileged,
            inherited,
            options,
        };
        service.redirect_log()?;
        for finding in findings {
            service.log.warning(finding);
        }
        service.debug()?;
        Ok(service)
    }

    // ---- name and arguments

    /// The name in the service table; the program's name if it is not given.
    pub fn name(&self) -> &str {
        self.options.name.as_deref().unwrap_or(&self.program)
    }

    /// The type of the listeners; `None` with `-S`.
    pub fn transport(&self) -> Option<Transport> {
        self.options.transport
    }

    /// The arguments after the options.
    pub fn arguments(&self) -> &[OsString] {
        &self.options.arguments
    }

    /// The service's log. A clone can be moved to other threads.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    // ---- requirements

    /// Checks that the process limit is 1.
    ///
    /// # Errors
    /// [`Error::Unsuitable`]
    pub fn require_alone(&self) -> Result<(), Error> {
        self.require(
            self.options.alone || self.inherited.is_none(),
            "requires a process limit of 1",
        )
    }

    /// Checks that there is no process limit.
    ///
    /// # Errors
    /// [`Error::Unsuitable`]
    pub fn require_unlimited(&self) -> Result<(), Error> {
        self.require(
            self.options.unlimited || self.inherited.is_none(),
            "requires a process limit of 0",
        )
    }

    /// Checks that the service is not configured to give up its privileges.
    ///
    /// # Errors
    /// [`Error::Unsuitable`]
    pub fn require_privileges(&self) -> Result<(), Error> {
        self.require(
            !self.options.unprivileged,
            "requires privileged operation: write \"n\" in the column \"unpriv\"",
        )
    }

    /// Checks that the process is not root's, or will not be once it has given up its privileges.
    ///
    /// # Errors
    /// [`Error::Unsuitable`]
    pub fn require_unprivileged(&self) -> Result<(), Error> {
        self.require(
            self.options.unprivileged || !geteuid().is_root(),
            "does not run as root: write \"y\" in the column \"unpriv\", or run it as another user",
        )
    }

    fn require(&self, fulfilled: bool, what: &str) -> Result<(), Error> {
        if fulfilled {
            return Ok(());
        }
        let name = self.name();
        Err(Error::Unsuitable(format!("service {name} {what}")))
    }

    // ---- parameters

    /// The value of a parameter: from `-o`, or from the configuration, or else `default`, in which
    /// `$name` refers to other parameters.
    ///
    /// # Errors
    /// [`Error::Parameter`], with the position of the error.
    pub fn string(&mut self, name: &str, default: &str) -> Result<String, Error> {
        self.values.default(name, default);
        self.text(name)
    }

    /// The value of a parameter that is a path, which need not be UTF-8.
    ///
    /// # Errors
    /// As [`string`](Self::string), and for an empty value.
    pub fn path(&mut self, name: &str, default: &str) -> Result<PathBuf, Error> {
        self.values.default(name, default);
        self.values.path(name).map_err(Error::parameter)
    }

    fn queue_directory(&self) -> Result<PathBuf, Error> {
        let directory = self.values.path("queue_directory");
        directory.map_err(Error::parameter)
    }

    /// The value of a parameter that has a default already.
    fn text(&self, name: &str) -> Result<String, Error> {
        self.values.string(name).map_err(Error::parameter)
    }

    /// The value of a numeric parameter, of at least `least`.
    ///
    /// # Errors
    /// As [`string`](Self::string).
    pub fn number(&mut self, name: &str, default: &str, least: u16) -> Result<u32, Error> {
        self.values.default(name, default);
        let number = self.values.number(name, least.into());
        Ok(number.map_err(Error::parameter)?.unsigned_abs())
    }

    /// The value of a time parameter, of at least one second: a number with `s`, `m`, `h`, `d` or
    /// `w`.
    ///
    /// # Errors
    /// As [`string`](Self::string).
    pub fn time(&mut self, name: &str, default: &str) -> Result<Duration, Error> {
        self.values.default(name, default);
        self.values.time(name).map_err(Error::parameter)
    }

    /// The value of a parameter that is `yes` or `no`.
    ///
    /// # Errors
    /// As [`string`](Self::string).
    pub fn boolean(&mut self, name: &str, default: bool) -> Result<bool, Error> {
        let value = self.string(name, if default { "yes" } else { "no" })?;
        match value.to_ascii_lowercase().as_str() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(Error::Usage(format!(
                "bad boolean configuration: {name} = {value}: expected \"yes\" or \"no\""
            ))),
        }
    }

    /// Whether all processes of the service are busy (`-o stress=yes`). They should then use
    /// shorter timeouts for slow clients.
    ///
    /// # Errors
    /// As [`string`](Self::string).
    pub fn is_stressed(&mut self) -> Result<bool, Error> {
        Ok(!self.string("stress", "")?.is_empty())
    }

    /// An error that a parameter's value cannot be used, with the position of the value.
    pub fn reject(&self, name: &str, problem: &str) -> Error {
        Error::parameter(self.values.reject(name, problem))
    }

    /// Changes the default of a parameter that the library reads itself.
    pub fn set_default(&mut self, name: &str, default: &str) {
        self.values.default(name, default);
    }

    // ---- preparation

    /// Gives up the privileges that the service table does not allow: access to files outside the
    /// working directory (`-c`), and root's privileges (`-u`). A second call has no effect.
    ///
    /// # Errors
    /// The process may not change its root directory or its user, or `mail_owner` is not an
    /// unprivileged user.
    pub fn drop_privileges(&mut self) -> Result<(), Error> {
        if !self.privileged {
            return Ok(());
        }
        if !geteuid().is_root() {
            return Err(Error::Unsuitable(
                "only root can change the root directory (-c) or the user (-u)".into(),
            ));
        }
        let owner = if self.options.unprivileged {
            Some(self.mail_owner()?)
        } else {
            None
        };
        // The groups are read from a file that is not accessible after chroot.
        if let Some(owner) = &owner {
            become_member(owner).map_err(Error::system("cannot become mail_owner"))?;
        }
        if self.options.chroot {
            let root = self.root_directory()?;
            chroot(&root)
                .and_then(|()| chdir("/"))
                .map_err(Error::system(format!("chroot {}", root.display())))?;
        }
        if let Some(owner) = &owner {
            become_user(owner).map_err(Error::system("cannot become mail_owner"))?;
            self.log.give_up_file();
        }
        // Set this last: after an error, the process must not be treated as unprivileged.
        self.privileged = false;
        Ok(())
    }

    /// The user that owns the queue and the data directory.
    ///
    /// # Errors
    /// The user does not exist, or is root.
    pub fn mail_owner(&self) -> Result<User, Error> {
        let name = self.text("mail_owner")?;
        let user = nix::unistd::User::from_name(&name)
            .map_err(Error::system(format!("mail_owner {name}")))?
            .ok_or_else(|| Error::Unsuitable(format!("mail_owner {name}: no such user")))?;
        if user.uid.is_root() {
            return Err(Error::Unsuitable(format!(
                "mail_owner {name}: expected a user who is not root"
            )));
        }
        Ok(User {
            name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
    }

    /// The new root directory, which is the working directory that the master has set.
    fn root_directory(&self) -> Result<PathBuf, Error> {
        Ok(match self.inherited {
            Some(_) => ".".into(),
            None => self.queue_directory()?,
        })
    }

    /// The timeout for reading from and writing to a client.
    pub(crate) fn ipc_timeout(&mut self) -> Result<Duration, Error> {
        self.time("ipc_timeout", "3600s")
    }

    /// Whether the only client is on standard input and output.
    pub(crate) fn is_standard(&self) -> bool {
        self.inherited.is_none()
    }

    /// Gives up privileges and prepares to wait for clients on listeners of one of these types.
    ///
    /// # Errors
    /// The listeners have another type, the service is an ordered pool, or a system call fails.
    pub(crate) fn begin(self, types: &[Transport]) -> Result<(Transport, Worker), Error> {
        self.begin_if(types, false, Worker::begin)
    }

    /// Gives up privileges and prepares to wait for orders, on listeners of one of these types.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), but the service must be an ordered pool.
    pub(crate) fn begin_ordered(
        self,
        types: &[Transport],
    ) -> Result<(Transport, Worker<Orders>), Error> {
        self.begin_if(types, true, Worker::begin_ordered)
    }

    fn begin_if<W>(
        mut self,
        types: &[Transport],
        ordered: bool,
        begin: impl FnOnce(Status, Vec<OwnedFd>, Limits, Log) -> Result<Worker<W>, Error>,
    ) -> Result<(Transport, Worker<W>), Error> {
        let transport = self.require_transport(types)?;
        self.require_no_template()?;
        self.require_accept(ordered)?;
        self.drop_privileges()?;
        let limits = self.limits()?;
        // This is called only for services with listeners.
        let Some(Inherited {
            status, listeners, ..
        }) = self.inherited
        else {
            return Err(Error::ByHand {
                program: self.program,
            });
        };
        Ok((transport, begin(status, listeners, limits, self.log)?))
    }

    fn require_transport(&self, types: &[Transport]) -> Result<Transport, Error> {
        let transport = self
            .options
            .transport
            .ok_or_else(|| Error::Usage("no transport type specified: -t is missing".into()))?;
        if types.contains(&transport) {
            return Ok(transport);
        }
        let names: Vec<&str> = types.iter().map(|known| known.as_str()).collect();
        Err(Error::Unsuitable(format!(
            "unsupported transport type: {}: expected {}",
            transport.as_str(),
            names.join(" or ")
        )))
    }

    /// Checks that children are not to be forked, or were.
    fn require_no_template(&self) -> Result<(), Error> {
        let is_template = self
            .inherited
            .as_ref()
            .is_some_and(|i| i.template.is_some());
        let what = "cannot be preloaded: leave out preload = true for it in master.toml";
        self.require(!is_template, what)
    }

    /// Checks that the pool is ordered, or that it is not.
    fn require_accept(&self, ordered: bool) -> Result<(), Error> {
        let is_ordered = self.inherited.as_ref().map(|i| i.status.is_ordered());
        let what = if ordered {
            "accepts when it is told to: write accept = \"ordered\" for it in master.toml"
        } else {
            "accepts by itself: leave out accept = \"ordered\" for it in master.toml"
        };
        self.require(is_ordered.is_none_or(|is| is == ordered), what)
    }

    fn limits(&mut self) -> Result<Limits, Error> {
        let uses = self.number("max_use", "100", 0)?;
        let jitter = self.number("max_use_jitter", "0", 0)?;
        Ok(Limits {
            uses: spread(uses, jitter.min(100)),
            idle: self.time("max_idle", "100s")?,
            client: self.time("daemon_timeout", "18000s")?,
            retire: self.options.retire.map(|age| self.started + age),
        })
    }

    // ---- preloaded services

    /// What the master has handed to this process; `None` with `-S`.
    pub(crate) fn inherited(&mut self) -> Option<&mut Inherited> {
        self.inherited.as_mut()
    }

    /// This process is a child that a template has forked, with a channel of its own.
    pub(crate) fn forked(&mut self, status: Status, stress: bool) {
        if let Some(inherited) = &mut self.inherited {
            inherited.status = status;
        }
        self.log.forked();
        self.started = Instant::now();
        if stress {
            self.values.set("stress", "yes");
        }
    }

    // ---- log

    /// Redirects the log to the configured destination.
    fn redirect_log(&mut self) -> Result<(), Error> {
        let file = self.text("maillog_file")?;
        let target = match file.as_str() {
            "" => Target::Syslog {
                facility: self.text("syslog_facility")?,
            },
            file => Target::Postlog {
                socket: self.postlog_socket()?,
                file: Some(file.into()),
                permissions: self.log_permissions()?,
                hostname: self.text("myhostname")?,
            },
        };
        let by_hand = self.inherited.is_none();
        let shown = by_hand || self.options.attached || self.options.to_stderr;
        let settings = Settings {
            tag: format!("{}/{}", self.text("syslog_name")?, self.program),
            target,
            format: match self.text("log_format")?.as_str() {
                "json" => Format::Json,
                _ => Format::Text,
            },
            terminal: if shown {
                Terminal::Everything
            } else {
                Terminal::Lost
            },
        };
        let verbose = self.options.verbose || std::env::var_os("MAIL_VERBOSE").is_some();
        self.log.set(settings, verbose);
        self.log.connect();
        Ok(())
    }

    /// Relative to the working directory, which may become the root directory.
    fn postlog_socket(&self) -> Result<PathBuf, Error> {
        let socket = Path::new("public").join(self.text("postlog_service_name")?);
        Ok(match self.inherited {
            Some(_) => socket,
            None => self.queue_directory()?.join(socket),
        })
    }

    fn log_permissions(&self) -> Result<u32, Error> {
        let octal = self.text("maillog_file_permissions")?;
        // The master has warned of a bad value, and uses the same default.
        Ok(u32::from_str_radix(&octal, 8).unwrap_or(0o600))
    }

    /// Runs `debugger_command` on this process.
    fn debug(&self) -> Result<(), Error> {
        if !self.options.debug && std::env::var_os("MAIL_DEBUG").is_none() {
            return Ok(());
        }
        let command = self.text("debugger_command")?;
        if command.is_empty() {
            return Err("no debugger_command variable set up: set it, or leave out -D".into());
        }
        self.log.info(format!("running: {command}"));
        Command::new("/bin/sh")
            .args(["-c", &command])
            .status()
            .map_err(Error::system("run debugger_command"))?;
        Ok(())
    }
}

impl Inherited {
    fn take(generation: &OsStr, listeners: Option<usize>) -> Result<Self, Error> {
        let generation = status::generation(generation).ok_or_else(|| {
            let generation = generation.to_string_lossy();
            Error::Usage(format!(
                "bad generation: {generation}: expected octal digits"
            ))
        })?;
        let listeners = listeners.unwrap_or(1);
        if listeners > LISTENERS_MAX {
            return Err(Error::Usage(format!(
                "-s {listeners}: expected at most {LISTENERS_MAX}"
            )));
        }
        // The flow-control pipe is only for programs that receive mail. It stays open, but not in
        // commands of this process: by it, the next master knows a child of a killed one, and takes
        // over its listeners.
        for flow in [FLOW_READ, FLOW_WRITE] {
            let _ = sys::inherit(flow).map(OwnedFd::into_raw_fd);
        }
        let missing = |number| Error::system(format!("descriptor {number} from the master"));
        let channel = sys::inherit(STATUS).map_err(missing(STATUS))?;
        // The number of listeners is limited, so it fits.
        let numbers = LISTEN..LISTEN + listeners as i32;
        let listeners = numbers.map(|number| sys::inherit(number).map_err(missing(number)));
        Ok(Self {
            status: Status::new(channel, generation),
            listeners: listeners.collect::<Result<_, _>>()?,
            template: preload::socket()?,
        })
    }
}

fn become_member(owner: &User) -> io::Result<()> {
    let gid = Gid::from_raw(owner.gid);
    setgid(gid)?;
    Ok(initgroups(&CString::new(owner.name.as_str())?, gid)?)
}

/// The change is permanent: it sets the real, effective and saved user IDs.
fn become_user(owner: &User) -> io::Result<()> {
    let uid = Uid::from_raw(owner.uid);
    setuid(uid)?;
    if getuid() == uid && geteuid() == uid {
        Ok(())
    } else {
        Err(io::Error::other("the system has not changed the user"))
    }
}
