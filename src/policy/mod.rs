//! The rules: facts from outside go in as [`Event`]s, and what is to be done comes out as
//! [`Action`]s.
//!
//! Pure and deterministic: no clock (time is an argument), no descriptor, no system call, and no
//! result that depends on the order of a hash table. So every decision can be tested and simulated
//! without a process. The rules are those of Postfix's `src/master/master_avail.c`,
//! `master_spawn.c`, `master_status.c` and `master_wakeup.c`; where ours differ, the code says why.
//!
//! A [`Table`] owns the [`Service`]s, and each service owns its children. A method of a service
//! takes the table's `Context`: the time, the timers, and where actions go.

mod action;
mod avail;
mod child;
mod deadlines;
mod event;
mod operator;
mod pids;
mod pool;
mod progress;
mod record;
mod recycle;
mod reload;
mod service;
mod snapshot;
mod statistics;
mod status;
mod stress;
mod table;
#[cfg(test)]
mod tests;
mod throttle;
mod timers;
mod wakeup;

use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

pub use action::{Action, Signal};
pub use child::{ChildInfo, ChildState, State};
pub use event::{Errno, Event, ExitStatus, OrderFailure, Progress};
pub use pids::ByPid;
pub use record::{Counts, Kind, Limiter, Record, Rogue, Severity, SpawnFailure};
pub use recycle::Outlived;
pub use reload::{Entry, Plan};
pub use service::Service;
pub use snapshot::Snapshot;
pub use statistics::Statistics;
pub use table::Table;

/// Time since an origin that does not change while the table lives; an upgrade keeps it, too. What is
/// given to a table as `now` never decreases.
pub type Time = Duration;

/// A process ID.
pub type Pid = i32;

/// A service's place in the table. A place is used again once its service was removed and the last
/// child of that has ended.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ServiceId(u32);

impl ServiceId {
    /// The place as an index, to keep something for each service beside the table.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The place with this index.
    ///
    /// # Panics
    /// Above 4,294,967,295, which no table can reach.
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("fewer than 2^32 services"))
    }
}
