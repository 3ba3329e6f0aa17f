//! What the policy logs, as values; the words are here and nowhere else.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_derive::{Deserialize, Serialize};

use super::status::{HANGING_MAX, HANGING_OF_ALL_MAX};
use super::throttle::CLIENTS;
use super::{Errno, ExitStatus, OrderFailure, Outlived, Pid, State, Time};
use crate::config::Service;
use crate::protocol::pool::Report;

/// Advice about the limit of a service that can be in stress mode.
const STRESS: &str = "\nsettings that adapt to such stress are explained in \
                      https://www.postfix.org/STRESS_README.html";

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
    Crashing(u32),
    /// No children are started for this time.
    Throttled(Duration, Counts),
    Unthrottled(Counts),
    /// The number of children in a row that have done nothing, and the time until the next start.
    InVain(u32, Duration),
    /// The service has started as many children as it may, and starts none for this time.
    StartLimit(Duration),
    SpawnFailed(SpawnFailure),
    WatchFailed(Errno),
    LimitReached,
    /// Clients wait, although this number of children is available.
    Stalled(u32),
    StressBegins(Counts),
    StressEnds(Counts),
    /// A reload brought the service.
    Added,
    /// A reload took it away.
    Removed(Counts),
    Killing,
    /// The number of bytes that are no report.
    PartialReport(usize),
    /// The pid in whose name it was.
    ForgedReport(Pid),
    /// The generation in it.
    StaleReport(u32),
    UnknownStatus(i32),
    SentDescriptors,
    /// The number of lines like the one before that were left out.
    Suppressed(u64),
    /// A child's program does not start. The number of such children of the service.
    ExecHangs(u32),
    /// A child of an ordered pool does not keep to the rules, and is told to end.
    Rogue(Rogue),
    /// A child that was told to end has not.
    Overdue,
    /// How long a child has had its client, which is longer than it may: it is told to end.
    TooLong(Duration),
    /// How long ago a child was told to leave: it is told to end.
    Lingering(Duration),
    /// A child is told to leave, and another takes its place.
    Recycled(Outlived),
    /// An ordered pool has fewer idle children than it should, and no room for more.
    PoolFull,
    /// The signal.
    Terminating(i32),
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
    Unwritable(OrderFailure),
    OutOfTurn(State, Report),
    /// The letter that an unknown message begins with.
    Unknown(u8),
    /// It did not answer an order in this time.
    Silent(Duration),
    /// It was not ready in this time.
    Unready(Duration),
}

impl Kind {
    /// How important it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Counts(_) | Self::States(_) | Self::Spawned | Self::Waking => Severity::Detail,
            Self::Throttled(..) | Self::Unthrottled(_) => Severity::Info,
            Self::StressBegins(_) | Self::StressEnds(_) => Severity::Info,
            Self::Added | Self::Removed(_) | Self::Terminating(_) => Severity::Info,
            Self::Recycled(Outlived::Memory(_)) => Severity::Info,
            Self::Recycled(_) => Severity::Detail,
            // It is of a former start: no mistake of the child that has the pid now.
            Self::StaleReport(_) => Severity::Info,
            _ => Severity::Warning,
        }
    }

    /// What happened, without the service's name.
    fn words(&self, service: &Service, pid: Pid) -> String {
        let max = service.max;
        // As Postfix's master has it when it is verbose.
        let counts = |of: &Counts| format!("avail {} total {} max {max}", of.avail, of.total);
        match self {
            Self::Crashing(crashed) => format!(
                "children ended abnormally with {crashed} of the last {CLIENTS} clients -- \
                 throttling"
            ),
            Self::Throttled(time, now) => {
                format!("throttled for {} s, {}", time.as_secs(), counts(now))
            }
            Self::Unthrottled(now) => format!("no longer throttled, {}", counts(now)),
            Self::InVain(children, time) => format!(
                "the last {children} processes ended within 1 s with status 0 and took no client \
                 -- starting the next one after {:.1} s\n\
                 probably {} goes into the background, or does not accept clients on descriptor 6: \
                 see master-protocol(7)",
                time.as_secs_f64(),
                service.path.display(),
            ),
            Self::StartLimit(time) => {
                let limit = service.limits().start_limit;
                let (starts, period) = limit.map_or((0, 0), |l| (l.starts, l.period.as_secs()));
                format!(
                    "has started {starts} processes in {period} s, the most that its start_limit \
                     allows -- starting no more for {:.1} s",
                    time.as_secs_f64(),
                )
            }
            Self::SpawnFailed(why) => format!("cannot start a process: {why} -- throttling"),
            Self::WatchFailed(why) => format!("cannot watch its listeners: {why} -- throttling"),
            Self::LimitReached => format!(
                "has reached its process limit \"{max}\": new clients may experience noticeable \
                 delays\n\
                 to let more clients in at a time, raise the maxproc column of this service in \
                 master.cf, or shorten the time that a client takes{}",
                if service.stress_eligible() {
                    STRESS
                } else {
                    ""
                }
            ),
            Self::Stalled(avail) => format!(
                "clients wait although {avail} of its processes count as available: they do not \
                 accept clients, or do not report those that they have"
            ),
            Self::StressBegins(now) => format!(
                "stress mode begins: the last process that the limit \"{max}\" allows is started, {}",
                counts(now)
            ),
            Self::StressEnds(now) => format!("stress mode ends, {}", counts(now)),
            Self::Added => "added".into(),
            Self::Removed(now) => format!("removed, {}", counts(now)),
            Self::Suppressed(count) => format!("{count} more bad status updates were not logged"),
            Self::PoolFull => format!(
                "fewer than {} children are idle, and the process limit \"{max}\" is reached: \
                 consider raising the maxproc column of this service in master.cf",
                service.pool().min_idle.max(1),
            ),
            Self::Counts(now) => counts(now),
            Self::States(now) => {
                let states = State::ALL.iter().zip(now);
                let words = states.map(|(state, count)| format!(" {} {count}", state.letter()));
                format!("child states:{}", words.collect::<String>())
            }
            Self::Waking => "waking up".into(),
            of_child => of_child.of_child(&service.path, pid),
        }
    }

    fn of_child(&self, path: &Path, pid: Pid) -> String {
        let path = path.display();
        let process = format!("process {path} pid {pid}");
        match self {
            Self::Ended(ExitStatus::Code(code)) => format!("{process} exit status {code}"),
            Self::Ended(ExitStatus::Signal(n)) => format!("{process} killed by signal {n}"),
            Self::BadStartup => format!("{path}: bad command startup -- throttling"),
            Self::Killing => format!("{process} did not end in time, sending SIGKILL"),
            Self::PartialReport(length) => {
                format!("child (pid {pid}) sent partial status update ({length} bytes)")
            }
            Self::ForgedReport(claimed) => {
                format!("ignoring status update from pid {pid} in the name of pid {claimed}")
            }
            Self::StaleReport(generation) => {
                format!("ignoring status update from child pid {pid} generation {generation}")
            }
            Self::UnknownStatus(value) => {
                format!("ignoring unknown status {value} from child pid {pid}")
            }
            Self::SentDescriptors => format!("child (pid {pid}) sent descriptors -- ending it"),
            Self::ExecHangs(hanging) => format!(
                "{path} hangs in exec: process pid {pid} has not started it within 1 s, because \
                 its file system does not answer or a program holds the file; sending SIGKILL \
                 -- throttling{}",
                if *hanging < HANGING_MAX {
                    ""
                } else {
                    "\nno more processes of this service are started until one that hangs has ended"
                }
            ),
            Self::Rogue(how) => format!("ending rogue {process}: it {how}"),
            Self::Overdue => format!("{process} is still there, sending SIGKILL"),
            Self::TooLong(age) => {
                let age = age.as_secs();
                format!("{process} has had its client for {age} s, ending it")
            }
            Self::Lingering(age) => {
                let age = age.as_secs();
                format!("{process} was told to leave {age} s ago, ending it")
            }
            Self::Recycled(why) => format!("{process} {why}, telling it to leave"),
            Self::Spawned => format!("started {path} pid {pid}"),
            other => format!("{other:?}"),
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

    /// About a child, when the master ends.
    pub fn of_child(service: Arc<Service>, pid: Pid, kind: Kind) -> Self {
        Self::new(Some(service), Some(pid), kind)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Kind::Terminating(signal) = self.kind {
            return write!(f, "terminating on signal {signal}");
        }
        let Some(service) = &self.service else {
            return write!(f, "{:?}", self.kind);
        };
        let name = format!("service \"{}\" ({})", service.name, service.canonical);
        let words = self.kind.words(service, self.child.unwrap_or_default());
        match self.kind {
            Kind::Ended(_) | Kind::BadStartup => f.write_str(&words),
            Kind::LimitReached => write!(f, "{name} {words}"),
            Kind::Killing => write!(f, "removed {name}: {words}"),
            _ => write!(f, "{name}: {words}"),
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
            Self::Unwritable(why) => write!(f, "cannot be written to: {why}"),
            Self::OutOfTurn(state, report) => {
                let (report, state) = (format!("{report:?}").to_lowercase(), state.letter());
                write!(
                    f,
                    "says that it is {report}, out of turn (in state {state})"
                )
            }
            Self::Unknown(letter) => {
                let letter = std::ascii::escape_default(*letter);
                write!(f, "sent an unknown message (it begins with \"{letter}\")")
            }
            Self::Silent(time) => write!(f, "did not answer an order within {} s", time.as_secs()),
            Self::Unready(time) => write!(f, "was not ready within {} s", time.as_secs()),
        }
    }
}

/// Lets `LINES` lines through in every period of `SECONDS`, and counts the rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limiter<const LINES: u32 = 10, const SECONDS: u64 = 60>(Lines);

/// The lines of a period.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Lines {
    since: Option<Time>,
    passed: u32,
    suppressed: u64,
}

impl<const LINES: u32, const SECONDS: u64> Limiter<LINES, SECONDS> {
    /// Whether a line may be written now and, if so, how many were left out before it.
    pub fn allow(&mut self, now: Time) -> Option<u64> {
        let recent = |since: Time| now.saturating_sub(since) < Duration::from_secs(SECONDS);
        if !self.0.since.is_some_and(recent) {
            self.0.since = Some(now);
            self.0.passed = 0;
        }
        if self.0.passed >= LINES {
            self.0.suppressed += 1;
            return None;
        }
        self.0.passed += 1;
        Some(self.take_suppressed())
    }

    /// How many lines were left out since that was last said.
    pub fn take_suppressed(&mut self) -> u64 {
        std::mem::take(&mut self.0.suppressed)
    }
}

// The macros do not know numbers as parameters of a type.
impl<const LINES: u32, const SECONDS: u64> Serialize for Limiter<LINES, SECONDS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, const LINES: u32, const SECONDS: u64> Deserialize<'de> for Limiter<LINES, SECONDS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Lines::deserialize(deserializer).map(Self)
    }
}
