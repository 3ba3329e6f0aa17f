//! What can happen in the simulated world, as data: a run is a list of happenings.
//!
//! A number says which one is meant, modulo how many there are, and what is impossible does not
//! happen. So every part of a list is itself a list that can be run, which is what makes shrinking
//! simple; and `Debug` prints a happening as a test would write it.

use master::policy::{Event, ServiceId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The master has a turn, if it has a reason to wake up or not.
    Turn,
    /// A turn that does its parts in another order than the runtime (one of the permutations).
    Disorder(u8),
    /// Milliseconds go by.
    Pass(u32),
    /// Nothing happens until the master's next deadline, which gets its turn.
    Sleep,

    /// A client connects to the endpoint.
    Client(u8),
    /// The process does what comes next in its life: it is ready, accepts, has served, obeys.
    Live(u8),
    /// The process leaves because it was idle for long or has served enough clients.
    Retire(u8),
    /// The process fails with an exit code.
    Fail(u8),
    /// A signal ends the process: its own fault, the system's want of memory, somebody's hand.
    Crash(u8, u8),
    /// The process does not leave when it is told to, except by SIGKILL.
    Defy(u8),
    /// The process does not execute its program: its file system does not answer.
    Hang(u8),
    /// The process ends, the master never hears of it, and its pid is used again.
    Vanish(u8),

    /// The oldest report of the service is lost.
    Lose(u8),
    /// A report of the past, whoever wrote it, and whether it lives or not, comes once more.
    Echo(u8),
    /// The process reports with a generation that is not its own.
    Stale(u8),
    /// The first process reports in the name of the second.
    Forge(u8, u8),
    /// The process reports the contrary of the truth in the endpoint's status channel.
    Stray(u8, u8),
    /// The process reports a status that nobody knows.
    Unknown(u8),
    /// The process writes a record that is no report.
    Garbage(u8),
    /// The process sends file descriptors.
    SendDescriptors(u8),

    /// From now on, the master carries out only so many actions a turn, at its end; for 0, it
    /// carries out all at once again.
    Late(u8),

    /// The next spawn fails.
    SpawnFails,
    /// The next watch fails.
    WatchFails,

    /// Somebody edits an endpoint's line of the table.
    Edit(u8, Edit),
    /// Somebody edits the time that removed services' children have to leave, in seconds.
    KillTime(u8),
    /// Somebody asks for a reload.
    Hangup,
    /// An operator pauses, resumes, wakes up or has replaced what is at this place of the table.
    Steer(u8, Steering),
    /// An operator wants to hear more, or less.
    Verbose(bool),
    /// Somebody ends the master and starts another one, which is verbose or not.
    Stop(bool),

    /// The faults end, nobody new connects, and every client is to be served.
    Calm,
}

/// What an operator wants of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    Pause,
    Resume,
    Replace,
    Wake,
}

impl Steering {
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
    /// Seconds, up to which failures double the throttle time; 0 leaves it as it is.
    ThrottleMost(u8),
    /// Of a hundred clients; 0 is none.
    CrashPercent(u8),
    /// Seconds; 0 is none.
    StopTimeout(u8),
    /// Seconds; 0 is none.
    RequestTimeout(u8),
}

impl Happening {
    /// Happenings of the same sort that are easier on the reader.
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
            Self::Steer(n, steering) => less(n).map(|n| Self::Steer(n, steering)).collect(),
            Self::Stop(true) => vec![Self::Stop(false)],
            Self::Edit(n, edit) => less(n).map(|n| Self::Edit(n, edit)).collect(),
            Self::Pass(_) => vec![Self::Sleep],
            _ => Vec::new(),
        }
    }
}
