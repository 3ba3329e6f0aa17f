//! What the policy is told.

use std::fmt;

use super::{Pid, Plan, ServiceId};
use crate::errors::describe_errno;
use crate::protocol::StatusReport;
use crate::protocol::pool::Report;

/// A fact from outside.
#[derive(Clone, Debug)]
pub enum Event {
    /// Connections wait on the watched listeners of a service: in an ordered pool as many as the
    /// system counts, otherwise 1.
    Connection { service: ServiceId, clients: u32 },
    /// Whether clients wait in the listeners of a service that
    /// [`may_hide_clients`](super::Service::may_hide_clients). Told at intervals.
    Waiting { service: ServiceId, clients: bool },
    /// A report came through the status channel of `writer`, a child of the service, or a number of
    /// bytes that are none; see [`crate::protocol::reports`].
    Report {
        service: ServiceId,
        writer: Pid,
        report: Result<StatusReport, usize>,
    },
    /// A child of an ordered pool reported through its channel.
    PoolReport { pid: Pid, report: Report },
    /// A child of an ordered pool sent an unknown message, which begins with this letter.
    PoolGarbage { pid: Pid, letter: u8 },
    /// [`Action::Order`](super::Action::Order) could not be carried out.
    OrderFailed { pid: Pid, failure: OrderFailure },
    /// The channel of a child of an ordered pool has ended. Ignored for other children.
    ChannelClosed { pid: Pid },
    /// A child sent file descriptors over its channel, which is never read again.
    SentDescriptors { pid: Pid },
    /// The child that [`Action::Spawn`](super::Action::Spawn) asked for runs.
    Spawned {
        service: ServiceId,
        generation: u32,
        pid: Pid,
    },
    /// The child that [`Action::Spawn`](super::Action::Spawn) asked for could not be made.
    SpawnFailed { service: ServiceId, error: Errno },
    /// A child's process has not executed its program within a second.
    ExecHangs { pid: Pid },
    /// [`Action::Measure`](super::Action::Measure) was carried out: how much memory a child
    /// uses.
    Measured { pid: Pid, bytes: u64 },
    /// [`Action::Watch`](super::Action::Watch) was refused.
    WatchFailed { service: ServiceId, error: Errno },
    /// A process ended, and its status was collected. `progress` matters only of a child that
    /// [`Table::ended_at_once`](super::Table::ended_at_once).
    Exited {
        pid: Pid,
        status: ExitStatus,
        progress: Progress,
    },
    /// Time has passed; see [`Table::next_deadline`](super::Table::next_deadline).
    Deadline,
    /// A new configuration was read and checked, and its listeners are open. No action of earlier
    /// events may be outstanding.
    Reload(Plan),
    /// An operator has the service's clients wait.
    Pause { service: ServiceId },
    /// An operator ends a pause.
    Resume { service: ServiceId },
    /// An operator replaces the service's children, as a reload does.
    Replace { service: ServiceId },
    /// An operator wakes the service up now.
    Wake { service: ServiceId },
    /// An operator turns details in the log on or off.
    Verbose(bool),
    /// The master was told to end by this signal.
    Stop { signal: i32 },
}

/// Whether a child that has reported nothing took a client, as far as the system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Made,
    Unknown,
    None,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

/// Why an order could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderFailure {
    /// The child does not read its orders, and there is no room for another.
    NotRead,
    /// The child has no channel.
    NoChannel,
    System(Errno),
}

impl fmt::Display for OrderFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRead => f.write_str("it does not read its orders"),
            Self::NoChannel => f.write_str("it has no channel"),
            Self::System(error) => error.fmt(f),
        }
    }
}

/// The number of a failed system call's error. It displays as the system's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe_errno(self.0))
    }
}
