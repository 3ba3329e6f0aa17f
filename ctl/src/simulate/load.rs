//! Clients: when they come, and how long each takes.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use master::policy::Time;

/// Clients of a service. They come independently of each other.
#[derive(Clone, Debug)]
pub struct Load {
    /// Clients a second.
    pub rate: f64,
    /// How long a client takes.
    pub time: Duration,
    /// Some take longer.
    pub slow: Option<Slow>,
    random: fastrand::Rng,
}

/// The clients that take longer than the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slow {
    /// Their share of all: 0 to 1.
    pub share: f64,
    pub time: Duration,
}

impl Load {
    pub fn new(rate: f64, time: Duration, slow: Option<Slow>, seed: u64) -> Self {
        Self {
            rate,
            time,
            slow,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// When the client after one at `now` comes: times between independent clients are distributed
    /// exponentially.
    pub fn next_arrival(&mut self, now: Time) -> Time {
        let uniform = 1.0 - self.random.f64();
        now + Duration::from_secs_f64(-uniform.ln() / self.rate)
    }

    /// How long the next client takes.
    pub fn next_time(&mut self) -> Duration {
        match self.slow {
            Some(slow) if self.random.f64() < slow.share => slow.time,
            _ => self.time,
        }
    }

    /// The number of children that are busy on average, if each client finds one.
    pub fn busy(&self) -> f64 {
        let (share, slow) = self
            .slow
            .map_or((0.0, Duration::ZERO), |s| (s.share, s.time));
        self.rate * (self.time.as_secs_f64() * (1.0 - share) + slow.as_secs_f64() * share)
    }
}

/// `5%:20s`
impl FromStr for Slow {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (share, time) = text
            .split_once(':')
            .context("expected SHARE%:TIME, as 5%:20s")?;
        let share = share
            .strip_suffix('%')
            .context("expected a percentage before \":\", as 5%")?;
        let share: f64 = share.parse().context("the percentage is no number")?;
        ensure!((0.0..=100.0).contains(&share), "expected 0% to 100%");
        Ok(Self {
            share: share / 100.0,
            time: duration(time)?,
        })
    }
}

/// The longest time that is accepted, in seconds: a year.
const LONGEST: f64 = 365.0 * 86_400.0;

/// A time with its unit: ms, s, m, h or d; s if there is none.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => bail!("unknown unit \"{unit}\": expected ms, s, m, h or d"),
    };
    let number: f64 = number
        .parse()
        .ok()
        .context("expected a number and a unit, as 1.5s")?;
    let seconds = number * seconds;
    ensure!((0.0..=LONGEST).contains(&seconds), "expected 0 s to 365 d");
    Ok(Duration::from_secs_f64(seconds))
}

/// A number of clients a second.
///
/// # Errors
/// What is wrong with the text.
pub fn rate(text: &str) -> Result<f64> {
    let rate: f64 = text
        .parse()
        .ok()
        .context("expected a number of clients a second")?;
    ensure!(
        (1e-6..=1e6).contains(&rate),
        "expected 0.000001 to 1,000,000 clients a second"
    );
    Ok(rate)
}

/// An integer as large as its type permits.
///
/// # Errors
/// What was expected.
pub fn integer<N: TryFrom<u64>>(text: &str) -> Result<N> {
    let most = u64::MAX >> (u64::BITS as usize - 8 * size_of::<N>());
    let number = text.parse::<u64>().ok().and_then(|n| N::try_from(n).ok());
    number.with_context(|| format!("expected an integer from 0 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_is_in_seconds_otherwise() {
        let seconds = |text| duration(text).map(|time| time.as_secs_f64()).ok();
        assert_eq!(seconds("1.5s"), Some(1.5));
        assert_eq!(seconds("20ms"), Some(0.02));
        assert_eq!(seconds("2m"), Some(120.0));
        assert_eq!(seconds("7"), Some(7.0));
        for wrong in [
            "",
            "s",
            "-1s",
            "1w",
            "1 s 2",
            "nan",
            "inf",
            "9999999999d",
            "1e400",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_integer_is_as_large_as_its_type_permits() {
        assert_eq!(integer::<u32>("4294967295").unwrap(), u32::MAX);
        assert_eq!(integer::<u64>("18446744073709551615").unwrap(), u64::MAX);
        for wrong in ["", "a", "1.5", "-1", "4294967296"] {
            let error = integer::<u32>(wrong).unwrap_err().to_string();
            assert_eq!(error, "expected an integer from 0 to 4294967295", "{wrong}");
        }
    }

    #[test]
    fn slow_clients_are_a_percentage_with_a_time() {
        let slow: Slow = "5%:20s".parse().unwrap();
        assert_eq!((slow.share, slow.time), (0.05, Duration::from_secs(20)));
        for wrong in ["5", "5%", "5:20s", "101%:20s", "-1%:2s", "x%:2s", "5%:"] {
            assert!(wrong.parse::<Slow>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn as_many_clients_come_as_the_rate_says_and_the_same_for_a_seed() {
        let arrivals = |seed| {
            let mut load = Load::new(50.0, Duration::ZERO, None, seed);
            let mut now = Time::ZERO;
            (0..10_000)
                .map(|_| {
                    now = load.next_arrival(now);
                    now
                })
                .collect::<Vec<_>>()
        };
        let times = arrivals(1);
        let rate = times.len() as f64 / times.last().unwrap().as_secs_f64();
        assert!((48.0..52.0).contains(&rate), "{rate}");
        assert_eq!(times, arrivals(1));
        assert_ne!(times, arrivals(2));
    }
}
