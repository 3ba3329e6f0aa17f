//! What the policy asks for.

use super::{Pid, Record, ServiceId};
use crate::protocol::pool::Order;

/// Something for the runtime to do. Actions are carried out in order, and may be late: events can
/// come between an action and its execution. An action about a child that has ended meanwhile must be
/// left out: another process can have its pid.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Report connections that wait on the service's listeners, until `Unwatch`.
    Watch(ServiceId),
    Unwatch(ServiceId),
    /// Start a child, and answer with [`Event::Spawned`](super::Event::Spawned) or
    /// [`Event::SpawnFailed`](super::Event::SpawnFailed).
    Spawn {
        service: ServiceId,
        generation: u32,
        stress: bool,
    },
    Signal {
        pid: Pid,
        signal: Signal,
    },
    /// Write an order into the channel of a child of an ordered pool; answer a failure with
    /// [`Event::OrderFailed`](super::Event::OrderFailed).
    Order {
        pid: Pid,
        order: Order,
    },
    /// Read what waits in a child's channel, and close it. A child that shares its listeners leaves
    /// when it reads end of file and has finished with its client.
    CloseChannel {
        pid: Pid,
    },
    /// Measure the memory of a child, and answer with [`Event::Measured`](super::Event::Measured).
    Measure {
        pid: Pid,
    },
    /// Connect to the service as a client would and send a wake-up.
    Wake(ServiceId),
    /// The service is removed: close its listeners.
    Close(ServiceId),
    /// End the master and, with SIGTERM, its whole process group.
    Terminate {
        signal: i32,
    },
    Log(Record),
}

impl Action {
    /// The child that it is about, if it is about one.
    pub fn pid(&self) -> Option<Pid> {
        match *self {
            Self::Signal { pid, .. }
            | Self::Order { pid, .. }
            | Self::CloseChannel { pid }
            | Self::Measure { pid } => Some(pid),
            Self::Watch(_)
            | Self::Unwatch(_)
            | Self::Spawn { .. }
            | Self::Wake(_)
            | Self::Close(_)
            | Self::Terminate { .. }
            | Self::Log(_) => None,
        }
    }
}

/// The signals that the master sends to single children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Int,
    Term,
    Kill,
}
