//! What the policy logs, as values; the words are here and nowhere else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::status::HANGING_OF_ALL_MAX;
use super::throttle::CLIENTS;
use super::{Errno, ExitStatus, OrderFailure, Pid, State, Time};
use crate::config::Service;
use crate::protocol::pool::Report;

/// How many children a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Children that wait for a client.
    pub avail: u32,
    pub total: u32,
}

/// One thing to log. It displays as one line or several.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The service that it is about.
    pub service: Option<Arc<Service>>,
    /// The child that it is about; of a report in another's name, the writer.
    pub child: Option<Pid>,
    pub severity: Severity,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Only of a verbose table.
    Detail,
    Info,
    /// An administrator should look into it.
    Warning,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Ended(ExitStatus),
    BadStartup,
    /// The number of recent clients whose child ended abnormally.
    Crashing {
        crashed: u32,
    },
    /// No children are started for this time.
    Throttled {
        time: Duration,
        counts: Counts,
    },
    Unthrottled(Counts),
    SpawnFailed(SpawnFailure),
    WatchFailed(Errno),
    LimitReached,
    StressBegins(Counts),
    StressEnds(Counts),
    /// A reload brought the service, or took it away.
    Added,
    Removed(Counts),
    Killing,
    PartialReport {
        length: usize,
    },
    ForgedReport {
        claimed: Pid,
    },
    StaleReport {
        generation: u32,
    },
    UnknownStatus {
        value: i32,
    },
    SentDescriptors,
    /// So many lines like the one before were left out.
    Suppressed {
        count: u64,
    },
    /// A child's program does not start; so many children of the service are in that state.
    ExecHangs {
        hanging: u32,
    },
    /// A child of an ordered pool does not keep to the rules, and is told to end.
    Rogue(Rogue),
    /// A child that was told to end has not.
    Overdue,
    /// A child has had its client for longer than it may, and is told to end.
    TooLong {
        age: Duration,
    },
    /// A child was told to leave so long ago, and now is told to end.
    Lingering {
        age: Duration,
    },
    /// An ordered pool has fewer idle children than it should, and no room for more.
    PoolFull,
    Terminating {
        signal: i32,
    },
    Counts(Counts),
    /// How many children of an ordered pool are in each state, as [`State::ALL`] has them.
    States([u32; State::ALL.len()]),
    Spawned,
    Waking,
}

/// Why no child was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnFailure {
    System(Errno),
    /// Too many children of all services hang in exec.
    TooManyHang,
}

/// In which way a child of an ordered pool does not keep to the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rogue {
    Unwritable { failure: OrderFailure },
    OutOfTurn { state: State, report: Report },
    Unknown { letter: u8 },
    Silent { after: Duration },
    Unready { after: Duration },
}

impl Kind {
    /// How important it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Counts(_) | Self::States(_) | Self::Spawned | Self::Waking => Severity::Detail,
            Self::Throttled { .. }
            | Self::Unthrottled(_)
            | Self::StressBegins(_)
            | Self::StressEnds(_)
            | Self::Added
            | Self::Removed(_)
            // It is only late, which is nobody's fault.
            | Self::StaleReport { .. }
            | Self::Terminating { .. } => Severity::Info,
            _ => Severity::Warning,
        }
    }
}

impl Record {
    pub(super) fn new(service: Option<Arc<Service>>, child: Option<Pid>, kind: Kind) -> Self {
        Self {
            service,
            child,
            severity: kind.severity(),
            kind,
        }
    }

    /// A child has not ended in the time that it had when the master ends.
    pub fn overdue(service: Arc<Service>, pid: Pid) -> Self {
        Self::new(Some(service), Some(pid), Kind::Overdue)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.kind, &self.service) {
            (Kind::Terminating { signal }, _) => write!(f, "terminating on signal {signal}"),
            (kind, None) => write!(f, "{kind:?}"),
            (kind, Some(service)) => Line {
                kind,
                service,
                pid: self.child.unwrap_or_default(),
            }
            .fmt(f),
        }
    }
}

/// A line about a service, or about one of its children.
struct Line<'a> {
    kind: &'a Kind,
    service: &'a Service,
    pid: Pid,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Service {
            name,
            canonical,
            path,
            max,
            ..
        } = self.service;
        let (path, pid) = (path.display(), self.pid);
        match self.kind {
            Kind::Ended(ExitStatus::Code(code)) => {
                write!(f, "process {path} pid {pid} exit status {code}")
            }
            Kind::Ended(ExitStatus::Signal(signal)) => {
                write!(f, "process {path} pid {pid} killed by signal {signal}")
            }
            Kind::BadStartup => write!(f, "{path}: bad command startup -- throttling"),
            Kind::LimitReached => write!(
                f,
                "service \"{name}\" ({canonical}) has reached its process limit \"{max}\": new \
                 clients may experience noticeable delays\n\
                 to let more clients in at a time, raise the maxproc column of this service in \
                 master.cf, or shorten the time that a client takes\n\
                 settings that adapt to such stress are explained in \
                 https://www.postfix.org/STRESS_README.html"
            ),
            Kind::Killing => write!(
                f,
                "removed service \"{name}\" ({canonical}): process {path} pid {pid} did not end in \
                 time, sending SIGKILL"
            ),
            _ => {
                write!(f, "service \"{name}\" ({canonical}): ")?;
                self.service_did(f)
            }
        }
    }
}

impl Line<'_> {
    /// What happened to the service, without its name.
    fn service_did(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Service { max, .. } = self.service;
        // As Postfix's master has it when it is verbose.
        let counts =
            |Counts { avail, total }: &Counts| format!("avail {avail} total {total} max {max}");
        match self.kind {
            Kind::Crashing { crashed } => write!(
                f,
                "children ended abnormally with {crashed} of the last {CLIENTS} clients -- throttling"
            ),
            Kind::Throttled { time, counts: now } => {
                write!(f, "throttled for {} s, {}", time.as_secs(), counts(now))
            }
            Kind::Unthrottled(now) => write!(f, "no longer throttled, {}", counts(now)),
            Kind::SpawnFailed(failure) => {
                write!(f, "cannot start a process: {failure} -- throttling")
            }
            Kind::WatchFailed(error) => {
                write!(f, "cannot watch its listeners: {error} -- throttling")
            }
            Kind::StressBegins(now) => write!(
                f,
                "stress mode begins: the last process that the limit \"{max}\" allows is started, {}",
                counts(now)
            ),
            Kind::StressEnds(now) => write!(f, "stress mode ends, {}", counts(now)),
            Kind::Added => f.write_str("added"),
            Kind::Removed(now) => write!(f, "removed, {}", counts(now)),
            Kind::Suppressed { count } => {
                write!(f, "{count} more bad status updates were not logged")
            }
            Kind::PoolFull => write!(
                f,
                "fewer than {} children are idle, and the process limit \"{max}\" is reached: \
                 consider raising the maxproc column of this service in master.cf",
                self.service.pool().min_idle.max(1),
            ),
            Kind::Counts(now) => f.write_str(&counts(now)),
            Kind::States(now) => {
                f.write_str("child states:")?;
                let mut states = State::ALL.iter().zip(now);
                states.try_for_each(|(state, count)| write!(f, " {} {count}", state.letter()))
            }
            Kind::Waking => f.write_str("waking up"),
            _ => self.child_did(f),
        }
    }

    /// What happened to the child.
    fn child_did(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, pid) = (self.service.path.display(), self.pid);
        match self.kind {
            Kind::PartialReport { length } => {
                write!(
                    f,
                    "child (pid {pid}) sent partial status update ({length} bytes)"
                )
            }
            Kind::ForgedReport { claimed } => write!(
                f,
                "ignoring status update from pid {pid} in the name of pid {claimed}"
            ),
            Kind::StaleReport { generation } => write!(
                f,
                "ignoring status update from child pid {pid} generation {generation}"
            ),
            Kind::UnknownStatus { value } => {
                write!(f, "ignoring unknown status {value} from child pid {pid}")
            }
            Kind::SentDescriptors => write!(f, "child (pid {pid}) sent descriptors -- ending it"),
            Kind::ExecHangs { hanging } => {
                write!(
                    f,
                    "{path} hangs in exec: process pid {pid} has not started it within 1 s, because \
                     its file system does not answer or a program holds the file; sending SIGKILL \
                     -- throttling"
                )?;
                if *hanging >= super::status::HANGING_MAX {
                    write!(
                        f,
                        "\nno more processes of this service are started until one of the {hanging} \
                         that hang has ended"
                    )?;
                }
                Ok(())
            }
            Kind::Rogue(how) => {
                write!(f, "ending rogue process {path} pid {pid}: it {how}")
            }
            Kind::Overdue => write!(
                f,
                "process {path} pid {pid} is still there, sending SIGKILL"
            ),
            Kind::TooLong { age } => write!(
                f,
                "process {path} pid {pid} has had its client for {} s, ending it",
                age.as_secs()
            ),
            Kind::Lingering { age } => write!(
                f,
                "process {path} pid {pid} was told to leave {} s ago, ending it",
                age.as_secs()
            ),
            Kind::Spawned => write!(f, "started {path} pid {pid}"),
            kind => write!(f, "{kind:?}"),
        }
    }
}

impl fmt::Display for SpawnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::TooManyHang => {
                write!(
                    f,
                    "{HANGING_OF_ALL_MAX} processes of all services hang in exec"
                )
            }
        }
    }
}

impl fmt::Display for Rogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwritable { failure } => write!(f, "cannot be written to: {failure}"),
            Self::OutOfTurn { state, report } => {
                let report = match report {
                    Report::Idle => "idle",
                    Report::Busy => "busy",
                };
                let state = state.letter();
                write!(
                    f,
                    "says that it is {report}, out of turn (in state {state})"
                )
            }
            Self::Unknown { letter } => {
                let letter = std::ascii::escape_default(*letter);
                write!(f, "sent an unknown message (it begins with \"{letter}\")")
            }
            Self::Silent { after } => {
                write!(f, "did not answer an order within {} s", after.as_secs())
            }
            Self::Unready { after } => write!(f, "was not ready within {} s", after.as_secs()),
        }
    }
}

/// Lets a few lines through in every minute and counts the rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limiter {
    since: Option<Time>,
    passed: u32,
    suppressed: u64,
}

impl Limiter {
    const PERIOD: Duration = Duration::from_secs(60);
    const LINES: u32 = 10;

    /// Whether a line may be written now and, if so, how many were left out before it.
    pub fn allow(&mut self, now: Time) -> Option<u64> {
        let recent = |since: Time| now.saturating_sub(since) < Self::PERIOD;
        if !self.since.is_some_and(recent) {
            self.since = Some(now);
            self.passed = 0;
        }
        if self.passed == Self::LINES {
            self.suppressed += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}
