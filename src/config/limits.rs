//! Settings of `master.toml` for children that fail, run too long, have served enough, or write to standard output.

use std::time::Duration;

use serde_derive::{Deserialize, Serialize};

/// Limits on the children of a service. The default is Postfix's behavior.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ChildLimits {
    /// Each failure doubles the throttle time up to this. Without it the throttle time is constant.
    pub throttle_most: Option<Duration>,
    /// The percentage (1 to 100) of recent clients whose child ended abnormally at which the
    /// service is throttled.
    pub crash_percent: Option<u32>,
    /// Children that were told to leave get SIGTERM after this time, and SIGKILL after twice this
    /// time.
    pub stop_timeout: Option<Duration>,
    /// A child that has served one client for longer than this is ended.
    pub request_timeout: Option<Duration>,
    /// No more children than this are started in a period.
    pub start_limit: Option<StartLimit>,
    /// Whether the master logs what the children write to standard output and standard error.
    pub capture_output: bool,
    /// A child leaves after it has served this number of clients; at least 1.
    pub max_uses: Option<u32>,
    /// A child leaves at this age, or some time before.
    pub max_age: Option<Duration>,
    /// A child that uses more bytes of memory leaves.
    pub memory_recycle: Option<u64>,
}

/// The most starts in a period, which begins with the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StartLimit {
    pub starts: u32,
    pub period: Duration,
}

impl ChildLimits {
    /// Postfix has no such limits.
    pub const DEFAULT: Self = Self {
        throttle_most: None,
        crash_percent: None,
        stop_timeout: None,
        request_timeout: None,
        start_limit: None,
        capture_output: false,
        max_uses: None,
        max_age: None,
        memory_recycle: None,
    };
}
