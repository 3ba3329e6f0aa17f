//! The clocks of the system, and the calendar.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Time since the machine was started, without the time that it slept.
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .expect("Linux always has this clock")
        .into()
}

/// The processor time that this thread has used.
pub fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("Linux always has this clock")
        .into()
}

/// Time since 1970; zero before that, on a clock that has not been set yet.
pub fn time_of_day() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// A [time of day](time_of_day) in the calendar, in UTC.
pub fn utc(time: Duration) -> libc::tm {
    in_calendar(time, libc::gmtime_r)
}

/// A [time of day](time_of_day) in the calendar, in the machine's time zone.
pub fn local(time: Duration) -> libc::tm {
    in_calendar(time, libc::localtime_r)
}

type Conversion = unsafe extern "C" fn(*const libc::time_t, *mut libc::tm) -> *mut libc::tm;

fn in_calendar(time: Duration, convert: Conversion) -> libc::tm {
    let seconds = time.as_secs() as libc::time_t;
    // SAFETY: both conversions read the number and fill the structure in, or leave the zeroes, which
    // are a value of this structure of numbers and a pointer. Both outlive the call.
    unsafe {
        let mut calendar = std::mem::zeroed();
        convert(&raw const seconds, &raw mut calendar);
        calendar
    }
}
