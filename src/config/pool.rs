//! Settings of `master.toml` for a service's pool of children: how a child gets its client, and how
//! many children are kept idle.

use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

/// Which side decides which child accepts a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Accept {
    /// The children: all of them wait on the listener. The master watches it only while no child is
    /// available.
    #[default]
    Shared,
    /// The master: a child accepts when it is ordered to.
    Ordered,
}

/// How fast additional idle children are started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ramp {
    /// One at a time.
    #[default]
    Single,
    /// Twice as many each second, while there are too few.
    Double,
}

/// The pool settings of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    pub accept: Accept,
    /// Minimum number of children; ordered pools only.
    pub min_children: u32,
    /// Minimum number of idle children, if the process limit allows it.
    pub min_idle: u32,
    /// Maximum number of idle children; the surplus is ended after some time. Ordered pools only.
    pub max_idle: u32,
    pub spawn_ramp: Ramp,
    /// A child that does not answer an order within this time is ended.
    pub reply_timeout: Duration,
    /// Interval between two pings to a child.
    pub ping_interval: Duration,
    /// Whether children are forked from a process that has loaded the program, the template.
    pub preload: bool,
    /// The age from which a template is replaced.
    pub preload_max_age: Option<Duration>,
    /// The number of children that a template forks before it is replaced.
    pub preload_max_uses: Option<u32>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Pool {
    /// The children share the listeners, and no idle children are kept.
    pub const DEFAULT: Self = Self {
        accept: Accept::Shared,
        min_children: 0,
        min_idle: 0,
        max_idle: 0,
        spawn_ramp: Ramp::Single,
        reply_timeout: Self::REPLY_TIMEOUT,
        ping_interval: Self::PING_INTERVAL,
        preload: false,
        preload_max_age: None,
        preload_max_uses: None,
    };

    /// The time for which SpamAssassin's children wait for their master (`TOUT_READ_MAX`).
    pub const REPLY_TIMEOUT: Duration = Duration::from_secs(300);
    /// The interval between the pings of SpamAssassin's master (`TOUT_PING_INTERVAL`).
    pub const PING_INTERVAL: Duration = Duration::from_secs(150);

    /// A pool with spamd's defaults.
    pub fn ordered() -> Self {
        Self {
            accept: Accept::Ordered,
            min_children: 1,
            min_idle: 1,
            max_idle: 2,
            ..Self::default()
        }
    }

    /// Whether a child accepts only when it is ordered to.
    pub fn is_ordered(&self) -> bool {
        self.accept == Accept::Ordered
    }

    /// The number of children that are kept without any load, under a process limit of `max` (0 is
    /// none). As in spamd, an ordered pool starts with as many as may be idle.
    pub fn floor(&self, max: u32) -> u32 {
        let wanted = match self.accept {
            Accept::Shared => return 0,
            Accept::Ordered => self.max_idle.max(self.min_children),
        };
        match max {
            0 => wanted,
            max => wanted.min(max),
        }
    }
}
