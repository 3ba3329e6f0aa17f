//! What the policy counts for the status document. Nothing here decides anything.

use serde_derive::{Deserialize, Serialize};

use super::{ExitStatus, Service, Time};

/// What one service has seen since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// The most children that were busy at a time, and when that was first so.
    pub peak: u32,
    pub peak_at: Option<Time>,
    /// How often all processes that the limit allows were in use.
    pub limit_reached: u64,
    /// Whether they are in use now.
    at_limit: bool,
    /// Clients that children have reported.
    pub connections: u64,
    /// Children that were started, that ended with status 0, with another, and by a signal.
    pub started: u64,
    pub ended: u64,
    pub failed: u64,
    pub killed: u64,
}

impl Statistics {
    pub(super) fn count_end(&mut self, status: ExitStatus) {
        let count = match status {
            ExitStatus::Code(0) => &mut self.ended,
            ExitStatus::Code(_) => &mut self.failed,
            ExitStatus::Signal(_) => &mut self.killed,
        };
        *count += 1;
    }

    /// Takes in the number of `busy` children, of `max` that the service may have (0 is no limit).
    fn count_busy(&mut self, now: Time, busy: u32, max: u32) {
        if busy > self.peak {
            self.peak = busy;
            self.peak_at = Some(now);
        }
        let at_limit = max > 0 && busy >= max;
        self.limit_reached += u64::from(at_limit && !self.at_limit);
        self.at_limit = at_limit;
    }
}

impl Service {
    pub fn stats(&self) -> &Statistics {
        &self.rare().statistics
    }

    /// Children that have a client, as far as the master was told.
    pub fn busy(&self) -> u32 {
        self.total() - self.avail - self.departing - self.starting()
    }

    /// Children of an ordered pool that are not ready yet.
    pub fn starting(&self) -> u32 {
        self.pool.as_ref().map_or(0, |pool| pool.starting)
    }

    /// Counts busy children at the end of a turn.
    pub(super) fn update_stats(&mut self, now: Time) {
        let (busy, max) = (self.busy(), self.config.max);
        // Most services have never had any.
        if let Some(rare) = self.existing_rare() {
            rare.statistics.count_busy(now, busy, max);
        }
    }
}
