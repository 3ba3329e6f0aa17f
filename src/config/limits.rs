//! What `master.toml` says of a service's children that fail, stay too long, or print something.

use std::time::Duration;

/// Limits on a service's children; by default those of Postfix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChildLimits {
    /// Failures double the throttle time up to this; without it, it stays the same.
    pub throttle_most: Option<Duration>,
    /// The share of recent clients whose child ended abnormally that throttles the service, in
    /// per cent: 1 to 100.
    pub crash_percent: Option<u32>,
    /// Children that were told to leave are ended after this, and killed after as long again.
    pub stop_timeout: Option<Duration>,
    /// Children that have one client for longer are ended.
    pub request_timeout: Option<Duration>,
    /// What the children print is logged.
    pub capture_output: bool,
}

impl ChildLimits {
    /// Those of Postfix, which has none.
    pub const DEFAULT: Self = Self {
        throttle_most: None,
        crash_percent: None,
        stop_timeout: None,
        request_timeout: None,
        capture_output: false,
    };
}
