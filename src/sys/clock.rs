//! The clocks of the system, and times as text.

use std::fmt;
use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the machine was started, without the time that it slept.
pub fn monotonic() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the clock always exists on Linux, so the call fills the struct in.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr());
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The time of day for programs, RFC 3339: `2026-11-21T09:05:00.123Z`.
#[derive(Clone, Copy, Debug)]
pub struct UtcTime {
    time: libc::tm,
    milliseconds: u32,
}

impl UtcTime {
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        // A clock that is before 1970 has not been set yet.
        Self::at(since.unwrap_or_default())
    }

    fn at(since: Duration) -> Self {
        let seconds = since.as_secs() as libc::time_t;
        let mut time = MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: gmtime_r fills the struct in or leaves the zeroes, which are a value of this
        // plain struct.
        let time = unsafe {
            libc::gmtime_r(&seconds, time.as_mut_ptr());
            time.assume_init()
        };
        Self {
            time,
            milliseconds: since.subsec_millis(),
        }
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, milliseconds } = self;
        let (year, month) = (time.tm_year + 1900, time.tm_mon + 1);
        let (day, hour) = (time.tm_mday, time.tm_hour);
        let (minute, second) = (time.tm_min, time.tm_sec);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"
        )
    }
}

/// Time since 1970; zero before that.
pub fn time_of_day() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

/// The local time as log lines have it: `Nov 21 09:05:00`.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp(libc::tm);

impl Timestamp {
    pub fn now() -> Self {
        let mut local = MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: time() takes null; localtime_r fills the struct in or leaves the zeroes, which
        // are a value of this plain struct.
        unsafe {
            let now = libc::time(std::ptr::null_mut());
            libc::localtime_r(&now, local.as_mut_ptr());
            Self(local.assume_init())
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let month = usize::try_from(self.0.tm_mon).unwrap_or(0) % MONTHS.len();
        write!(
            f,
            "{} {:2} {:02}:{:02}:{:02}",
            MONTHS[month], self.0.tm_mday, self.0.tm_hour, self.0.tm_min, self.0.tm_sec
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_for_machines_is_the_same_everywhere() {
        let leap_day = Duration::from_millis(1_709_164_805_007);
        assert_eq!(
            UtcTime::at(leap_day).to_string(),
            "2024-02-29T00:00:05.007Z"
        );
    }
}
