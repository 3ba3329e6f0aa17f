//! The happenings of the simulation, as data: a run is a list of happenings.
//!
//! A number selects an object, modulo the number of objects; an impossible happening has no effect.
//! Therefore every part of a list can be run, which makes shrinking simple, and `Debug` prints a
//! happening as a test would write it.

use master::policy::{Event, ServiceId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The master makes a turn, with or without a reason.
    Turn,
    /// A turn with its parts in another order than the runtime's (one of the permutations).
    Disorder(u8),
    /// Milliseconds pass.
    Pass(u32),
    /// Time passes until the master's next deadline, which is then due.
    Sleep,

    /// A client connects to the endpoint.
    Client(u8),
    /// The process takes its next step: it is ready, accepts, has served, leaves.
    Live(u8),
    /// The process leaves because it was idle for long, or has served enough clients.
    Retire(u8),
    /// The process fails with an exit code.
    Fail(u8),
    /// A signal ends the process: its own bug, lack of memory, or a kill.
    Crash(u8, u8),
    /// The process ignores requests to leave and all signals except SIGKILL.
    Defy(u8),
    /// The exec of the process hangs.
    Hang(u8),
    /// The process ends, the master does not see its end, and its pid is reused.
    Vanish(u8),

    /// The oldest report of the service is lost.
    Lose(u8),
    /// An old report is repeated, whether its writer lives or not.
    Echo(u8),
    /// The process reports with a wrong generation.
    Stale(u8),
    /// The first process reports with the pid of the second.
    Forge(u8, u8),
    /// The process sends a false report over the endpoint's status channel.
    Stray(u8, u8),
    /// The process reports an unknown status.
    Unknown(u8),
    /// The process writes a record that is no report.
    Garbage(u8),
    /// The process sends file descriptors.
    SendDescriptors(u8),

    /// The template takes its next step: it has loaded, or has forked a child.
    Template(u8),
    /// The template ends, or is ended because it breaks a rule.
    TemplateEnds(u8),
    /// The template cannot fork the child, or that leaves at once.
    TemplateRefuses(u8),
    /// The template does nothing more.
    TemplateHangs(u8),
    /// The template is old, and another one takes its place, which has loaded.
    TemplateRenewed(u8),

    /// From now on, the master executes at most this many actions per turn, at its end; 0 means all
    /// at once again.
    Late(u8),

    /// The next spawn fails.
    SpawnFails,
    /// The master looks for clients that no child takes.
    Look,
    /// The next watch fails.
    WatchFails,
    /// Toggles whether the kernel tells how many clients wait.
    Count,

    /// An administrator edits an endpoint's line of the table.
    Edit(u8, Edit),
    /// An administrator edits the time for children of removed services to leave, in seconds.
    KillTime(u8),
    /// An administrator requests a reload.
    Hangup,
    /// An operator pauses, resumes, wakes up or replaces the service at this place of the table.
    Operator(u8, OperatorRequest),
    /// An operator sets the log level.
    Verbose(bool),
    /// The master is stopped and another one is started, which is verbose or not.
    Stop(bool),

    /// The faults end, no new client connects, and every client must be served.
    Calm,
}

/// An operator's request for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorRequest {
    Pause,
    Resume,
    Replace,
    Wake,
}

impl OperatorRequest {
    pub fn event(self, service: ServiceId) -> Event {
        match self {
            Self::Pause => Event::Pause { service },
            Self::Resume => Event::Resume { service },
            Self::Replace => Event::Replace { service },
            Self::Wake => Event::Wake { service },
        }
    }
}

/// A change to an endpoint's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    Add,
    Remove,
    /// Another name for the same endpoint, or the first one again.
    Rename,
    /// Another address under the same canonical name, if the endpoint has addresses.
    Move(u8),
    Max(u8),
    /// Seconds; 0 is none.
    Wakeup(u8),
    /// Seconds, once the service has been used.
    WakeupOnceUsed(u8),
    /// Seconds.
    ThrottleTime(u8),
    /// The maximum throttle time in seconds; 0 is none.
    ThrottleMost(u8),
    /// In per cent of clients; 0 is none.
    CrashPercent(u8),
    /// Seconds; 0 is none.
    StopTimeout(u8),
    /// Seconds; 0 is none.
    RequestTimeout(u8),
    /// Starts in 10 seconds; 0 is no limit.
    StartLimit(u8),
    /// Whether a template forks the children.
    Preload(bool),
}

impl Happening {
    /// Simpler happenings of the same kind, for shrinking.
    pub fn simpler(self) -> Vec<Self> {
        let less = |n: u8| (0..n.min(4)).collect::<Vec<u8>>().into_iter();
        match self {
            Self::Disorder(_) => vec![Self::Turn],
            Self::Client(n) => less(n).map(Self::Client).collect(),
            Self::Live(n) => less(n).map(Self::Live).collect(),
            Self::Retire(n) => less(n).map(Self::Retire).collect(),
            Self::Fail(n) => less(n).map(Self::Fail).collect(),
            Self::Crash(n, _) => less(n).map(Self::Fail).collect(),
            Self::Defy(n) => less(n).map(Self::Defy).collect(),
            Self::Vanish(n) => less(n).map(Self::Vanish).collect(),
            Self::Lose(n) => less(n).map(Self::Lose).collect(),
            Self::Echo(n) => less(n).map(Self::Echo).collect(),
            Self::Stale(n) => less(n).map(Self::Stale).collect(),
            Self::Unknown(n) => less(n).map(Self::Unknown).collect(),
            Self::Garbage(n) => less(n).map(Self::Garbage).collect(),
            Self::Hang(n) => less(n).map(Self::Hang).collect(),
            Self::SendDescriptors(n) => less(n).map(Self::SendDescriptors).collect(),
            Self::Template(n) => less(n).map(Self::Template).collect(),
            Self::TemplateEnds(n) => less(n).map(Self::TemplateEnds).collect(),
            Self::TemplateRefuses(n) => less(n).map(Self::TemplateRefuses).collect(),
            Self::TemplateHangs(n) => less(n).map(Self::TemplateHangs).collect(),
            Self::TemplateRenewed(n) => less(n).map(Self::TemplateRenewed).collect(),
            Self::Operator(n, request) => less(n).map(|n| Self::Operator(n, request)).collect(),
            Self::Stop(true) => vec![Self::Stop(false)],
            Self::Edit(n, edit) => less(n).map(|n| Self::Edit(n, edit)).collect(),
            Self::Pass(_) => vec![Self::Sleep],
            _ => Vec::new(),
        }
    }
}
