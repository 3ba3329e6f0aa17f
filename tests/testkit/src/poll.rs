//! The only way to wait in tests: try, check the time, try again.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The result of an attempt: `bool`, or `Option` with a value.
pub trait Attempt {
    type Success;
    fn success(self) -> Option<Self::Success>;
}

impl Attempt for bool {
    type Success = ();
    fn success(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Attempt for Option<T> {
    type Success = T;
    fn success(self) -> Option<T> {
        self
    }
}

/// Repeats an attempt until it succeeds, and returns its value.
///
/// # Panics
/// When it has not succeeded within `limit`; the message contains `what`.
#[track_caller]
pub fn until<A: Attempt>(
    limit: Duration,
    what: impl Display,
    attempt: impl FnMut() -> A,
) -> A::Success {
    match within(limit, attempt) {
        Some(success) => success,
        None => panic!("waited {limit:?} in vain for {what}"),
    }
}

/// Like [`until`], but returns `None` on failure.
pub fn within<A: Attempt>(limit: Duration, mut attempt: impl FnMut() -> A) -> Option<A::Success> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        // The clock is read first, so that there is a last attempt after the deadline: on a busy
        // machine the pause may have been long.
        let last = Instant::now() >= deadline;
        if let Some(success) = attempt().success() {
            return Some(success);
        }
        if last {
            return None;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Asserts that a condition stays true for a period. Only for promises that something does *not*
/// happen; do not use it to wait.
#[track_caller]
pub fn stays(period: Duration, what: impl Display, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + period;
    while Instant::now() < end {
        assert!(condition(), "did not stay true: {what}");
        sleep(Duration::from_millis(10));
    }
}
