//! What `master.toml` says of a service's children: which one takes a client, and how many are kept
//! warm.

use std::time::Duration;

/// What decides which child takes a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accept {
    /// The children among themselves; the master does not watch while one of them is available.
    #[default]
    Shared,
    /// The master: a child accepts when it is told to.
    Ordered,
}

/// How fast children are started that no client has asked for yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ramp {
    /// One at a time.
    #[default]
    Single,
    /// Twice as many in every second, as long as there are too few.
    Double,
}

/// How the children of one service are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    pub accept: Accept,
    /// Never fewer children than this; ordered pools only.
    pub min_children: u32,
    /// Children that wait for a client, if the limit allows that many.
    pub min_idle: u32,
    /// Of more than these, the surplus ends after a while; ordered pools only.
    pub max_idle: u32,
    pub spawn_ramp: Ramp,
    /// A child that leaves an order unanswered for longer is ended.
    pub reply_timeout: Duration,
    /// How often children are told that the master lives.
    pub ping_interval: Duration,
}

impl Default for Pool {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Pool {
    /// Children share the listeners, and none is kept warm.
    pub const DEFAULT: Self = Self {
        accept: Accept::Shared,
        min_children: 0,
        min_idle: 0,
        max_idle: 0,
        spawn_ramp: Ramp::Single,
        reply_timeout: Self::REPLY_TIMEOUT,
        ping_interval: Self::PING_INTERVAL,
    };

    /// SpamAssassin's children wait as long for a word of their master (`TOUT_READ_MAX`).
    pub const REPLY_TIMEOUT: Duration = Duration::from_secs(300);
    /// And their master pings them so often (`TOUT_PING_INTERVAL`).
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

    /// Whether children accept when they are told to.
    pub fn is_ordered(&self) -> bool {
        self.accept == Accept::Ordered
    }

    /// The children that are kept whatever the load, under a process limit (0 is none). Ordered
    /// pools start with them: as many as may be idle, like spamd's.
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
