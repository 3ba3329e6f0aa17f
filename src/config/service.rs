//! One line of the service table, resolved, and the command line of its children.

use std::ffi::OsString;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

use super::{AlsoListen, ChildLimits, Endpoint, ListenAddress, Pool, SocketRights};
use crate::groups::Setting;
use crate::sandbox::Sandbox;

/// The table's second column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Inet,
    Unix,
    UnixDgram,
    Fifo,
    Pass,
}

impl Kind {
    /// All types, in the order of the manual.
    pub const ALL: [Self; 5] = [
        Self::Inet,
        Self::Unix,
        Self::UnixDgram,
        Self::Fifo,
        Self::Pass,
    ];

    /// Whether the listener is a local socket.
    pub fn is_local_socket(self) -> bool {
        matches!(self, Self::Unix | Self::UnixDgram | Self::Pass)
    }

    /// The word in the table, which is also the value of the child's option `-t`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Unix => "unix",
            Self::UnixDgram => "unix-dgram",
            Self::Fifo => "fifo",
            Self::Pass => "pass",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The periodic wake-up of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wakeup {
    /// At least one second.
    pub every: Duration,
    /// Whether wake-ups begin only after the service has been used (`?` in the table).
    pub conditional: bool,
}

/// A service: one line of `master.cf`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The first column as written.
    pub name: String,
    pub kind: Kind,
    /// The endpoint's canonical name: `25`, `[127.0.0.1]:25`, `private/bounce`. Together with
    /// `kind` it is the service's identity across reloads: `smtp` and `25` are the same service.
    pub canonical: String,
    pub endpoint: Endpoint,
    pub unprivileged: bool,
    pub chroot: bool,
    pub wakeup: Option<Wakeup>,
    /// Maximum number of children; 0 for no limit.
    pub max: u32,
    /// The command as written.
    pub command: String,
    /// The path of the program: `daemon_directory/command`, or the command itself if it is an
    /// absolute path.
    pub path: PathBuf,
    /// The arguments in the table, without braces.
    pub args: Vec<OsString>,
    /// The length of the listener's queue: the larger of `max` and `default_process_limit`.
    pub backlog: u32,
    /// The delay before a failing command is started again.
    pub throttle_time: Duration,
    /// Other settings of `master.toml`; `None` when all of them have their default.
    pub extra: Option<Box<Extra>>,
    /// The file of the table that has the entry, which all services of the file share.
    pub table: Arc<Path>,
    /// The table's line on which the entry begins.
    pub line: u32,
}

/// Settings of `master.toml`. They are kept apart because most services do not have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    pub pool: Pool,
    pub limits: ChildLimits,
    pub also_listen: AlsoListen,
    /// `None` when nothing of it is set.
    pub sandbox: Option<Box<Sandbox>>,
    /// The settings of the service's control group, if it is to have one.
    pub group: Option<Box<[Setting]>>,
}

impl Extra {
    const DEFAULT: Self = Self {
        pool: Pool::DEFAULT,
        limits: ChildLimits::DEFAULT,
        also_listen: AlsoListen {
            endpoints: Vec::new(),
            rights: SocketRights::DEFAULT,
        },
        sandbox: None,
        group: None,
    };

    /// The value for the rare settings of a service: the default needs no memory.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::DEFAULT).then(|| Box::new(self))
    }
}

/// The master's own options that affect its children's command lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The master runs with `-d`.
    pub attached: bool,
    /// The master runs with `-v`.
    pub verbose: bool,
    /// The master does not run as root: its children cannot change their user or root directory.
    pub without_root: bool,
}

impl Service {
    /// Entries with the same identity, in one table or in two, are the same service.
    pub fn identity(&self) -> (Kind, &str) {
        (self.kind, &self.canonical)
    }

    /// The service's pool settings.
    pub fn pool(&self) -> &Pool {
        &self.extra().pool
    }

    /// The limits on the service's children.
    pub fn limits(&self) -> &ChildLimits {
        &self.extra().limits
    }

    /// The endpoints beside the service's own.
    pub fn also_listen(&self) -> &AlsoListen {
        &self.extra().also_listen
    }

    /// Where each listener is, in the order of the descriptors that a child has, from 6 on.
    pub fn listen_addresses(&self) -> impl Iterator<Item = ListenAddress<'_>> {
        let endpoints = std::iter::once(&self.endpoint).chain(&self.also_listen().endpoints);
        endpoints.flat_map(Endpoint::listen_addresses)
    }

    /// Whether another service listens at the same places, and the same users may connect.
    pub fn has_same_listeners(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.also_listen() == other.also_listen()
    }

    /// What the children get before their program runs, if that is anything.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.extra.as_ref()?.sandbox.as_deref()
    }

    /// The settings of the service's control group, if it is to have one.
    pub fn group(&self) -> Option<&[Setting]> {
        self.extra.as_ref()?.group.as_deref()
    }

    /// Whether another program starts the children, and executes the service's.
    pub fn needs_executor(&self) -> bool {
        self.sandbox().is_some() || self.group().is_some()
    }

    /// Whether the children begin with the user ID of the setting `user`, and cannot change it.
    pub(super) fn has_user(&self) -> bool {
        self.sandbox()
            .is_some_and(|sandbox| sandbox.user.as_ref().is_some_and(|user| user.uid != 0))
    }

    fn extra(&self) -> &Extra {
        const DEFAULT: &Extra = &Extra::DEFAULT;
        self.extra.as_deref().unwrap_or(DEFAULT)
    }

    /// Whether a child accepts only when it is ordered to.
    pub fn is_ordered(&self) -> bool {
        self.pool().is_ordered()
    }

    /// Whether the service can be in stress mode, in which children get `-o stress=yes`: remote
    /// clients can reach the service, and it may have more than one child (Postfix,
    /// `master_ent.c`). Not for ordered pools: their children live on and would keep their command
    /// line.
    pub fn stress_eligible(&self) -> bool {
        let remote = self.listen_addresses().any(|address| match address {
            ListenAddress::Inet(address) => !address.ip().is_loopback(),
            ListenAddress::Path(_) => self.kind == Kind::Pass,
        });
        remote && self.max > 1 && !self.is_ordered()
    }

    /// A child's command line, `argv[0]` included (Postfix, `master_ent.c`).
    pub fn argv(&self, options: RunOptions, stress: bool) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec![self.command.clone().into()];
        match self.max {
            0 => argv.push("-z".into()),
            1 => argv.push("-l".into()),
            _ => {}
        }
        let basename = self.command.rsplit('/').next().unwrap_or(&self.command);
        if basename != self.name {
            argv.extend(["-n".into(), self.name.clone().into()]);
        }
        argv.extend(["-t".into(), self.kind.as_str().into()]);
        if options.attached {
            argv.push("-d".into());
        }
        if options.verbose {
            argv.push("-v".into());
        }
        if self.unprivileged && !options.without_root && !self.has_user() {
            argv.push("-u".into());
        }
        if self.chroot && !options.without_root {
            argv.push("-c".into());
        }
        if self.stress_eligible() {
            let value = if stress { "stress=yes" } else { "stress=" };
            argv.extend(["-o".into(), value.into()]);
        }
        let listeners = self.listen_addresses().count();
        if listeners > 1 {
            argv.extend(["-s".into(), listeners.to_string().into()]);
        }
        argv.extend(self.args.iter().cloned());
        argv
    }
}

/// A service as a key that compares by identity. It shares the service instead of copying the name,
/// because there may be thousands of services.
#[derive(Clone, Debug)]
pub struct ByIdentity(pub Arc<Service>);

impl Hash for ByIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.identity().hash(state);
    }
}

impl PartialEq for ByIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.0.identity() == other.0.identity()
    }
}

impl Eq for ByIdentity {}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: RunOptions = RunOptions {
        attached: false,
        verbose: false,
        without_root: false,
    };

    /// `smtp inet n n n - 1 smtpd` on the loopback address.
    fn smtpd() -> Service {
        Service {
            name: "smtp".to_owned(),
            kind: Kind::Inet,
            canonical: "[127.0.0.1]:25".to_owned(),
            endpoint: inet(&["127.0.0.1:25"]),
            unprivileged: false,
            chroot: false,
            wakeup: None,
            max: 1,
            command: "smtpd".to_owned(),
            path: "/usr/lib/postfix/sbin/smtpd".into(),
            args: Vec::new(),
            backlog: 100,
            throttle_time: Duration::from_secs(60),
            extra: None,
            table: Path::new("master.cf").into(),
            line: 1,
        }
    }

    fn inet(addresses: &[&str]) -> Endpoint {
        let parse = |address: &&str| address.parse().expect("a test's address");
        Endpoint::Inet(addresses.iter().map(parse).collect())
    }

    fn command_line(service: &Service, options: RunOptions, stress: bool) -> String {
        let argv = service.argv(options, stress);
        let words = argv.iter().map(|word| word.to_string_lossy().into_owned());
        words.collect::<Vec<_>>().join(" ")
    }

    fn plain(service: &Service) -> String {
        command_line(service, PLAIN, false)
    }

    #[test]
    fn a_single_child_gets_l() {
        assert_eq!(plain(&smtpd()), "smtpd -l -n smtp -t inet");
    }

    #[test]
    fn a_service_without_limit_gets_z() {
        let service = Service { max: 0, ..smtpd() };
        assert_eq!(plain(&service), "smtpd -z -n smtp -t inet");
    }

    #[test]
    fn a_service_named_like_its_command_needs_no_n() {
        let service = Service {
            name: "smtpd".to_owned(),
            max: 2,
            ..smtpd()
        };
        assert_eq!(plain(&service), "smtpd -t inet");
    }

    #[test]
    fn the_name_is_compared_with_the_last_part_of_the_command() {
        let service = Service {
            command: "dir/smtp".to_owned(),
            max: 2,
            ..smtpd()
        };
        assert_eq!(plain(&service), "dir/smtp -t inet");
    }

    #[test]
    fn the_masters_own_options_are_passed_on() {
        let options = RunOptions {
            attached: true,
            verbose: true,
            ..PLAIN
        };
        assert_eq!(
            command_line(&smtpd(), options, false),
            "smtpd -l -n smtp -t inet -d -v"
        );
    }

    #[test]
    fn privileges_come_before_the_tables_arguments() {
        let service = Service {
            unprivileged: true,
            chroot: true,
            args: vec!["-o".into(), "a = b".into()],
            ..smtpd()
        };
        assert_eq!(plain(&service), "smtpd -l -n smtp -t inet -u -c -o a = b");
    }

    #[test]
    fn a_master_without_roots_privileges_has_none_to_give_up() {
        let service = Service {
            unprivileged: true,
            chroot: true,
            ..smtpd()
        };
        let options = RunOptions {
            without_root: true,
            ..PLAIN
        };
        assert_eq!(
            command_line(&service, options, false),
            "smtpd -l -n smtp -t inet"
        );
    }

    #[test]
    fn a_service_that_remote_clients_reach_is_told_of_stress() {
        let service = Service {
            endpoint: inet(&["127.0.0.1:25", "192.0.2.1:25"]),
            max: 2,
            ..smtpd()
        };
        assert_eq!(plain(&service), "smtpd -n smtp -t inet -o stress= -s 2");
        assert_eq!(
            command_line(&service, PLAIN, true),
            "smtpd -n smtp -t inet -o stress=yes -s 2"
        );
    }

    #[test]
    fn a_single_child_is_not_told_of_stress() {
        let service = Service {
            endpoint: inet(&["192.0.2.1:25"]),
            ..smtpd()
        };
        assert_eq!(
            command_line(&service, PLAIN, true),
            "smtpd -l -n smtp -t inet"
        );
    }

    #[test]
    fn the_wildcard_is_remote_and_loopback_is_not() {
        let eligible = |addresses: &[&str]| {
            let service = Service {
                endpoint: inet(addresses),
                max: 2,
                ..smtpd()
            };
            service.stress_eligible()
        };
        assert!(eligible(&["0.0.0.0:25", "[::]:25"]));
        assert!(!eligible(&["127.9.9.9:25", "[::1]:25"]));
    }

    #[test]
    fn of_the_local_types_only_pass_is_told_of_stress() {
        for kind in [Kind::Unix, Kind::UnixDgram, Kind::Fifo, Kind::Pass] {
            let service = Service {
                kind,
                endpoint: Endpoint::Path("private/smtp".into()),
                max: 2,
                ..smtpd()
            };
            assert_eq!(service.stress_eligible(), kind == Kind::Pass, "{kind}");
        }
    }
}
