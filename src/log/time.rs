//! Times as log lines have them.

use std::fmt;

use crate::sys::clock;

/// The time of day for programs, RFC 3339: `2026-11-21T09:05:00.123Z`.
#[derive(Clone, Copy, Debug)]
pub(super) struct UtcTime {
    time: libc::tm,
    milliseconds: u32,
}

impl UtcTime {
    pub(super) fn now() -> Self {
        Self::at(clock::time_of_day())
    }

    fn at(time: std::time::Duration) -> Self {
        Self {
            time: clock::utc(time),
            milliseconds: time.subsec_millis(),
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

/// The local time: `Nov 21 09:05:00`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timestamp(libc::tm);

impl Timestamp {
    pub(super) fn now() -> Self {
        Self(clock::local(clock::time_of_day()))
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
    use std::time::Duration;

    #[test]
    fn a_time_for_machines_is_the_same_everywhere() {
        let leap_day = Duration::from_millis(1_709_164_805_007);
        assert_eq!(
            UtcTime::at(leap_day).to_string(),
            "2024-02-29T00:00:05.007Z"
        );
    }
}
