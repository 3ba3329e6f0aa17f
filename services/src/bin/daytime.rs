//! The daytime service (RFC 867): sends the date and time, in UTC, as text.

use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use services::About;

const ABOUT: About = About {
    summary: "Sends the date and time, in UTC, to each client.",
    arguments: "",
    version: env!("CARGO_PKG_VERSION"),
};

fn main() -> ExitCode {
    services::run_as(&ABOUT, |service| {
        service.single(|client| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            // A clock before 1970 is wrong; the answer is then 1970.
            let seconds = since.map_or(0, |time| time.as_secs());
            client.write_all(daytime(seconds).as_bytes())?;
            client.shutdown_write()
        })
    })
}

const WEEKDAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

const MONTHS: [(&str, u64); 12] = [
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];

/// The text for a number of seconds since the beginning of 1970, which was a Thursday.
fn daytime(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let weekday = WEEKDAYS[(days % 7) as usize];
    let (year, month, day) = date(days);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{weekday}, {month} {day}, {year} {hour:02}:{minute:02}:{second:02}-UTC\r\n")
}

/// The date `days` days after January 1, 1970.
fn date(mut days: u64) -> (u64, &'static str, u64) {
    let mut year = 1970;
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    for (month, length) in MONTHS {
        let leap = u64::from(month == "February" && days_of(year) == 366);
        if days < length + leap {
            return (year, month, days + 1);
        }
        days -= length + leap;
    }
    unreachable!("the months of a year have all its days")
}

fn days_of(year: u64) -> u64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    365 + u64::from(leap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_knows_leap_years() {
        for (seconds, text) in [
            (0, "Thursday, January 1, 1970 00:00:00-UTC\r\n"),
            (951_782_400, "Tuesday, February 29, 2000 00:00:00-UTC\r\n"),
            (
                1_709_251_199,
                "Thursday, February 29, 2024 23:59:59-UTC\r\n",
            ),
            (1_709_251_200, "Friday, March 1, 2024 00:00:00-UTC\r\n"),
            (
                1_798_761_599,
                "Thursday, December 31, 2026 23:59:59-UTC\r\n",
            ),
            (4_107_542_400, "Monday, March 1, 2100 00:00:00-UTC\r\n"),
        ] {
            assert_eq!(daytime(seconds), text);
        }
    }
}
