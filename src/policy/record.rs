//! What the policy has to say, as values; the words are here and nowhere else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::throttle::CLIENTS;
use super::{ExitStatus, Pid, State, Time};
use crate::config::Service;
use crate::protocol::pool::Report;

/// How many children a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Those that wait for a client.
    pub avail: u32,
    pub total: u32,
}

/// One thing to log. It displays as one line or several.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Ended {
        service: Arc<Service>,
        pid: Pid,
        status: ExitStatus,
    },
    BadStartup(Arc<Service>),
    /// Of the last clients, so many had a child that ended abnormally.
    Crashing {
        service: Arc<Service>,
        crashed: u32,
    },
    /// For so long no children are started.
    Throttled {
        service: Arc<Service>,
        time: Duration,
        counts: Counts,
    },
    Unthrottled {
        service: Arc<Service>,
        counts: Counts,
    },
    SpawnFailed {
        service: Arc<Service>,
        reason: String,
    },
    WatchFailed {
        service: Arc<Service>,
        reason: String,
    },
    LimitReached(Arc<Service>),
    StressBegins {
        service: Arc<Service>,
        counts: Counts,
    },
    StressEnds {
        service: Arc<Service>,
        counts: Counts,
    },
    /// A reload brought the service, or took it away.
    Added(Arc<Service>),
    Removed {
        service: Arc<Service>,
        counts: Counts,
    },
    Killing {
        service: Arc<Service>,
        pid: Pid,
    },
    PartialReport {
        service: Arc<Service>,
        writer: Pid,
        length: usize,
    },
    ForgedReport {
        service: Arc<Service>,
        writer: Pid,
        claimed: Pid,
    },
    StaleReport {
        service: Arc<Service>,
        pid: Pid,
        generation: u32,
    },
    UnknownStatus {
        service: Arc<Service>,
        pid: Pid,
        value: i32,
    },
    /// So many lines like the one before were left out.
    Suppressed {
        service: Arc<Service>,
        count: u64,
    },
    /// A child of an ordered pool does not keep to the rules, and is told to end.
    Rogue {
        service: Arc<Service>,
        pid: Pid,
        how: Rogue,
    },
    /// A child that was told to end is still there.
    Overdue {
        service: Arc<Service>,
        pid: Pid,
    },
    /// A child has had its client for longer than it may, and is told to end.
    TooLong {
        service: Arc<Service>,
        pid: Pid,
        age: Duration,
    },
    /// A child was told to leave so long ago, and now is told to end.
    Lingering {
        service: Arc<Service>,
        pid: Pid,
        age: Duration,
    },
    /// An ordered pool has fewer idle children than it should, and no room for more.
    PoolFull(Arc<Service>),
    Terminating {
        signal: i32,
    },
    // Only of a verbose table:
    Counts {
        service: Arc<Service>,
        counts: Counts,
    },
    /// How many children of an ordered pool are in each state, as [`State::ALL`] has them.
    States {
        service: Arc<Service>,
        counts: [u32; State::ALL.len()],
    },
    Spawned {
        service: Arc<Service>,
        pid: Pid,
    },
    Waking(Arc<Service>),
}

/// In which way a child of an ordered pool does not keep to the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rogue {
    Unwritable { why: String },
    OutOfTurn { state: State, report: Report },
    Unknown { letter: u8 },
    Silent { after: Duration },
    Unready { after: Duration },
}

impl fmt::Display for Rogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwritable { why } => write!(f, "cannot be written to: {why}"),
            Self::OutOfTurn { state, report } => {
                let (report, state) = (words(*report), state.letter());
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
            Self::Unready { after } => {
                write!(f, "was not ready within {} s", after.as_secs())
            }
        }
    }
}

fn words(report: Report) -> &'static str {
    match report {
        Report::Idle => "idle",
        Report::Busy => "busy",
    }
}

impl Record {
    /// The service that it is about.
    pub fn service(&self) -> Option<&Service> {
        match self {
            Self::Terminating { .. } => None,
            Self::BadStartup(service)
            | Self::LimitReached(service)
            | Self::Added(service)
            | Self::PoolFull(service)
            | Self::Waking(service)
            | Self::Ended { service, .. }
            | Self::Crashing { service, .. }
            | Self::Throttled { service, .. }
            | Self::Unthrottled { service, .. }
            | Self::SpawnFailed { service, .. }
            | Self::WatchFailed { service, .. }
            | Self::StressBegins { service, .. }
            | Self::StressEnds { service, .. }
            | Self::Removed { service, .. }
            | Self::Killing { service, .. }
            | Self::PartialReport { service, .. }
            | Self::ForgedReport { service, .. }
            | Self::StaleReport { service, .. }
            | Self::UnknownStatus { service, .. }
            | Self::Suppressed { service, .. }
            | Self::Rogue { service, .. }
            | Self::Overdue { service, .. }
            | Self::TooLong { service, .. }
            | Self::Lingering { service, .. }
            | Self::Counts { service, .. }
            | Self::States { service, .. }
            | Self::Spawned { service, .. } => Some(service),
        }
    }

    /// The child that it is about; who writes in another's name is the one.
    pub fn child(&self) -> Option<Pid> {
        match self {
            Self::Ended { pid, .. }
            | Self::Killing { pid, .. }
            | Self::StaleReport { pid, .. }
            | Self::UnknownStatus { pid, .. }
            | Self::Rogue { pid, .. }
            | Self::Overdue { pid, .. }
            | Self::TooLong { pid, .. }
            | Self::Lingering { pid, .. }
            | Self::Spawned { pid, .. } => Some(*pid),
            Self::PartialReport { writer, .. } | Self::ForgedReport { writer, .. } => Some(*writer),
            _ => None,
        }
    }

    /// Whether somebody should look into it; otherwise it is for information.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::Ended { .. }
                | Self::BadStartup(_)
                | Self::Crashing { .. }
                | Self::SpawnFailed { .. }
                | Self::WatchFailed { .. }
                | Self::LimitReached(_)
                | Self::Killing { .. }
                | Self::PartialReport { .. }
                | Self::ForgedReport { .. }
                | Self::UnknownStatus { .. }
                | Self::Suppressed { .. }
                | Self::Rogue { .. }
                | Self::Overdue { .. }
                | Self::TooLong { .. }
                | Self::Lingering { .. }
                | Self::PoolFull(_)
        )
    }

    /// Whether only a verbose table says this.
    pub fn is_detail(&self) -> bool {
        matches!(
            self,
            Self::Counts { .. } | Self::States { .. } | Self::Spawned { .. } | Self::Waking(_)
        )
    }
}

impl Counts {
    /// `avail A total T max M`, as Postfix's master has it when it is verbose.
    fn of(self, service: &Service) -> String {
        let Self { avail, total } = self;
        format!("avail {avail} total {total} max {}", service.max)
    }
}

/// `service "NAME" (CANONICAL)`, how every line names a service.
struct Named<'a>(&'a Service);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service \"{}\" ({})", self.0.name, self.0.canonical)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended {
                service,
                pid,
                status,
            } => {
                write!(f, "process {} pid {pid} ", service.path.display())?;
                match status {
                    ExitStatus::Code(code) => write!(f, "exit status {code}"),
                    ExitStatus::Signal(signal) => write!(f, "killed by signal {signal}"),
                }
            }
            Self::BadStartup(service) => write!(
                f,
                "{}: bad command startup -- throttling",
                service.path.display()
            ),
            Self::Crashing { service, crashed } => write!(
                f,
                "{}: children ended abnormally with {crashed} of the last {CLIENTS} clients -- \
                 throttling",
                Named(service)
            ),
            Self::Throttled {
                service,
                time,
                counts,
            } => write!(
                f,
                "{}: throttled for {} s, {}",
                Named(service),
                time.as_secs(),
                counts.of(service)
            ),
            Self::Unthrottled { service, counts } => write!(
                f,
                "{}: no longer throttled, {}",
                Named(service),
                counts.of(service)
            ),
            Self::SpawnFailed { service, reason } => write!(
                f,
                "{}: cannot start a process: {reason} -- throttling",
                Named(service)
            ),
            Self::WatchFailed { service, reason } => write!(
                f,
                "{}: cannot watch its listeners: {reason} -- throttling",
                Named(service)
            ),
            Self::LimitReached(service) => write!(
                f,
                "{} has reached its process limit \"{}\": new clients may experience noticeable \
                 delays\n\
                 to let more clients in at a time, raise the maxproc column of this service in \
                 master.cf, or shorten the time that a client takes\n\
                 settings that adapt to such stress are explained in \
                 https://www.postfix.org/STRESS_README.html",
                Named(service),
                service.max
            ),
            Self::StressBegins { service, counts } => write!(
                f,
                "{}: stress mode begins: the last process that the limit \"{}\" allows is \
                 started, {}",
                Named(service),
                service.max,
                counts.of(service)
            ),
            Self::StressEnds { service, counts } => write!(
                f,
                "{}: stress mode ends, {}",
                Named(service),
                counts.of(service)
            ),
            Self::Added(service) => write!(f, "{}: added", Named(service)),
            Self::Removed { service, counts } => {
                write!(f, "{}: removed, {}", Named(service), counts.of(service))
            }
            Self::Killing { service, pid } => write!(
                f,
                "removed {}: process {} pid {pid} did not end in time, sending SIGKILL",
                Named(service),
                service.path.display()
            ),
            Self::PartialReport {
                service,
                writer,
                length,
            } => write!(
                f,
                "{}: child (pid {writer}) sent partial status update ({length} bytes)",
                Named(service)
            ),
            Self::ForgedReport {
                service,
                writer,
                claimed,
            } => write!(
                f,
                "{}: ignoring status update from pid {writer} in the name of pid {claimed}",
                Named(service)
            ),
            Self::StaleReport {
                service,
                pid,
                generation,
            } => write!(
                f,
                "{}: ignoring status update from child pid {pid} generation {generation}",
                Named(service)
            ),
            Self::UnknownStatus {
                service,
                pid,
                value,
            } => write!(
                f,
                "{}: ignoring unknown status {value} from child pid {pid}",
                Named(service)
            ),
            Self::Suppressed { service, count } => write!(
                f,
                "{}: {count} more bad status updates were not logged",
                Named(service)
            ),
            Self::Rogue { service, pid, how } => write!(
                f,
                "{}: ending rogue process {} pid {pid}: it {how}",
                Named(service),
                service.path.display()
            ),
            Self::Overdue { service, pid } => write!(
                f,
                "{}: process {} pid {pid} is still there, sending SIGKILL",
                Named(service),
                service.path.display()
            ),
            Self::TooLong { service, pid, age } => write!(
                f,
                "{}: process {} pid {pid} has had its client for {} s, ending it",
                Named(service),
                service.path.display(),
                age.as_secs()
            ),
            Self::Lingering { service, pid, age } => write!(
                f,
                "{}: process {} pid {pid} was told to leave {} s ago, ending it",
                Named(service),
                service.path.display(),
                age.as_secs()
            ),
            Self::PoolFull(service) => write!(
                f,
                "{}: fewer than {} children are idle, and the process limit \"{}\" is reached: \
                 consider raising the maxproc column of this service in master.cf",
                Named(service),
                service.pool.min_idle.max(1),
                service.max
            ),
            Self::Terminating { signal } => write!(f, "terminating on signal {signal}"),
            Self::Counts { service, counts } => {
                write!(f, "{}: {}", Named(service), counts.of(service))
            }
            Self::States { service, counts } => {
                write!(f, "{}: child states:", Named(service))?;
                let mut states = State::ALL.iter().zip(counts);
                states.try_for_each(|(state, count)| write!(f, " {} {count}", state.letter()))
            }
            Self::Spawned { service, pid } => write!(
                f,
                "{}: started {} pid {pid}",
                Named(service),
                service.path.display()
            ),
            Self::Waking(service) => write!(f, "{}: waking up", Named(service)),
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
        let fresh = |since: Time| now.saturating_sub(since) < Self::PERIOD;
        if !self.since.is_some_and(fresh) {
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
