//! What time it is.

use std::fmt;
use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

/// Time since the machine was started, sleep not counted.
pub fn monotonic() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the clock always exists on Linux, so the call fills the struct in.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr());
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Time since 1970; before that, none.
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
